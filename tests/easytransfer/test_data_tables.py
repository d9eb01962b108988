"""Reading every table form, good and bad."""

import base64
import csv
import gzip
import io
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easytransfer.config.job import DataConfig
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.schema import Column, parse_schema
from easytransfer.data.table import open_table
from easytransfer.errors import ConfigError, DataError

PAIR = parse_schema("text:str:1,label:int:1")


def rows_of(spec, schema=None, bad_rows=None, size=4096, form=None, **data):
    """All accepted rows as tuples, the table, and how often each reason occurred."""
    bad_rows = bad_rows or BadRows("skip")
    table = open_table(str(spec), schema=schema, data=DataConfig(**data), bad_rows=bad_rows, form=form)
    rows = []
    for chunk in table.chunks(size=size):
        rows.extend(zip(*(chunk.columns[name] for name in table.schema.names), strict=True))
    assert table.count.read == table.count.accepted + table.count.rejected == table.row_count()
    assert table.count.accepted == len(rows)
    return rows, table, dict(bad_rows.reasons)


def write(path, content):
    data = content if isinstance(content, bytes) else content.encode()
    (gzip.open if str(path).endswith(".gz") else open)(path, "wb").write(data)
    return path


# Text tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.txt", "table", "t.tsv.gz", "t.csv.gz"])
def test_headerless_tabs_whatever_the_suffix_when_a_schema_is_given(tmp_path, name):
    path = write(tmp_path / name, 'say "hi", you\t1\n\tx\n3\t-7')
    rows, table, reasons = rows_of(path, PAIR)
    assert rows == [('say "hi", you', 1), ("3", -7)]
    assert reasons == {"not an integer": 1}


def test_bom_crlf_and_missing_last_line_end(tmp_path):
    path = write(tmp_path / "t.tsv", b"\xef\xbb\xbfa\t1\r\nb\t2\r\nc\t3\r")
    assert rows_of(path, PAIR)[0] == [("a", 1), ("b", 2), ("c", 3)]


def test_line_breaks_of_unicode_do_not_end_a_row(tmp_path):
    path = write(tmp_path / "t.tsv", "a\u2028b\x0bc\x85\t1\n")
    assert rows_of(path, PAIR)[0] == [("a\u2028b\x0bc\x85", 1)]


def test_empty_text_is_allowed_and_counted(tmp_path):
    path = write(tmp_path / "t.tsv", "\t1\na\t2\n\t3\n")
    rows, table, _ = rows_of(path, PAIR)
    assert rows == [("", 1), ("a", 2), ("", 3)] and table.empty_text == {"text": 2}


def test_an_empty_line_is_an_empty_text_where_there_is_one_column(tmp_path):
    path = write(tmp_path / "t.tsv", "a\n\nb\n")
    rows, table, _ = rows_of(path, parse_schema("t:str:1"))
    assert rows == [("a",), ("",), ("b",)] and table.empty_text == {"t": 1}


def test_files_without_content_have_no_rows(tmp_path):
    for content in (b"", b"\xef\xbb\xbf"):
        assert rows_of(write(tmp_path / "t.tsv", content), PAIR)[0] == []


def test_utf16_is_named(tmp_path, capfd):
    path = write(tmp_path / "t.tsv", "a\t1\n".encode("utf-16"))
    assert rows_of(path, PAIR)[0] == [("a", 1)]
    assert capfd.readouterr().err == f"{path}: read as UTF-16, which the mark at its beginning says\n"
    path = write(tmp_path / "u.tsv", "a\t1\n".encode("utf-16-le"))
    with pytest.raises(DataError, match="looks like UTF-16LE; accepted: UTF-8; .*convert it to UTF-8: iconv -f UTF-16"):
        rows_of(path, PAIR)


@pytest.mark.parametrize(
    ("column", "cell", "value"),
    [
        ("int:1", "-9223372036854775808", -(2**63)),
        ("int:1", " +7 ", 7),
        ("int:1", "9223372036854775808", "number out of range"),
        ("int:1", "9" * 5000, "number out of range"),
        ("int:1", "000000000000000000000000001", 1),
        ("int:1", "1_000", "not an integer"),
        ("int:1", "٣", "not an integer"),
        ("int:1", "1.0", "not an integer"),
        ("int:1", "1,2", "not an integer"),
        ("int:1", " ", "empty number"),
        ("float:1", "1e-3", 1e-3),
        ("float:1", ".5", 0.5),
        ("float:1", "1e39", "number out of range"),
        ("float:1", "3.4028235677973366e38", "number out of range"),  # half-way to the next power of two
        ("float:1", "-3.4028235677973362e38", -3.4028235677973362e38),
        ("float:1", "nan", "number out of range"),
        ("float:1", "-inf", "number out of range"),
        ("float:1", "1_0.0", "not a number"),
        ("float:1", "0x10", "not a number"),
        ("float:1", "", "empty number"),
        ("int:3", "1,2,3", [1, 2, 3]),
        ("int:3", "1,2", "wrong list length"),
        ("int:3", "", "empty number"),
        ("int:3", "1,,3", "empty number"),
        ("int:3", "1,b,3", "not an integer"),
        ("float:2", "1,-2.5", [1.0, -2.5]),
        ("str:2", "a,b", ["a", "b"]),
        ("str:2", "a", "wrong list length"),
        ("int:*", "", []),
        ("int:*", "4,5,6,7", [4, 5, 6, 7]),
        ("int:*", "4,", "empty number"),
        ("str:*", "", []),
        ("base64:2", base64.b64encode(np.array([1.5, -2], "<f4").tobytes()).decode(), [1.5, -2.0]),
        ("base64:2", base64.b64encode(np.array([1.5], "<f4").tobytes()).decode(), "wrong list length"),
        ("base64:1", base64.b64encode(b"abc").decode(), "bad base64"),
        ("base64:1", "AAA", "bad base64"),
        ("base64:1", base64.b64encode(np.array([np.inf], "<f4").tobytes()).decode(), "number out of range"),
    ],
)
def test_cells(tmp_path, column, cell, value):
    # Among good neighbours, which must survive, and alone.
    length = 1 if column.endswith("*") else int(column.split(":")[1])
    good = base64.b64encode(np.full(length, 5, "<f4")).decode() if "base64" in column else ",".join(["5"] * length)
    path = write(tmp_path / "t.tsv", f"x\t{good}\nx\t{cell}\nx\t{good}\n")
    rows, _, reasons = rows_of(path, parse_schema(f"k:str:1,v:{column}"))
    if isinstance(value, str):
        assert reasons == {value: 1} and len(rows) == 2
    else:
        assert reasons == {} and len(rows) == 3
        np.testing.assert_array_equal(rows[1][1], value)


def test_the_fast_and_the_careful_path_agree(tmp_path):
    text = "".join(f"row {i}\t{i}\t{i / 8},{-i}\t{','.join(map(str, range(i % 4)))}\n" for i in range(50))
    schema = parse_schema("t:str:1,i:int:1,v:float:2,r:int:*")
    fast, _, _ = rows_of(write(tmp_path / "a.tsv", text), schema)
    spoiled = text.encode() + b"\xff\t1\t1,2\t3\n" + b"t\t1_0\t1,b\t3\n"
    careful, _, reasons = rows_of(write(tmp_path / "b.tsv", spoiled), schema)
    assert fast == careful and reasons == {"invalid UTF-8": 1, "not an integer": 1}


def test_escape_decodes_only_when_asked(tmp_path):
    path = write(tmp_path / "t.tsv", "a\\tb\\nc\\\\td\\x\t1\n")
    assert rows_of(path, PAIR)[0] == [("a\\tb\\nc\\\\td\\x", 1)]
    assert rows_of(path, PAIR, escape=True)[0] == [("a\tb\nc\\td\\x", 1)]


def test_header_forms(tmp_path):
    path = write(tmp_path / "t.tsv", "label\textra\ttext\n1\tz\ta\n2\tz\tb\n")
    by_name, table, _ = rows_of(path, PAIR, header="names")
    assert by_name == [("a", 1), ("b", 2)]
    all_text, table, _ = rows_of(path, None, header="names")
    assert table.schema.names == ["label", "extra", "text"] and all_text[0] == ("1", "z", "a")
    skipped, table, _ = rows_of(path, parse_schema("l:int:1,e:str:1,t:str:1"), header="skip")
    assert skipped[1] == (2, "z", "b")
    assert [chunk.lines.tolist() for chunk in table.chunks(size=2)] == [[2], [3]]
    with pytest.raises(ConfigError, match="column 'label' is not in the header of .*; accepted: lbl, text"):
        rows_of(write(tmp_path / "u.tsv", "lbl\ttext\n"), PAIR, header="names")
    with pytest.raises(ConfigError, match="declare them with --inputSchema"):
        rows_of(path, None)


def test_header_must_be_the_same_in_all_files(tmp_path):
    write(tmp_path / "a.tsv", "text\tlabel\na\t1\n")
    write(tmp_path / "b.tsv", "text\tlabel\nb\t2\n")
    rows, table, _ = rows_of(tmp_path, PAIR, header="names")
    assert rows == [("a", 1), ("b", 2)]
    write(tmp_path / "c.tsv", "label\ttext\n3\tc\n")
    with pytest.raises(DataError, match="header of .*c.tsv differs"):
        rows_of(tmp_path, PAIR, header="names")


def test_other_delimiters(tmp_path):
    path = write(tmp_path / "t.txt", "a|1\nb|2\n")
    assert rows_of(path, PAIR, delimiter="|")[0] == [("a", 1), ("b", 2)]
    assert rows_of(write(tmp_path / "u.txt", "a\t1\n"), PAIR, delimiter="\\t")[0] == [("a", 1)]


def test_wrong_column_count_names_the_separator(tmp_path):
    path = write(tmp_path / "t.csv", "a,1\n")
    with pytest.raises(DataError, match="expected 2, got 1 .separator TAB."):
        rows_of(path, PAIR, bad_rows=BadRows("fail"))


# CSV --------------------------------------------------------------------------------------------------------


def test_csv_with_header_and_quotes(tmp_path):
    path = write(tmp_path / "t.csv", '\ufefftext,label\r\n"a, ""b""\nc",1\r\nd,2\r\n')
    rows, table, _ = rows_of(path, None)
    assert rows == [('a, "b"\nc', "1"), ("d", "2")]
    assert rows_of(path, PAIR, header="names")[0] == [('a, "b"\nc', 1), ("d", 2)]
    assert [chunk.lines.tolist() for chunk in table.chunks()] == [[2, 4]]


def test_csv_bad_rows(tmp_path):
    content = b'text,label\nok,1\nbad\xff,2\n"x"y,3\n\nnul\0,4\none\nok,5\n"open,6\n'
    rows, _, reasons = rows_of(write(tmp_path / "t.csv", content), PAIR, header="names")
    assert rows == [("ok", 1), ("ok", 5)]
    assert reasons == {
        "invalid UTF-8": 1, "bad quoting": 2, "empty line": 1, "NUL character": 1, "wrong column count": 1
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)] * 2),
        min_size=1,
        max_size=8,
    )
)
def test_csv_reads_what_the_csv_module_writes(tmp_path_factory, rows):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(["a", "b"])
    writer.writerows(rows)
    path = write(tmp_path_factory.getbasetemp() / "property.csv", stream.getvalue())
    assert rows_of(path, None, size=3)[0] == rows


# JSON lines -------------------------------------------------------------------------------------------------


def test_jsonl_matches_keys_by_name(tmp_path):
    lines = [{"label": 1, "text": "a", "x": 0}, {"text": 2, "label": "3"}]
    path = write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, lines)))
    assert rows_of(path, PAIR)[0] == [("a", 1), ("2", 3)]
    lists = write(tmp_path / "l.jsonl.gz", '{"v": [1, 2.5], "r": [1], "s": ["a,b"]}\n{"v": "1,2", "r": [], "s": []}\n')
    assert rows_of(lists, parse_schema("v:float:2,r:int:*,s:str:*"))[0] == [([1, 2.5], [1], ["a,b"]), ([1, 2], [], [])]


def test_jsonl_bad_rows(tmp_path):
    lines = [
        '{"text": "ok", "label": 1}', "{", "", "[1]", '{"text": "a"}', '{"text": null, "label": 1}',
        '{"text": true, "label": 1}', '{"text": "a", "label": 1.5}', '{"text": "a", "label": true}',
        '{"text": "a\\u0000", "label": 1}', '{"text": "a", "label": 18446744073709551616}',
        '{"text": ["a"], "label": 1}',
    ]  # fmt: skip
    rows, _, reasons = rows_of(write(tmp_path / "t.jsonl", "\n".join(lines) + "\n"), PAIR)
    assert rows == [("ok", 1), ("true", 1)]
    assert reasons == {
        "invalid JSON": 1, "empty line": 1, "wrong type": 2, "missing value": 2, "not an integer": 2,
        "NUL character": 1, "number out of range": 1,
    }  # fmt: skip
    rows, _, reasons = rows_of(write(tmp_path / "u.jsonl", b'{"text": "\xff", "label": 1}\n'), PAIR)
    assert reasons == {"invalid UTF-8": 1}


def test_jsonl_without_schema_takes_the_keys_of_the_first_row(tmp_path):
    path = write(
        tmp_path / "t.jsonl", '{"t": "a", "n": 1, "v": [1, 0.5], "i": [3]}\n{"t": "b", "n": 2, "v": [], "i": [4, 5]}\n'
    )
    rows, table, _ = rows_of(path)
    assert table.columns == [
        Column("t", "str"),
        Column("n", "str"),
        Column("v", "float", None),
        Column("i", "int", None),
    ]
    assert rows == [("a", "1", [1.0, 0.5], [3]), ("b", "2", [], [4, 5])]


# Binary forms -----------------------------------------------------------------------------------------------


def test_parquet(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"label": [1, None, 3], "text": ["a", "b", None], "ids": [[1, 2], [], [3]]})
    parquet.write_table(table, tmp_path / "t.parquet")
    rows, _, reasons = rows_of(tmp_path / "t.parquet", PAIR)
    assert rows == [("a", 1)] and reasons == {"missing value": 2}
    assert rows_of(tmp_path / "t.parquet")[1].columns == [
        Column("label", "int"),
        Column("text", "str"),
        Column("ids", "int", None),
    ]
    with pytest.raises(ConfigError, match="column 'txt' is not in the columns of .*did you mean text"):
        rows_of(tmp_path / "t.parquet", parse_schema("txt:str:1"))
    with pytest.raises(DataError, match="cannot read .* as Parquet"):
        rows_of(write(tmp_path / "u.parquet", "nonsense"))


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install ('pyarrow>=|'\.\[parquet\]')"):
        rows_of(write(tmp_path / "t.parquet", ""))


@pytest.mark.parametrize("name", ["t.tfrecord", "t.tfrecord.gz"])
def test_tfrecord(tmp_path, name):
    import tensorflow as tf

    def example(**columns):
        feature = {}
        for key, value in columns.items():
            if isinstance(value[0], bytes):
                feature[key] = tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
            elif isinstance(value[0], float):
                feature[key] = tf.train.Feature(float_list=tf.train.FloatList(value=value))
            else:
                feature[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=value))
        return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()

    good = [example(text=["é".encode()], label=[i], vec=[0.5, float(i)], ids=[1, 2]) for i in range(5)]
    bad = [
        example(text=[b"a"], vec=[1.0, 2.0], ids=[1]),
        example(text=[b"a"], label=[1, 2], vec=[1.0, 2.0], ids=[1]),
        example(text=[b"a"], label=[1], vec=[1.0], ids=[1]),
        example(text=[b"\xff"], label=[1], vec=[1.0, 2.0], ids=[1]),
    ]
    spoiled = [example(text=[b"a"], label=[1.0], vec=[1.0, 2.0], ids=[1]), b"\xff\xff\xff"]
    schema = parse_schema("text:str:1,label:int:1,vec:float:2,ids:int:*")
    path = str(tmp_path / name)
    for records, expected in (
        (good + bad, {"missing value": 1, "wrong type": 1, "wrong list length": 1, "invalid UTF-8": 1}),
        (good + bad + spoiled, {"missing value": 1, "wrong type": 3, "wrong list length": 1, "invalid UTF-8": 1}),
    ):
        with tf.io.TFRecordWriter(path, "GZIP" if name.endswith(".gz") else "") as writer:
            for record in records:
                writer.write(record)
        os.utime(path, ns=(0, len(records)))  # the counting cache goes by size and time
        rows, _, reasons = rows_of(path, schema)
        assert rows == [("é", i, [0.5, float(i)], [1, 2]) for i in range(5)] and reasons == expected
    assert rows_of(path)[1].columns[0] == Column("ids", "int", None)
    if not name.endswith(".gz"):
        write(path, open(path, "rb").read()[:-5])
        with pytest.raises(DataError, match="damaged behind record|cannot read"):
            list(open_table(path, schema=schema, bad_rows=BadRows("skip")).chunks())


# Files ------------------------------------------------------------------------------------------------------


def test_directories_globs_comma_lists_and_file_lists(tmp_path):
    for name in ("b.tsv", "a.tsv", ".hidden.tsv", "_SUCCESS"):
        write(tmp_path / name, f"{name}\t1\n")
    (tmp_path / "sub").mkdir()
    names = lambda spec: [row[0] for row in rows_of(spec, PAIR)[0]]  # noqa: E731
    assert names(tmp_path) == ["a.tsv", "b.tsv"]
    assert names(tmp_path / "*.tsv") == ["a.tsv", "b.tsv"]
    assert names(f"{tmp_path}/b.tsv,{tmp_path}/a.tsv") == ["b.tsv", "a.tsv"]
    write(tmp_path / "odd,[name].tsv", "odd\t1\n")
    assert names(tmp_path / "odd,[name].tsv") == ["odd"]
    files = write(tmp_path / "sub" / "files.list_csv", f"2\n../a.tsv\n{tmp_path}/b.tsv\n")
    assert names(files) == ["a.tsv", "b.tsv"]


def test_unusable_specs(tmp_path):
    write(tmp_path / "train.tsv", "a\t1\n")
    for spec, kind, message in (
        (tmp_path / "trian.tsv", DataError, "did you mean .*train.tsv"),
        (tmp_path / "no" / "t.tsv", DataError, "directory .*no does not exist"),
        (tmp_path / "*.csv", DataError, "no file matches"),
        ("odps://project/tables/t", ConfigError, "not supported.*export the table to TSV or TFRecord"),
        ("", ConfigError, "table name is empty"),
    ):
        with pytest.raises(kind, match=message):
            rows_of(spec, PAIR)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no table file"):
        rows_of(tmp_path / "empty", PAIR)
    write(tmp_path / "x.jsonl", "{}")
    with pytest.raises(ConfigError, match="mixes files of different forms"):
        rows_of(tmp_path, PAIR)
    cut = write(tmp_path / "cut.tsv.gz", "a\t1\n" * 1000)
    cut.write_bytes(cut.read_bytes()[:-10])
    with pytest.raises(DataError, match="cannot read .*cut.tsv.gz"):
        list(open_table(str(cut), schema=PAIR).chunks())


def test_needed_columns_are_checked_when_the_table_is_opened(tmp_path):
    path = write(tmp_path / "t.tsv", "a\t1\n")
    with pytest.raises(ConfigError, match="'txt' is not in the input schema; accepted: text, label; did you mean text"):
        open_table(str(path), schema=PAIR, needed=["txt"])


def test_row_count_is_remembered_until_the_file_changes(tmp_path, monkeypatch):
    path = write(tmp_path / "t.tsv", "a\t1\nb\t2")
    table = open_table(str(path), schema=PAIR)
    assert table.row_count() == 2
    with monkeypatch.context() as patch:
        patch.setattr("easytransfer.data.text_formats.count_lines", lambda file, **_: pytest.fail("counted again"))
        assert table.row_count() == 2
    write(path, "a\t1\nb\t2\nc\t3\n")
    assert table.row_count() == 3


# Real files -------------------------------------------------------------------------------------------------

ORIGINAL = {
    "ez_text_classify/train.csv": ("id:str:1,content:str:1,label:str:1,name:str:1,keywords:str:1", 10),
    "ez_text_classify/dev.multi_label.csv": ("a:str:1,b:str:1,c:str:1,d:str:1", 10),
    "ez_sequence_labeling/train.csv": ("content:str:1,tags:str:1", 10),
    "ez_bert_feat/test.online.csv": ("id:int:1,a:str:1,b:str:1,c:str:1,score:float:1", 200),
    "user_defined_test_data/test_train_eval_predict_train_features.csv": (
        "input_ids:int:8,input_mask:int:8,segment_ids:int:8,label_id:int:1",
        599,
    ),
}


@pytest.mark.parametrize("name", ORIGINAL)
def test_tables_of_the_original_are_read_as_they_are(shared_data, name):
    schema, count = ORIGINAL[name]
    path = shared_data / "easytransfer_ut" / name
    rows, _, reasons = rows_of(path, parse_schema(schema))
    assert len(rows) == count and reasons == {}
    first = path.read_text(encoding="utf-8").split("\n")[0].split("\t")
    assert [",".join(map(str, c)) if isinstance(c, list) else str(c) for c in rows[0]] == first
