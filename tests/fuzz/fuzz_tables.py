"""Targets that read tables: text, JSON, TFRecord, arrays, Parquet."""

from __future__ import annotations

import gzip
import io
from typing import Any

import numpy as np
from fuzz_case import Folder, Target
from fuzz_inputs import as_json, files, json_bytes, keyed, texts, values
from hypothesis import strategies as st
from pydantic import ValidationError

from easytransfer.config.job import DataConfig
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.schema import Schema, parse_schema
from easytransfer.data.table import open_table
from easytransfer.text.word_vectors import read_word_vectors

DECLARED = ["t:str:1,n:int:1", "t:str:*,f:float:2", "b:base64:1", "image:image:1,label:str:1"]
SCHEMAS = [None, *map(parse_schema, DECLARED)]
WHOLE = parse_schema("t:str:1,n:int:1,f:float:2,b:base64:2")


def read(path: Any, schema: Schema | None, data: DataConfig | None = None) -> None:
    """Reads a table; every row is accounted for."""
    table = open_table(str(path), schema=schema, data=data, bad_rows=BadRows("skip"))
    accepted = sum(len(chunk) for chunk in table.chunks(size=3))
    assert accepted == table.count.accepted
    assert table.count.read == table.count.accepted + table.count.rejected == table.row_count()


# Text -------------------------------------------------------------------------------------------------------


def text_table(given: tuple[str, bytes, Schema | None, dict[str, Any]], folder: Folder) -> None:
    """TSV and CSV, plain and compressed, under any settings."""
    suffix, content, schema, settings = given
    packed = gzip.compress(content) if suffix.endswith(".gz") and not settings["broken"] else content
    try:
        data = DataConfig(**{name: settings[name] for name in ("delimiter", "header", "escape")})
    except ValidationError:
        return  # what a job file would be told, see the target `config`
    read(folder.put(f"t{suffix}", packed), schema, data)


def json_lines(given: tuple[bytes, Schema | None], folder: Folder) -> None:
    """JSON lines, with columns declared or guessed."""
    read(folder.put("t.jsonl", given[0]), given[1])


def squad(content: bytes, folder: Folder) -> None:
    """SQuAD's JSON."""
    read(folder.put("t.json", content), None)


def word_vectors(content: bytes, folder: Folder) -> None:
    """Text files of word2vec."""
    vectors, _ = read_word_vectors(folder.put("vectors.txt", content), ["a", "b"], 2)
    assert np.isfinite(vectors).all()


LINES = [b"a\t1\nb\t2\n", b"t\tn\nx\t5\n", b'"a ""b"", c",1\n"d\ne",2\n', b"x,y\t1.5,2\n", b"AACAPwAAAEA=\n"]
LINES += [b"\xef\xbb\xbfa\t1\r\n", b"p.png\tcat\n", b"\xff\xfea\0", b'"never closed\n' * 3, b"a b  c   d\n"]
TEXT_SETTINGS = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from(["\t", ",", ";", "|", "\\t", '"', "\r", " ", "ab", "", "\0", "é", "\n"]),
        "header": st.sampled_from(["none", "skip", "names"]),
        "escape": st.booleans(),
        "broken": st.booleans(),
    }
)
CELLS = texts(["\t", "\n", ",", '"', "1", "a"], surrogates=True)
TEXT_TABLES = st.tuples(
    st.sampled_from([".tsv", ".csv", ".txt", ".tsv.gz", ".csv.gz"]),
    st.one_of(files(*LINES), CELLS.map(lambda text: text.encode(errors="surrogatepass"))),
    st.sampled_from(SCHEMAS),
    TEXT_SETTINGS,
)
ROW = keyed(["t", "n", "f", "b", "image", "label"])
ROWS = st.lists(st.one_of(ROW, values()).map(as_json), max_size=4).map(lambda rows: "\n".join(rows).encode())
JSON_LINE = b'{"t": "a", "n": 1, "f": [1.5, 2], "b": "AACAPwAAAEA="}\n'
LONG_LINES = [b"[" * 3000, b'{"n": ' + b"9" * 5000 + b"}\n"]
JSON_LINES = st.tuples(st.one_of(ROWS, files(JSON_LINE, *LONG_LINES)), st.sampled_from([*SCHEMAS, WHOLE]))
QUESTION = keyed(["id", "question", "answers", "is_impossible"])
PARAGRAPH = keyed(["context", "qas"], st.one_of(st.lists(QUESTION, max_size=2), values()))
ARTICLE = keyed(["title", "paragraphs"], st.one_of(st.lists(PARAGRAPH, max_size=2), values()))
ARTICLES = st.lists(ARTICLE, max_size=2).map(lambda data: {"data": data})
SQUAD = b'{"data": [{"title": "t", "paragraphs": [{"context": "a", "qas": [{"id": "1", "question": "?"}]}]}]}'
SQUADS = st.one_of(files(SQUAD), json_bytes(ARTICLES), json_bytes(values()))


# Binary -----------------------------------------------------------------------------------------------------


def records(given: tuple[list[bytes], list[tuple[int, int]], bool, Schema | None], folder: Folder) -> None:
    """TFRecord files of any records, with some bytes of the file changed."""
    import tensorflow as tf

    contents, changes, packed, schema = given
    path = folder.put("made", b"")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for content in contents:
            writer.write(content)
    data = bytearray(path.read_bytes())
    for at, byte in changes:
        if data:
            data[at % len(data)] = byte
    name, data = ("t.tfrecord.gz", gzip.compress(data)) if packed else ("t.tfrecord", bytes(data))
    read(folder.put(name, data), schema)


def arrays(given: tuple[str, bytes, bytes], folder: Folder) -> None:
    """Pictures in `.npz` and in idx files."""
    suffix, content, labels = given
    if suffix == ".npz":
        path = folder.put("t.npz", content)
    else:
        path = folder.put(f"train-images-idx3-ubyte{suffix}", gzip.compress(content) if suffix else content)
        folder.put(f"train-labels-idx1-ubyte{suffix}", gzip.compress(labels) if suffix else labels)
    read(path, None)


def parquet(content: bytes, folder: Folder) -> None:
    """Parquet files with bytes changed."""
    read(folder.put("t.parquet", content), None)


def example(**features: list[Any]) -> bytes:
    """A tf.train.Example in its wire form, made without TensorFlow: feature -> list of bytes or of integers."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    entries = b""
    for name, items in features.items():
        is_text = isinstance(items[0], bytes)
        lists = b"".join(field(1, item) for item in items) if is_text else field(1, bytes(items))
        entries += field(1, field(1, name.encode()) + field(2, field(1 if is_text else 3, lists)))
    return field(1, entries)


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def idx(*shape: int, body: bytes = b"") -> bytes:
    return bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape) + body


def parquet_seed() -> bytes:
    import pyarrow
    from pyarrow import parquet as form

    stream = io.BytesIO()
    form.write_table(pyarrow.table({"t": ["a", None], "n": [1, 2], "f": [[1.0], [2.0, 3.0]]}), stream)
    return stream.getvalue()


EXAMPLES = [example(t=[b"a"], n=[1]), example(t=[b"x", b"y"]), example(image=[b"\x89PNG"], label=[b"c"]), b"", b"\xff"]
CHANGES = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=2)
RECORDS = st.tuples(st.lists(files(*EXAMPLES), max_size=3), CHANGES, st.booleans(), st.sampled_from(SCHEMAS))
PIXELS = np.zeros((2, 3, 3), np.uint8)
NPZ = [npz(image=PIXELS, label=np.arange(2)), npz(x=PIXELS, y=np.array(["a", "b"]), class_names=np.array(["c"]))]
NPZ += [npz(image=np.zeros(3)), npz(image=np.uint8(3), label=np.zeros((2, 2))), npz(data=PIXELS, target=np.zeros(()))]
HUGE = 2**32 - 1
IDX = [idx(2, 3, 3, body=bytes(18)), idx(HUGE, HUGE, HUGE), idx(0, HUGE, HUGE), idx(*[1] * 200, body=b"x")]
ARRAYS = st.one_of(
    st.tuples(st.just(".npz"), files(*NPZ), st.just(b"")),
    st.tuples(st.sampled_from(["", ".gz"]), files(*IDX), files(idx(2, body=b"\0\1"), idx(2, 2, body=bytes(4)))),
)
TABLE_TARGETS = (
    Target("text_table", TEXT_TABLES, text_table),
    Target("json_lines", JSON_LINES, json_lines),
    Target("squad", SQUADS, squad),
    Target("word_vectors", files(b"2 2\na 1 2\nb 3 4\n", b"1 2\na nan 1\n"), word_vectors),
    Target("tfrecord", RECORDS, records, heavy=True),
    Target("arrays", ARRAYS, arrays),
    Target("parquet", files(parquet_seed()), parquet),
)
