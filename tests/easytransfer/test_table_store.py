"""Tables that do not fit into memory: on disk they are the same tables, written once and used by every process."""

import os
import threading

import numpy as np
import pytest

from easytransfer.data.batches import Batches
from easytransfer.data.disk_array import DiskArray
from easytransfer.data.encoded import EncodedTable, HostColumn, Ragged, device_arrays
from easytransfer.data.table_store import FACTS, OFFSETS, ROWS, VALUES, Elsewhere, TableStore
from easytransfer.errors import ConfigError, DataError

KEY = {"files": ["a"], "numbers": (1, 2)}


def parts(count=3, rows=40, seed=0):
    """Chunks with a ragged column, pictures, a label, and rows cut into windows."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        ids = [random.integers(1, 99, random.integers(0, 9)) for _ in range(rows)]
        columns = {
            "input_ids": Ragged.from_lists(ids),
            "image": random.integers(0, 256, (rows, 4, 5, 3)).astype(np.uint8),
            "label_id": random.integers(0, 3, rows).astype(np.int32),
        }
        row_of = np.repeat(np.arange(rows // 2), 2)
        yield EncodedTable(columns, masks={"input_mask": "input_ids"}, pad_values={"input_ids": 7}, row_of=row_of)


def stored(folder, limit, chunks=None):
    store = TableStore(folder, KEY, limit)
    for part in chunks or parts():
        store.add(part)
    return store.finish({"count": {"read": 120}})


def test_rows_of_a_disk_array_equal_those_of_the_array(tmp_path):
    values = np.random.default_rng(1).normal(size=(50, 3, 2)).astype(np.float32)
    values.tofile(tmp_path / "v.bin")
    disk = DiskArray(tmp_path / "v.bin", np.float32, values.shape)
    assert len(disk) == 50 and disk.ndim == 3 and disk.nbytes == values.nbytes
    keys = [3, -1, slice(4, 20, 3), np.array([5, 6, 7, 2, 2, 49, -50]), np.arange(50) % 7 == 0, np.zeros(0, np.int64)]
    for key in [*keys, np.arange(6).reshape(2, 3), (slice(2, 9), slice(1, None)), (4, 1)]:
        np.testing.assert_array_equal(disk[key], values[key])
    np.testing.assert_array_equal(np.asarray(disk), values)
    flat = DiskArray(tmp_path / "v.bin", np.float32, (300,))
    assert flat[7] == values.reshape(-1)[7] and flat[-1] == values[-1, -1, -1] and np.ndim(flat[7]) == 0
    with pytest.raises(IndexError, match="50 rows"):
        disk[np.array([50])]
    with pytest.raises(ValueError, match="were written"):
        DiskArray(tmp_path / "v.bin", np.float32, (51, 3, 2))


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path):
    np.zeros((10, 100), np.uint8).tofile(tmp_path / "v.bin")
    disk = DiskArray(tmp_path / "v.bin", np.uint8, (10, 100))
    with open(tmp_path / "v.bin", "r+b") as file:
        file.truncate(500)
    with pytest.raises(OSError, match="ends too early"):
        disk[7]


def test_a_table_on_disk_gives_the_batches_of_the_table_in_memory(tmp_path):
    memory, disk = stored(tmp_path / "a", 10**9), stored(tmp_path / "b", 100)
    assert isinstance(disk.columns["image"], DiskArray) and isinstance(disk.columns["input_ids"].values, DiskArray)
    assert isinstance(disk.columns["input_ids"].offsets, DiskArray)
    assert isinstance(disk.columns["label_id"], np.ndarray) and not (tmp_path / "a").exists()
    assert disk.row_count == memory.row_count == 60 and (disk.row_of == memory.row_of).all()
    for shuffle in (True, False):
        pairs = zip(*(Batches(t, 7, shuffle=shuffle, seed=3).epoch(0) for t in (memory, disk)), strict=True)
        for one, other in pairs:
            assert one.keys() == other.keys()
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])
                assert one[name].dtype == other[name].dtype
    taken = disk.take([5, 3, 100])
    np.testing.assert_array_equal(taken.columns["image"], memory.columns["image"][[5, 3, 100]])
    np.testing.assert_array_equal(
        taken.columns["input_ids"].values, memory.take([5, 3, 100]).columns["input_ids"].values
    )


def test_the_first_rows_of_a_table_on_disk(tmp_path):
    memory, disk = stored(tmp_path / "a", 10**9), stored(tmp_path / "b", 100)
    assert disk.head(60) is disk
    for table in (memory.head(7), disk.head(7)):
        assert table.row_count == 7 and len(table) == 14
        whole, part = memory.batch(range(14)), table.batch(range(14))
        for name in whole:
            np.testing.assert_array_equal(part[name], whole[name])
    head = disk.columns["image"].head(3)
    del disk
    np.testing.assert_array_equal(head[:], memory.columns["image"][:3])


# What a table may hold and JSON writes in its own way: half of a surrogate pair, a line end, nothing.
SHOWN = ["", "naïve 漢字 👍🏽", "\ud83d half", 'a "b"\n\0', None, 3, -0.5, True, [1, [2, "c"]], {"d": [None, {}]}]


def host_parts():
    """Chunks with values that stay on the host, beside ids."""
    for shift in range(3):
        values = SHOWN[shift:] + SHOWN[:shift]
        ids = Ragged.from_lists([[shift] * row for row in range(len(values))])
        yield EncodedTable({"input_ids": ids, "shown": HostColumn.of(values)}, {"input_mask": "input_ids"})


def test_values_of_the_host_are_the_same_in_memory_and_on_disk(tmp_path):
    expected = [value for shift in range(3) for value in SHOWN[shift:] + SHOWN[:shift]]
    tables = stored(tmp_path / "a", 10**9, host_parts()), stored(tmp_path / "b", 1, host_parts())
    assert isinstance(tables[1].columns["shown"].values, DiskArray) and not (tmp_path / "a").exists()
    rows = [29, 3, 4, 5, 0, 0, -1]
    for table in tables:
        column = table.columns["shown"]
        assert isinstance(column, HostColumn) and list(column) == expected
        assert column.objects(rows).tolist() == [expected[row] for row in rows]
        batch = table.batch(rows, size=9)
        assert batch["shown"].dtype == object and batch["shown"].tolist() == [expected[row] for row in [*rows, 29, 29]]
        assert device_arrays(batch).keys() == {"input_ids", "input_mask", "example_weight"}
        assert list(table.head(12).columns["shown"]) == expected[:12]
        assert list(table.take(rows).columns["shown"]) == [expected[row] for row in rows]
        assert column.objects([]).tolist() == [] and list(column.take([])) == []


def test_what_json_has_not_does_not_stay_on_the_host():
    assert list(HostColumn.of([(1, "a")])) == [[1, "a"]]
    for value, error in ((np.zeros(2), TypeError), (b"bytes", TypeError), (float("nan"), ValueError)):
        with pytest.raises(error, match="JSON"):
            HostColumn.of(["text", value])


def test_rows_are_taken_as_numpy_takes_them_one_by_one(tmp_path):
    random = np.random.default_rng(2)
    lists = [random.integers(0, 99, (length, 2)) for length in random.integers(0, 4, 50)]
    values = np.concatenate(lists).astype(np.int32)
    values.tofile(tmp_path / "v.bin")
    offsets = np.cumsum([0, *map(len, lists)])
    for column in (Ragged(values, offsets), Ragged(DiskArray(tmp_path / "v.bin", np.int32, values.shape), offsets)):
        for rows in (np.arange(50), np.arange(7, 30), random.permutation(50), [3, 3, 4, 4, 5], [-1, 0], [], [8]):
            found = column.take(rows)
            assert [row.tolist() for row in found] == [lists[row].tolist() for row in rows]
            assert found.values.dtype == np.int32 and found.values.shape[1:] == (2,)


def test_a_power_cut_leaves_a_whole_table_or_none(tmp_path, monkeypatch):
    """Content that is not on disk is lost with the power; what `table.json` speaks of must be there before it."""
    stored(tmp_path, 1)
    safe, plain = [], os.fsync

    def fsync(file):
        plain(file)
        path = os.readlink(f"/proc/self/fd/{file}")
        safe.append((os.path.relpath(path, tmp_path), sorted(os.listdir(tmp_path)), os.stat(file).st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    stored(tmp_path, 1, host_parts())
    assert FACTS not in safe[0][1] and safe[0][0] == ".", "the old table is gone before a column is written anew"
    order = [name for name, _, _ in safe]
    columns = [name for name in os.listdir(tmp_path) if name.endswith((VALUES, OFFSETS, ROWS))]
    facts = next(place for place, name in enumerate(order) if FACTS in name)
    assert len(columns) == 5 and set(columns) | {"."} <= set(order[1:facts])
    for name, _, size in safe[1:facts]:
        assert name == "." or size == (tmp_path / name).stat().st_size, f"{name} was written to after it was safe"


def test_an_earlier_reading_is_used_again_while_its_key_is_the_same(tmp_path):
    first = stored(tmp_path, 100)
    found = TableStore(tmp_path, KEY, 100).stored()
    assert found.notes == {"count": {"read": 120}}
    np.testing.assert_array_equal(found.table.columns["image"][:], first.columns["image"][:])
    assert TableStore(tmp_path, {**KEY, "files": ["b"]}, 100).stored() is None
    (tmp_path / FACTS).write_text("{")
    assert TableStore(tmp_path, KEY, 100).stored() is None
    # What was not finished does not count, and is written anew.
    store = TableStore(tmp_path, KEY, 100)
    store.add(next(parts()))
    store.close()
    assert TableStore(tmp_path, KEY, 100).stored() is None
    assert len(stored(tmp_path, 100)) == len(first)


def test_one_process_writes_and_the_others_wait_for_it(tmp_path):
    store = TableStore(tmp_path, KEY, 100)
    chunks = list(parts())
    store.add(chunks[0])
    for writes in (True, False):
        with pytest.raises(Elsewhere):
            TableStore(tmp_path, KEY, 100, writes=writes).add(chunks[0])
    waiting = []
    threads = [
        threading.Thread(target=lambda w=w: waiting.append(TableStore(tmp_path, KEY, 100, writes=w).wait()))
        for w in (True, False)
    ]
    for thread in threads:
        thread.start()
    for chunk in chunks[1:]:
        store.add(chunk)
    assert not waiting
    table = store.finish({"count": {}})
    for thread in threads:
        thread.join(10)
    assert [len(found.table) for found in waiting] == [len(table)] * 2


def test_a_writer_that_ends_early_leaves_the_table_to_the_next_one(tmp_path):
    store = TableStore(tmp_path, KEY, 100)
    store.add(next(parts()))
    store.close()
    assert TableStore(tmp_path, KEY, 100).wait() is None


def test_what_cannot_go_to_disk_is_said(tmp_path):
    table = EncodedTable({"text": np.array(["a", "b"], object), "image": np.zeros((2, 99), np.uint8)})
    with pytest.raises(DataError, match="raise data.table_memory_mb"):
        TableStore(tmp_path, KEY, 10).add(table)
    store = TableStore(tmp_path / "kinds", KEY, 10)
    store.add(EncodedTable({"image": np.zeros((2, 99), np.uint8)}))
    with pytest.raises(ValueError, match="changes from uint8 to float32"):
        store.add(EncodedTable({"image": np.zeros((2, 99), np.float32)}))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    table = EncodedTable({"x": np.zeros((100, 4), np.float32)})
    with pytest.raises(ConfigError, match=r"cannot be made: Not a directory; got .*file/cache.*data\.cache_dir"):
        TableStore(tmp_path / "file" / "cache", KEY, 10).add(table)
