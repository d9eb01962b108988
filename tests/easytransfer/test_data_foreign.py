"""Tables as other programs write them: headers, separators, encodings, unread columns, quotes that are never closed."""

import datetime
import gzip
import json
from decimal import Decimal

import numpy as np
import pytest

from easytransfer.compat.datasets import CSVReader
from easytransfer.config.job import DataConfig
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.csv_format import MOST_QUOTED_LINES
from easytransfer.data.schema import Column, parse_schema
from easytransfer.data.table import open_table
from easytransfer.data.values import convert_values, read_integer, read_number
from easytransfer.errors import ConfigError, DataError

PAIR = parse_schema("text:str:1,label:str:1")
HEADER = "the first line holds the column names"


def rows_of(path, schema=None, needed=(), texts=None, policy="skip", **data):
    """All accepted rows as tuples, and the reasons of the others; the count of rows is checked."""
    bad_rows = BadRows(policy)
    settings = {"schema": schema, "data": DataConfig(**data), "bad_rows": bad_rows}
    table = open_table(str(path), needed=needed, texts=texts or {}, **settings)
    if needed:
        table.narrow(needed)
    rows = [
        row for chunk in table.chunks() for row in zip(*(chunk.columns[n] for n in table.schema.names), strict=True)
    ]
    assert table.count.read == table.count.accepted + table.count.rejected == table.row_count()
    return rows, dict(bad_rows.reasons)


def write(path, content):
    data = content if isinstance(content, bytes) else content.encode()
    (gzip.open if str(path).endswith(".gz") else open)(path, "wb").write(data)
    return path


# The first line ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.tsv", "t.txt", "t.csv", "t.tsv.gz"])
@pytest.mark.parametrize("header", ["text\tlabel", "TEXT\tLabel", " label \ttext", '"text"\t"label"'])
def test_a_header_where_none_is_expected_is_no_row(tmp_path, name, header):
    path = write(tmp_path / name, f"{header}\na\tx\nb\ty\n")
    rows, reasons = rows_of(path, PAIR)
    assert rows == [("a", "x"), ("b", "y")] and reasons == {HEADER: 1}
    with pytest.raises(DataError, match=rf"{name}:1: {HEADER}: --header=names .* --header=skip"):
        rows_of(path, PAIR, policy="fail")


def test_every_file_of_a_table_may_have_a_header(tmp_path):
    for name in ("a.tsv", "b.tsv"):
        write(tmp_path / name, "text\tlabel\na\tx\n")
    assert rows_of(tmp_path, PAIR) == ([("a", "x")] * 2, {HEADER: 2})


def test_a_header_of_one_column_and_what_only_looks_like_one(tmp_path):
    path = write(tmp_path / "t.tsv", "text\na\n")
    assert rows_of(path, parse_schema("text:str:1")) == ([("a",)], {HEADER: 1})
    with pytest.raises(DataError, match=f"t.csv:1: {HEADER}: read the table with --delimiter=, --header=names"):
        rows_of(write(tmp_path / "t.csv", "text,label\na,x\n"), parse_schema("text:str:1"), policy="fail")
    path = write(tmp_path / "t.tsv", "text\tx\ntext\tlabel\n")
    assert rows_of(path, PAIR) == ([("text", "x"), ("text", "label")], {})
    assert rows_of(write(tmp_path / "t.tsv", "text\tlabel\na\tx\n"), PAIR, header="names")[0] == [("a", "x")]


def test_the_hint_about_the_separator_names_the_header_and_works_as_it_stands(tmp_path):
    for name in ("t.csv", "t.tsv"):
        path = write(tmp_path / name, "text,label\na,x\nb,y\n")
        with pytest.raises(DataError, match="it has 2 cells with --delimiter=, --header=names;"):
            rows_of(path, PAIR, policy="fail")
        assert rows_of(path, PAIR, delimiter=",", header="names") == ([("a", "x"), ("b", "y")], {})
        assert rows_of(path, PAIR, delimiter=",")[1] == {HEADER: 1}
    with pytest.raises(DataError, match="2 cells with --delimiter=,;"):
        rows_of(write(tmp_path / "u.tsv", "a,x\n"), PAIR, policy="fail")
    # A header with more columns than the schema declares.
    with pytest.raises(DataError, match=f"wrong.tsv:1: {HEADER}"):
        rows_of(write(tmp_path / "wrong.tsv", "id\ttext\tlabel\n1\ta\tx\n"), PAIR, policy="fail")


def test_readers_of_user_defined_applications_refuse_a_header(tmp_path):
    path = write(tmp_path / "t.tsv", "text\tlabel\na\tx\n")
    with pytest.raises(DataError, match=HEADER):
        list(CSVReader(str(path), "text:str:1,label:str:1").batches())


# Columns nobody asks for ------------------------------------------------------------------------------------


def test_columns_without_a_name_or_with_a_repeated_one(tmp_path):
    path = write(tmp_path / "t.csv", ",text,label,note,note\n0,a,x,1,2\n1,b,y,3,4\n")
    assert rows_of(path, needed=["text", "label"]) == ([("a", "x"), ("b", "y")], {})
    assert rows_of(path, PAIR, header="names") == ([("a", "x"), ("b", "y")], {})
    with pytest.raises(ConfigError, match="column 'note' of table .*t.csv stands in its header twice"):
        rows_of(path, needed=["note"])
    with pytest.raises(ConfigError, match="column 'note' of the header of .*t.csv stands in its header twice"):
        rows_of(path, parse_schema("text:str:1,note:str:1"), header="names")
    with pytest.raises(DataError, match="has no names"):
        rows_of(write(tmp_path / "u.csv", ",\n1,2\n"))


def test_columns_of_any_type_may_stand_beside(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    moment = datetime.datetime(2024, 2, 29)
    columns = {
        "text": ["a", "b"], "label": [True, False], "when": [moment] * 2, "nothing": pa.nulls(2), "gap": [1, None],
        "place": [{"x": 1}] * 2, "price": [Decimal("1.50")] * 2,
    }  # fmt: skip
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path)
    assert rows_of(path, needed=["text", "label"]) == ([("a", "true"), ("b", "false")], {})
    assert rows_of(path, needed=["price"])[0] == [("1.50",)] * 2
    for name, kind in (("when", "timestamp"), ("nothing", "null"), ("place", "struct")):
        with pytest.raises(ConfigError, match=f"column '{name}' of table .* has type {kind}.*; accepted: text, label"):
            rows_of(path, needed=[name])
    rows = "".join(json.dumps({"text": t, "label": 1, "meta": m}) + "\n" for t, m in (("a", {}), ("b", [[1]])))
    assert rows_of(write(tmp_path / "t.jsonl", rows), needed=["text", "label"])[0] == [("a", "1"), ("b", "1")]


# Separators -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "fix"),
    [
        ("t.csv", "text;label\na\n", "the header has 2 columns with --delimiter=';'"),
        ("t.csv", "text|label\na\n", "the header has 2 columns with --delimiter='|'"),
        ("t.csv", "text\tlabel\na\n", "give it a name that ends in .tsv, and --header=names"),
        ("t.json", '[{"text": "a", "label": "x"}]', "a JSON array: write its rows one object a line"),
        ("t.json", '\n [\n{"text": "a"}]', "a JSON array: write its rows one object a line"),
        ("t.json", '{"text": "a"}\n{"text": "b"}\n', "has one object a line: name it .jsonl"),
    ],
)
def test_a_table_read_in_the_wrong_way_names_the_right_one(tmp_path, name, content, fix):
    path = write(tmp_path / name, content)
    with pytest.raises(ConfigError) as error:
        rows_of(path, needed=["text", "label"])
    assert "column 'text' is not in table" in str(error.value) and fix in str(error.value)


@pytest.mark.parametrize("content", ['[{"text": "a"}, {"text": "b"}]', '[\n{"text": "a"},\n{"text": "b"}\n]\n'])
def test_an_array_is_no_table_of_json_lines(tmp_path, content):
    with pytest.raises(DataError, match="t.jsonl:1: .*; write one JSON object a line, without a list around them"):
        rows_of(write(tmp_path / "t.jsonl", content), needed=["text"])


def test_the_separator_line_of_spreadsheets(tmp_path):
    path = write(tmp_path / "t.csv", 'sep=;\r\ntext;label\r\n"a;b";x\r\n')
    assert rows_of(path, delimiter=";") == ([("a;b", "x")], {})
    assert rows_of(path) == ([("a;b", "x")], {}), "the line is as good as a delimiter"
    with pytest.raises(DataError, match="says that ';' separates its cells.*--delimiter=';'"):
        rows_of(path, delimiter=",")
    assert rows_of(write(tmp_path / "u.csv", '"sep=,"\ntext,label\na,x\n')) == ([("a", "x")], {})


# Ends and encodings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl", "q.csv"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n\r\n\n", "\r"])
def test_empty_lines_at_the_end_are_no_rows(tmp_path, name, end):
    content = {
        "t.tsv": "a\tx\n\nb\ty", "t.csv": "text,label\na,x\n\nb,y", "q.csv": 'text,label\n"a",x\n\n"b",y',
        "t.jsonl": '{"text": "a", "label": "x"}\n\n{"text": "b", "label": "y"}',
    }[name]  # fmt: skip
    path = write(tmp_path / name, content + end)
    schema, header = (None, "names") if name.endswith("csv") else (PAIR, "none")
    assert rows_of(path, schema, header=header) == ([("a", "x"), ("b", "y")], {"empty line": 1})


def test_blocks_keep_their_size_around_empty_lines(tmp_path):
    path = write(tmp_path / "t.tsv", "a\tx\n" + "\n" * 5 + "b\ty\n" + "\n" * 5)
    table = open_table(str(path), schema=PAIR, bad_rows=BadRows("skip"))
    for size in (1, 2, 3, 100):
        chunks = list(table.chunks(size))
        assert [int(chunk.lines[0]) for chunk in chunks if len(chunk)][-1] in (1, 7)
        assert (table.count.read, table.count.accepted) == (7, 2) and table.row_count() == 7


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl"])
def test_other_encodings_are_named_with_the_way_to_convert(tmp_path, encoding, name):
    path = write(tmp_path / name, "text,label\na,x\nb,y\n".encode(encoding))
    with pytest.raises(DataError, match=r"looks like UTF-16[LB]E; accepted: UTF-8; .* iconv -f UTF-\d\d\w* -t UTF-8"):
        rows_of(path, None if name == "t.csv" else PAIR)


def test_latin_1_is_told_with_the_way_to_convert(tmp_path):
    for name, content in (("t.tsv", "caf\xe9\tx\n"), ("t.csv", 'text,label\n"caf\xe9",x\n')):
        path = write(tmp_path / name, content.encode("latin-1"))
        with pytest.raises(DataError, match="invalid UTF-8: .*iconv -f LATIN1 -t UTF-8"):
            rows_of(path, None if name == "t.csv" else PAIR, policy="fail")
    with pytest.raises(DataError, match="iconv -f LATIN1 -t UTF-8"):
        rows_of(write(tmp_path / "u.csv", "t\xe9xt,label\na,x\n".encode("latin-1")))


# Quotes -----------------------------------------------------------------------------------------------------


def quoted_table(path, lost):
    """A table whose second row opens a quote that the end of the file closes, `lost` lines in all."""
    lines = ["text,label", "fine,x", '"never closed,x', *[f"row {i},y" for i in range(lost - 1)]]
    return write(path, "\n".join(lines) + "\n")


def test_lines_that_a_quote_takes_are_counted_as_lines(tmp_path):
    path = quoted_table(tmp_path / "t.csv", MOST_QUOTED_LINES)
    rows, reasons = rows_of(path)
    assert rows == [("fine", "x")] and reasons == {"bad quoting": MOST_QUOTED_LINES}
    # Closed by accident, with another number of cells than the table has.
    path = write(tmp_path / "u.csv", 'text,label\n"open,x\nb,y\nc" d,e,z\nf,y\n"g, ""h""",x\n')
    assert rows_of(path) == ([("f", "y"), ('g, "h"', "x")], {"bad quoting": 3})
    with pytest.raises(DataError, match="u.csv:2: bad quoting: .*opened in line 2 and takes 3 lines"):
        rows_of(path, policy="fail")


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_quote_that_takes_more_lines_than_stated_stops_the_job(tmp_path, policy):
    path = quoted_table(tmp_path / "t.csv", MOST_QUOTED_LINES + 1)
    with pytest.raises(DataError, match=r"t.csv:3: bad quoting: a quote .* takes 101 lines, more than the 100"):
        rows_of(path, policy=policy)
    # A second quote that closes it makes one valid row of what are a hundred.
    lines = [f"row {i},y" for i in range(MOST_QUOTED_LINES)]
    path = write(tmp_path / "u.csv", "\n".join(["text,label", '"open,x', *lines, 'closed",y']) + "\n")
    with pytest.raises(DataError, match="u.csv:2: bad quoting: .* takes 102 lines"):
        rows_of(path, policy=policy)
    text = DataConfig.model_fields["bad_rows"].description
    assert f"more than {MOST_QUOTED_LINES} lines" in text


def test_a_quote_that_takes_a_few_rows_without_a_trace_is_told_once(tmp_path, capsys):
    path = write(tmp_path / "t.csv", 'text,label\n"open,x\nb,y\nc,y\nclosed",y\n"two\nlines",x\n')
    for _ in range(2):
        assert rows_of(path)[0] == [("open,x\nb,y\nc,y\nclosed", "y"), ("two\nlines", "x")]
    assert (
        capsys.readouterr().err.count("t.csv:2: a cell in quotes holds 4 lines like rows; is a quote not closed?") == 1
    )


def test_long_texts_in_quotes_are_rows(tmp_path):
    text = "\n".join(f"line {i} of a document" for i in range(3 * MOST_QUOTED_LINES))
    path = write(tmp_path / "t.csv", f'text,label\n"{text}",x\n')
    assert rows_of(path) == ([(text, "x")], {})


# Text columns -----------------------------------------------------------------------------------------------


def test_numbers_and_bytes_are_read_as_their_text(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    for values, expected in (
        ([1, 2**40], ["1", "1099511627776"]),
        ([1.5, 2.0], ["1.5", "2"]),
        (["é".encode(), b"b"], ["é", "b"]),
        ([True, False], ["true", "false"]),
    ):
        pq.write_table(pa.table({"text": values}), path)
        assert rows_of(path, texts={"text": "none"}) == ([(value,) for value in expected], {})
    pq.write_table(pa.table({"text": [b"\xff", b"a"]}), path)
    assert rows_of(path, texts={"text": "none"}) == ([("a",)], {"invalid UTF-8": 1})
    pq.write_table(pa.table({"text": [float("nan"), 1.0]}), path)
    assert rows_of(path, texts={"text": "none"}) == ([("1",)], {"missing value": 1})
    # The text of a declared number is what the cell says.
    path = write(tmp_path / "t.tsv", "007\tx\n1.50\ty\n")
    schema = parse_schema("text:int:1,label:str:1")
    assert rows_of(path, schema, texts={"text": "none"}) == ([("007", "x"), ("1.50", "y")], {})


def test_numbers_of_tfrecords_are_read_as_their_text(tmp_path):
    import tensorflow as tf

    path = tmp_path / "t.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for value in (7, -1):
            feature = {"text": tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    for schema in (None, parse_schema("text:int:1")):
        assert rows_of(path, schema, texts={"text": "none"}) == ([("7",), ("-1",)], {})


def test_features_of_tfrecords_that_nobody_reads_may_be_absent(tmp_path):
    import tensorflow as tf

    path = tmp_path / "t.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for names in (("text", "more"), ("text",)):
            feature = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"a"])) for name in names}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    assert rows_of(path, needed=["text"]) == ([("a",), ("a",)], {})
    assert rows_of(path) == ([("a", "a")], {"missing value": 1})


@pytest.mark.parametrize("declared", ["text:str:*", "text:str:3", "text:int:*", "text:base64:1"])
def test_lists_are_no_text(tmp_path, declared):
    path = write(tmp_path / "t.tsv", "a,b,c\n")
    with pytest.raises(ConfigError, match="column 'text' holds (lists|vectors), text is needed; .* text:str:1"):
        rows_of(path, parse_schema(declared), texts={"text": "none"})
    path = write(tmp_path / "t.jsonl", '{"text": ["a"]}\n')
    with pytest.raises(ConfigError, match="column 'text' holds lists"):
        rows_of(path, texts={"text": "none"})


def test_lists_of_words_and_lists_as_json(tmp_path):
    lines = [
        {"text": ["a", 1, "b"]},
        {"text": "as it is, with commas"},
        {"text": ["a b"]},
        {"text": [""]},
        {"text": {}},
    ]
    path = write(tmp_path / "t.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    expected = [("a 1 b",), ("as it is, with commas",)]
    assert rows_of(path, texts={"text": "words"}) == (expected, {"wrong type": 3})
    assert rows_of(path, parse_schema("text:str:1"), texts={"text": "words"}) == (expected, {"wrong type": 3})
    assert rows_of(write(tmp_path / "t.tsv", "a,b\n"), parse_schema("text:str:*"), texts={"text": "words"})[0] == [
        ("a b",)
    ]
    path = write(tmp_path / "u.jsonl", '{"text": ["é", 1, {"start": 2}]}\n')
    assert rows_of(path, texts={"text": "json"}) == ([('["é", 1, {"start": 2}]',)], {})


CELLS = [
    None, True, 1, -(2**70), 10**400, 1.5, float("nan"), float("inf"), "", "text", "a\0b", "\ud800", b"bytes", b"\xff",
    [], ["a", "b"], [1, None], [[1], "a"], [b"a"], (1, 2), {}, {"a": 1}, {"a": {1, 2}}, {1, 2}, Decimal("1.5"),
    Decimal("NaN"), datetime.date(2024, 2, 29), datetime.timedelta(1), np.float32(1.5), np.int8(1), np.bool_(True),
    np.datetime64("2024-02-29"), np.array([1, 2]), np.array(["a"]), np.array(1.5), object(),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["int", "float", "str", "base64", "image"])
@pytest.mark.parametrize("length", [1, 2, None])
@pytest.mark.parametrize("lists", ["none", "words", "json"])
def test_a_cell_of_any_type_is_a_value_or_a_reason(kind, length, lists):
    column = Column("c", kind, length, lists)
    if lists != "none":
        column = Column("c", "str", length, lists)
    values, problems = convert_values(column, CELLS)
    assert len(values) == len(CELLS) and all(reason.strip() for reason in problems.values())
    if lists != "none" or (kind == "str" and length == 1):
        assert all(isinstance(value, str) for i, value in enumerate(values) if i not in problems)


# Numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("1e39", None), ("-1e39", None), (1e39, None), (10**400, None), ("3.4e38", 3.4e38), ("1_000", None),
        ("\u0661\u0662", None), ("nan", None), ("inf", None), (float("nan"), None), ("1,5", None), ("0x10", None),
        (" 2.5 ", 2.5), (2, 2.0), (True, None), (None, None), ([1], None),
        (Decimal("1.5"), 1.5), (np.float32(1.5), 1.5),
    ],
)  # fmt: skip
def test_numbers_follow_one_rule_whatever_the_type_of_the_cell(tmp_path, cell, expected):
    try:
        found = read_number(cell)
    except ValueError:
        found = None
    assert found == expected
    if isinstance(cell, str):
        path = write(tmp_path / "t.tsv", f"{cell}\n")
        assert rows_of(path, parse_schema("n:float:1"))[0] == ([] if expected is None else [(expected,)])


def test_integers_follow_the_rule_of_their_columns():
    assert read_integer(" -12 ") == -12
    for cell in ("1_000", "\u0661", "1.0", 1.0, True, None, str(2**63)):
        with pytest.raises(ValueError, match="not an integer|out of range"):
            read_integer(cell)
