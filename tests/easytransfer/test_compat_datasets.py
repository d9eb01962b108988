"""Readers and writers under the original's names."""

import numpy as np
import pytest

from easytransfer.compat import datasets
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.encoded import Ragged
from easytransfer.data.writers import open_writer
from easytransfer.errors import ConfigError, DataError

SCHEMA = "id:int:1,text:str:1,vec:float:2,ids:int:*"
ROWS = [{"id": i, "text": f"t{i}", "vec": [i, 0.5], "ids": list(range(i % 3))} for i in range(10)]


def table(folder, name):
    path = str(folder / name)
    with open_writer(path, ["id", "text", "vec", "ids"]) as writer:
        writer.write({key: [row[key] for row in ROWS] for key in ROWS[0]})
    return path


READERS = {
    "CSVReader": "t.tsv",
    "JsonlReader": "t.jsonl",
    "ParquetReader": "t.parquet",
    "TFRecordReader": "t.tfrecord",
    "MemoryReader": None,
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_gives_the_same_batches(tmp_path, name):
    source = ROWS if READERS[name] is None else table(tmp_path, READERS[name])
    reader = getattr(datasets, name)(source, SCHEMA, batch_size=4, prefetch_buffer_size=2)
    assert (len(reader), reader.batch_size, reader.is_training) == (10, 4, False)
    assert [len(chunk) for chunk in reader.chunks(size=7)] == [7, 3]
    batches = list(reader.batches())
    assert [batch["id"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    first = batches[0]
    assert first["id"].dtype == np.int64 and first["vec"].dtype == np.float32
    assert first["vec"].tolist() == [[0, 0.5], [1, 0.5], [2, 0.5], [3, 0.5]]
    assert first["text"].tolist() == ["t0", "t1", "t2", "t3"]
    assert isinstance(first["ids"], Ragged)
    assert [first["ids"][i].tolist() for i in range(4)] == [[], [0], [0, 1], []]


def test_dataset_is_plain_tf_data_with_a_new_order_per_pass(tmp_path):
    import tensorflow as tf

    path = table(tmp_path, "t.tsv")
    plain = list(datasets.CSVReader(path, SCHEMA, batch_size=4).dataset().unbatch().batch(10))
    assert plain[0]["text"].numpy().tolist() == [row["text"].encode() for row in ROWS]
    assert plain[0]["ids"].to_list() == [row["ids"] for row in ROWS]
    assert plain[0]["vec"].shape == (10, 2)

    def passes(seed):
        dataset = datasets.CSVReader(path, SCHEMA, is_training=True, batch_size=4, seed=seed).dataset()
        assert dataset.element_spec["id"] == tf.TensorSpec([None], tf.int64)
        return [np.concatenate([batch["id"].numpy() for batch in dataset]).tolist() for _ in range(3)]

    orders = passes(1)
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert passes(1) == orders != passes(2)


@pytest.mark.parametrize("buffer", [1, 3, 5, None])
def test_shuffling_shows_every_row_once(tmp_path, buffer):
    reader = datasets.CSVReader(
        table(tmp_path, "t.tsv"), SCHEMA, is_training=True, batch_size=3, shuffle_buffer_size=buffer
    )
    for epoch in range(3):
        batches = list(reader.batches(epoch))
        assert [len(batch["id"]) for batch in batches] == [3, 3, 3, 1]
        assert sorted(np.concatenate([batch["id"] for batch in batches])) == list(range(10))
        for batch in batches:  # columns stay together
            assert batch["text"].tolist() == [f"t{i}" for i in batch["id"]]


def test_slices_are_disjoint_and_complete(tmp_path):
    path = table(tmp_path, "t.tsv")
    readers = [datasets.CSVReader(path, SCHEMA, slice_id=i, slice_count=3) for i in range(3)]
    assert [len(reader) for reader in readers] == [4, 3, 3]
    ids = [i for reader in readers for batch in reader.batches() for i in batch["id"]]
    assert sorted(ids) == list(range(10)) and len(ids) == 10


def test_bundles_read_file_lists(tmp_path):
    for name, kind in (("t.tsv", datasets.BundleCSVReader), ("t.tfrecord", datasets.BundleTFRecordReader)):
        (tmp_path / "files").write_text(f"20\n{table(tmp_path, name)}\n{name}\n")
        reader = kind(str(tmp_path / "files"), SCHEMA, batch_size=100)
        assert len(reader) == 20
        assert next(reader.batches())["id"].tolist() == [*range(10), *range(10)]
    hosts = "a:1,b:1,c:1,d:1"
    reader = datasets.BundleTFRecordReader(str(tmp_path / "files"), SCHEMA, worker_hosts=hosts, task_index=3)
    assert len(reader) == 5 and next(reader.batches())["id"].tolist() == [3, 7, 1, 5, 9]


def test_memory_reader_guesses_columns_and_reports_bad_rows():
    rows = [
        {"a": 1, "b": 0.5, "c": "x", "d": [1]},
        {"a": "2", "b": 1, "c": 3, "d": []},
        {"a": "?", "b": 1, "c": "", "d": []},
    ]
    bad_rows = BadRows("skip")
    reader = datasets.MemoryReader(rows, bad_rows=bad_rows)
    assert list(map(str, reader.columns)) == ["a:int:1", "b:float:1", "c:str:1", "d:int:*"]
    (batch,) = reader.batches()
    assert batch["a"].tolist() == [1, 2] and batch["c"].tolist() == ["x", "3"]
    assert bad_rows.reasons == {"not an integer": 1} and len(reader) == 3
    with pytest.raises(DataError, match="got no row"):
        datasets.MemoryReader([])


def test_writers_take_batches_of_tensors(tmp_path):
    import tensorflow as tf

    batch = {"id": tf.constant([1, 2]), "text": tf.constant(["a", "é"]), "unused": [0, 0]}
    for kind, name, reader in (
        (datasets.CSVWriter, "out.csv", datasets.CSVReader),
        (datasets.TFRecordWriter, "out.tfrecord", datasets.TFRecordReader),
    ):
        path = str(tmp_path / name)
        writer = kind(path, "text, id")
        writer.process(batch)
        writer.process(batch)
        writer.close()
        (found,) = reader(path, "text:str:1,id:int:1").batches()
        assert found["text"].tolist() == ["a", "é"] * 2 and found["id"].tolist() == [1, 2, 1, 2]
        with pytest.raises(ConfigError, match="exists"):
            kind(path, "id")
    assert (tmp_path / "out.csv").read_text() == "a\t1\né\t2\n" * 2


def test_wrong_settings_are_named(tmp_path):
    path = table(tmp_path, "t.tsv")
    with pytest.raises(ConfigError, match="unknown reader setting 'slice_cuont'; did you mean slice_count"):
        datasets.CSVReader(path, SCHEMA, slice_cuont=2)
    with pytest.raises(ConfigError, match="out of range; got 'batch_size=4, slice_id=2, slice_count=2'"):
        datasets.CSVReader(path, SCHEMA, batch_size=4, slice_id=2, slice_count=2)
    with pytest.raises(ConfigError, match="unknown writer setting"):
        datasets.CSVWriter(str(tmp_path / "x"), "a", overwite=True)
    for kind in (datasets.OdpsTableReader, datasets.OdpsTableWriter):
        with pytest.raises(ConfigError, match="odps tables are not supported; export the table"):
            kind("odps://p/tables/t", slice_id=0)


def test_the_readers_do_not_import_tensorflow(repository):
    import subprocess
    import sys

    code = "import easytransfer.datasets, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository).returncode == 0
