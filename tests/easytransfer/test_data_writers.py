"""What writers write, readers read."""

import csv
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easytransfer.config.job import DataConfig
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.data.writers import check_output, open_writer
from easytransfer.errors import ConfigError, ResourceError

BATCH = {
    "id": np.arange(3),
    "text": ["plain", 'with "quotes", comma', "é 好 🙂"],
    "score": np.array([0.1, 1 / 3, -3.4e38], np.float32),
    "vector": np.array([[1.5, 2], [3, 4], [5, 1e-10]], np.float32),
    "ids": [[1, 2], [3], []],
}
SCHEMA = parse_schema("id:int:1,text:str:1,score:float:1,vector:float:2,ids:int:*")


def read_back(path, schema=SCHEMA, **data):
    table = open_table(str(path), schema=schema, data=DataConfig(**data))
    return {name: [v for chunk in table.chunks() for v in chunk.columns[name]] for name in schema.names}


@pytest.mark.parametrize(
    "name",
    [
        "t.tsv",
        "t.csv",
        "t.jsonl",
        "t.parquet",
        "t.tfrecord",
        "t.tsv.gz",
        "t.csv.gz",
        "t.jsonl.gz",
        "t.tfrecord.gz",
        "sub/t",
    ],
)
def test_round_trip(tmp_path, name):
    path = tmp_path / name
    with open_writer(path, SCHEMA.names) as writer:
        writer.write(BATCH)
        writer.write({key: value[:0] for key, value in BATCH.items()})
        writer.write({key: value[1:] for key, value in BATCH.items()} | {"not asked for": [1, 2]})
        assert not path.exists()
    assert writer.rows == 5 and writer.replaced == 0
    assert [entry for entry in os.listdir(path.parent) if entry.startswith(".")] == []
    found = read_back(path, header="names" if ".csv" in name else "none")
    order = [0, 1, 2, 1, 2]
    assert found["id"] == order
    assert found["text"] == [BATCH["text"][i] for i in order]
    np.testing.assert_array_equal(np.array(found["score"], np.float32), BATCH["score"][order])
    np.testing.assert_array_equal(np.array(found["vector"], np.float32), BATCH["vector"][order])
    assert [list(ids) for ids in found["ids"]] == [BATCH["ids"][i] for i in order]


def test_text_of_cells(tmp_path):
    batch = {
        "a": [None, True, 0.1, np.float32(0.1), b"bytes"],
        "b": np.arange(20, dtype=np.float32).reshape(5, 2, 2) / 8,
        "c": [[1, 2], ["x", "y"], [[1, 2], [3, 4]], np.array([0.5]), ()],
        "d": np.array(["u", "v", "w", "x", "y"]),
    }
    with open_writer(tmp_path / "t.tsv", list(batch)) as writer:
        writer.write(batch)
    assert (tmp_path / "t.tsv").read_text().splitlines() == [
        "\t0.0,0.125;0.25,0.375\t1,2\tu",
        "true\t0.5,0.625;0.75,0.875\tx,y\tv",
        "0.1\t1.0,1.125;1.25,1.375\t1,2;3,4\tw",
        "0.1\t1.5,1.625;1.75,1.875\t0.5\tx",
        "bytes\t2.0,2.125;2.25,2.375\t\ty",
    ]
    with open_writer(tmp_path / "f.tsv", ["v"], float_format="%.2f") as writer:
        writer.write({"v": np.array([[0.125, 2]])})
    assert (tmp_path / "f.tsv").read_text() == "0.12,2.00\n"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=5))
def test_escaped_text_survives_tsv(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "escaped.tsv"
    with open_writer(path, ["text", "n"], escape=True, overwrite=True) as writer:
        writer.write({"text": texts, "n": [1] * len(texts)})
    assert read_back(path, parse_schema("text:str:1,n:int:1"), escape=True)["text"] == texts
    assert writer.replaced == 0


def test_unescaped_text_loses_tabs_and_says_so(tmp_path):
    with open_writer(tmp_path / "t.tsv", ["a", "b"]) as writer:
        writer.write({"a": ["x\ty", "p\r\nq", "ok"], "b": ["1", "2\0", "3"]})
    assert (tmp_path / "t.tsv").read_text() == "x y\t1\np q\t2 \nok\t3\n" and writer.replaced == 3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_float32_survives_text(tmp_path_factory, numbers):
    path = tmp_path_factory.getbasetemp() / "floats.tsv"
    values = np.array(numbers, np.float32)
    with open_writer(path, ["x"], overwrite=True) as writer:
        writer.write({"x": values})
    read = [np.float32(line) for line in path.read_text().split()]
    np.testing.assert_array_equal(np.array(read), values)


def test_csv_has_a_header_and_jsonl_has_numbers(tmp_path):
    for name in ("t.csv", "t.jsonl"):
        with open_writer(tmp_path / name, ["text", "score"]) as writer:
            writer.write({"text": ['a,"b"\nc', "d"], "score": np.array([0.1, np.nan], np.float32)})
    with open(tmp_path / "t.csv", newline="") as stream:
        assert list(csv.reader(stream)) == [["text", "score"], ['a,"b"\nc', "0.1"], ["d", "nan"]]
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").open()]
    assert rows == [{"text": 'a,"b"\nc', "score": 0.1}, {"text": "d", "score": None}]


def test_parquet_keeps_float32(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    with open_writer(tmp_path / "t.parquet", ["matrix", "x"]) as writer:
        writer.write({"matrix": np.arange(12, dtype=np.float32).reshape(2, 3, 2), "x": np.zeros(2, np.float32)})
    table = parquet.read_table(tmp_path / "t.parquet")
    assert str(table.schema.field("x").type) == "float"
    assert str(table.schema.field("matrix").type.value_type.value_type) == "float"
    assert table["matrix"].to_pylist() == np.arange(12.0).reshape(2, 3, 2).tolist()


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl", "t.parquet", "t.tfrecord", "t.tsv.gz"])
def test_a_failed_job_leaves_nothing_and_an_empty_one_a_table(tmp_path, name):
    with pytest.raises(RuntimeError), open_writer(tmp_path / name, ["a"]) as writer:
        writer.write({"a": ["x"]})
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with open_writer(tmp_path / name, ["a"]):
        pass
    assert os.listdir(tmp_path) == [name]
    assert read_back(tmp_path / name, parse_schema("a:str:1"), header="names" if ".csv" in name else "none") == {
        "a": []
    }


def test_equal_tables_give_equal_gz_files(tmp_path):
    contents = []
    for name in ("a.tsv.gz", "b.tsv.gz"):
        with open_writer(tmp_path / name, ["a"]) as writer:
            writer.write({"a": ["x"] * 100})
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_existing_output_is_refused_and_kept(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("mine")
    with pytest.raises(
        ConfigError, match="exists; choose another name or allow replacing it with --overwrite"
    ) as error:
        open_writer(path, ["a"])
    assert error.value.exit_code == 2
    with pytest.raises(RuntimeError), open_writer(path, ["a"], overwrite=True):
        raise RuntimeError
    assert path.read_text() == "mine"
    with open_writer(path, ["a"], overwrite=True) as writer:
        writer.write({"a": ["yours"]})
    assert path.read_text() == "yours\n"
    with pytest.raises(ConfigError, match="is a directory"):
        open_writer(tmp_path, ["a"])


def test_unwritable_folders_are_found_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot create folder") as error:
        check_output(tmp_path / "file" / "t.tsv")
    assert error.value.exit_code == 5
    monkeypatch.setattr(os, "access", lambda *_: False)  # a read-only folder does not stop root
    with pytest.raises(ResourceError, match="is not writable"):
        open_writer(tmp_path / "t.tsv", ["a"])


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl.gz"])
def test_a_full_disk_is_a_resource_error(tmp_path, monkeypatch, name):
    writer = open_writer(tmp_path / name, ["a"])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer._stream, "write", full, raising=False)
    if name == "t.csv":
        monkeypatch.setattr(writer, "_writer", type("Full", (), {"writerows": full})())
    with pytest.raises(ResourceError, match="No space left on device; free some space"):
        writer.write({"a": ["x"]})
    assert os.listdir(tmp_path) == []


def test_wrong_use_is_reported(tmp_path):
    with pytest.raises(ConfigError, match="each once"):
        open_writer(tmp_path / "t.tsv", ["a", "a"])
    with pytest.raises(ConfigError, match="unknown table form"):
        open_writer(tmp_path / "t.tsv", ["a"], form="xls")
    writer = open_writer(tmp_path / "t.tsv", ["label"])
    with pytest.raises(ConfigError, match="'label' is not produced; accepted: labels; did you mean labels"):
        writer.write({"labels": [1]})
    with pytest.raises(ValueError, match="differ in number"):
        open_writer(tmp_path / "u.tsv", ["a", "b"]).write({"a": [1], "b": []})
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="is closed"):
        writer.write({"label": [1]})
