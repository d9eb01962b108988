"""Column files of words and tags: counted by hand, and the three schemes with the same entities."""

import gzip

import pytest

from appzoo import discovery
from appzoo.labeling.entities import entities
from appzoo.sequence_labeling.config import BertLabelingConfig
from easytransfer.config.job import DataConfig
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.table import open_table
from easytransfer.errors import DataError

CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
# SYM O O

Peter NNP B-NP B-PER


-DOCSTART- -X- -X- O

Blackburn NNP I-NP I-PER
"""


@pytest.fixture(autouse=True, scope="module")
def forms():
    discovery.config_class("sequence_labeling_bert")  # registers the reader


def rows_of(path, **data):
    bad = BadRows("skip")
    table = open_table(str(path), schema=None, data=DataConfig(**data), bad_rows=bad)
    rows = [
        dict(zip(chunk.columns, values, strict=True))
        for chunk in table.chunks()
        for values in zip(*chunk.columns.values(), strict=True)
    ]
    assert table.count.read == len(rows) + table.count.rejected == table.row_count()
    return rows, dict(bad.reasons)


@pytest.mark.parametrize("between", [" ", "\t"])
def test_columns_are_words_tags_and_what_is_between(tmp_path, between):
    path = tmp_path / "train.conll"
    path.write_text(CONLL.replace(" ", between))
    rows, reasons = rows_of(path)
    assert not reasons and rows == [
        {
            "words": ["EU", "rejects", "#"],
            "column_2": ["NNP", "VBZ", "SYM"],
            "column_3": ["B-NP", "B-VP", "O"],
            "tags": ["B-ORG", "O", "O"],
        },
        {"words": ["Peter"], "column_2": ["NNP"], "column_3": ["B-NP"], "tags": ["B-PER"]},
        {"words": ["Blackburn"], "column_2": ["NNP"], "column_3": ["I-NP"], "tags": ["I-PER"]},
    ]


@pytest.mark.parametrize(
    ("text", "expected", "bad"),
    [
        ("a O\r\nb B-X\r\n\r\nc O", [["a", "b"], ["c"]], 0),
        ("# a comment of words\na O\n\n# id 7 x\nb O\n", [["a"], ["b"]], 0),
        ("# O\na O\n", [["#", "a"]], 0),  # a word
        ("a O\n# more of it here\nb O\n\nc O\n", [["c"]], 1),  # no comment within a text
        ("a O\nb\n\nc O\n", [["c"]], 1),
        ("New York\tB-LOC\nis\tO\n\nc\tO\n", [["New York", "is"], ["c"]], 0),
        ("a\n\nb\n", [["a"], ["b"]], 0),
        ("a O\nb\0 O\n\nc O\n", [["c"]], 1),
    ],
)
def test_lines_that_are_no_words(tmp_path, text, expected, bad):
    path = tmp_path / "t.bio"
    path.write_text(text, newline="")
    rows, reasons = rows_of(path)
    assert [row["words"] for row in rows] == expected and sum(reasons.values()) == bad


def test_schemes_have_the_same_entities(tmp_path):
    """Two persons next to each other and a place of three words, in IOB1, IOB2 and IOBES."""
    tags = {
        "iob": "I-PER B-PER O I-LOC I-LOC I-LOC",
        "iob2": "B-PER B-PER O B-LOC I-LOC I-LOC",
        "iobes": "S-PER S-PER O B-LOC I-LOC E-LOC",
    }
    for ending, names in tags.items():
        path = tmp_path / f"t.{ending}"
        path.write_text("".join(f"w{i} {tag}\n" for i, tag in enumerate(names.split())))
        ((row,), _) = rows_of(path)
        assert entities(row["tags"]) == [("PER", 0, 1), ("PER", 1, 2), ("LOC", 3, 6)], ending


def test_a_file_without_empty_lines_does_not_fill_memory(tmp_path):
    path = tmp_path / "t.conll"
    path.write_text("a O\n" * 100_001)
    with pytest.raises(DataError, match="t.conll:100001: 100000 lines without an empty one"):
        rows_of(path)


def test_other_encodings_and_packed_files(tmp_path):
    data = "caf\xe9 O\n".encode("latin-1")
    (tmp_path / "t.conll").write_bytes(data)
    (tmp_path / "t.conll.gz").write_bytes(gzip.compress(data))
    for name in ("t.conll", "t.conll.gz"):
        assert rows_of(tmp_path / name, encoding="latin-1")[0] == [{"words": ["caf\xe9"], "tags": ["O"]}]
    with pytest.raises(DataError, match="no record of .* can be read; the first: invalid UTF-8: .*--encoding=latin-1"):
        rows_of(tmp_path / "t.conll")


@pytest.mark.parametrize("name", ["train.conll", "TRAIN.BIO", "t.iobes.gz"])
def test_columns_need_not_be_named_and_may_be(name):
    data = BertLabelingConfig.model_validate({"data": {"train_table": name}}).data
    assert (data.first_sequence, data.label_name) == ("words", "tags")
    data = BertLabelingConfig.model_validate({"data": {"train_table": name, "label_name": "column_2"}}).data
    assert (data.first_sequence, data.label_name) == ("words", "column_2")
    data = BertLabelingConfig.model_validate({"data": {"train_table": "train.tsv"}}).data
    assert (data.first_sequence, data.label_name) == (None, None)


def test_columns_of_squad_need_not_be_named():
    config = discovery.config_class("text_comprehension_bert").model_validate({"data": {"train_table": "train.json"}})
    data = config.data
    assert (data.first_sequence, data.second_sequence, data.label_name) == ("context", "question", "answers")
    changed = config.model_copy()
    changed.checkpoint_dir = "run"
    assert changed.data.first_sequence == "context"
