"""Separators, quotes and encodings of a table: read as Python's own modules read them, or refused."""

import csv
import gzip
import io
import json
import random

import pytest

from easytransfer.config.job import DataConfig
from easytransfer.config.stored import inherited
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.csv_dialect import csv_dialect
from easytransfer.data.encodings import as_utf8
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.errors import ConfigError, DataError

ROWS = [
    ["text", "label"],
    ["a, b; c", "x"],
    ['say "hi"', "y"],
    ["two\nlines", "x"],
    ["it's", "y"],
    ["caf\xe9 | bar", "x"],
]


def rows_of(path, schema=None, **data):
    table = open_table(str(path), schema=schema, data=DataConfig(**data), bad_rows=BadRows("fail"))
    rows = [list(row) for chunk in table.chunks(2) for row in zip(*chunk.columns.values(), strict=True)]
    assert table.row_count() == len(rows)
    return [table.schema.names, *rows]


def csv_text(rows, delimiter=",", quote='"', quoting=csv.QUOTE_MINIMAL):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quotechar=quote, quoting=quoting, lineterminator="\n").writerows(rows)
    return text.getvalue()


# Separators and quotes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_a_csv_writer_wrote_is_read_back_and_told(tmp_path, delimiter, quote, capfd):
    path = tmp_path / "t.csv"
    path.write_text(csv_text(ROWS, delimiter, quote, csv.QUOTE_ALL), encoding="utf-8")
    assert rows_of(path) == ROWS
    single = ", cells in single quotes" if quote == "'" else ""
    shown = {"\t": "tab"}.get(delimiter, repr(delimiter))
    assert capfd.readouterr().err == f"{path}: {shown} between cells{single}, columns text, label\n"
    path.write_text(csv_text(ROWS, delimiter), encoding="utf-8")
    assert rows_of(path) == ROWS and capfd.readouterr().err.count("\n") == (quote == "'")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("text\nhello, you\nfine\n", ","),  # one column, whose texts have commas
        ("text,label\n", ","),
        ("a;b\n", ";"),
        ("a;b,c\n1;2\n3;4\n", ";"),  # the rows decide
        ("a;b\n1;2\n" * 6 + "bad row\n", ";"),
        ("sep=|\na|b\n", "|"),
        ('a;b\n"1;\n2";3\n', ";"),
        ("", ","),
        ("a;b\none\u2028two;3\nfour\x85five;6\n", ";"),
    ],
)
def test_the_separator_is_that_of_header_and_rows(tmp_path, text, expected):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    assert csv_dialect(str(path)).delimiter == expected


@pytest.mark.parametrize("text", ["a;b,c\n1;2,3\n", "a\tb|c\n"])
def test_two_separators_that_fit_are_refused(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError, match="t.csv can be cut into columns in several ways: .* --delimiter"):
        rows_of(path)
    if "," in text:
        assert rows_of(path, delimiter=",") == [["a;b", "c"], ["1;2", "3"]]


def test_a_sample_that_ends_inside_of_a_row_is_no_other_table(tmp_path):
    path = tmp_path / "t.csv"
    cell = "word, " * 3000
    path.write_text("text;label\n" + f'"{cell}\n";x\n' * 40)
    assert csv_dialect(str(path)).delimiter == ";" and rows_of(path)[1:] == [[f"{cell}\n", "x"]] * 40


# Encodings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-be", "utf-32", "shift_jis", "gb18030"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.jsonl.gz", "t.json"])
def test_a_named_encoding_reads_what_python_wrote_in_it(tmp_path, encoding, name):
    word = "\u65e5\u672c" if encoding in ("shift_jis", "gb18030") else "caf\xe9"
    squad = {"data": [{"paragraphs": [{"context": word, "qas": [{"id": "1", "question": "q", "answers": []}]}]}]}
    text = {
        "t.csv": f"text,label\n{word},x\n",
        "t.tsv": f"{word}\tx\n",
        "t.json": json.dumps(squad, ensure_ascii=False),
    }.get(name, json.dumps({"text": word, "label": "x"}, ensure_ascii=False) + "\n")
    (gzip.open if name.endswith(".gz") else open)(tmp_path / name, "wb").write(text.encode(encoding))
    schema = parse_schema("text:str:1,label:str:1") if name == "t.tsv" else None
    assert word in rows_of(tmp_path / name, schema, encoding=encoding)[1]
    if encoding in ("utf-16", "utf-32"):
        assert word in rows_of(tmp_path / name, schema)[1], "its mark says it"


def test_a_long_text_is_converted_as_python_converts_it():
    draw = random.Random(1)
    text = "".join(chr(draw.choice((65, 0xE9, 0x4E2D, 0x1F600))) for _ in range(300_000))
    for encoding in ("utf-16", "utf-8", "gb18030"):
        stream = as_utf8(io.BytesIO(text.encode(encoding)), encoding, "t")
        assert stream.read() == text.encode("utf-8")


def test_what_is_not_in_the_named_encoding_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"text,label\n\x81,x\n")
    with pytest.raises(DataError, match="t.csv is not cp1252: .* --encoding"):
        rows_of(path, encoding="cp1252")
    for wrong in ("klingon", "base64"):
        with pytest.raises(ValueError, match="no encoding of text that Python knows"):
            DataConfig(encoding=wrong)
    (tmp_path / "t.npz").touch()
    with pytest.raises(ConfigError, match="--encoding does not apply to tables of the form npz"):
        rows_of(tmp_path / "t.npz", encoding="cp1252")


def test_an_encoding_is_not_taken_over_by_the_next_table():
    """Every byte is a letter in latin-1: a UTF-8 table would be read as other words without an error."""
    stored = {"data": {"encoding": "latin-1", "delimiter": ";"}}
    assert inherited(stored) == {"data": {"delimiter": ";"}}
