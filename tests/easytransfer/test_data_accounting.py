"""Every row that goes in comes out or is counted with its reason."""

import csv
from collections import Counter

import numpy as np
import pytest
from fixtures.broken_table import LABELS, SCHEMA, write_broken_table

from easytransfer.data.bad_rows import BadRows, RowCount
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.errors import ConfigError, DataError, ResourceError

SCHEMA = parse_schema(SCHEMA)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    return write_broken_table(tmp_path_factory.mktemp("table") / "broken.tsv", unknown_labels=37)


def read(table, **arguments):
    ids = []
    for chunk in table.chunks(**arguments):
        for i, label in enumerate(chunk.columns["label"]):
            if label not in LABELS:
                chunk.reject(i, "label", f"unknown label: {label!r}")
        ids.extend(chunk.compact().columns["id"])
    return ids


def test_100000_rows_with_ten_kinds_of_breakage_are_all_accounted_for(broken, tmp_path):
    assert broken.rows == 100_000 and len(broken.planted) == 10 and broken.planted.total() == 1_000
    quarantine = tmp_path / "bad.tsv"
    bad_rows = BadRows("quarantine", quarantine_path=quarantine)
    table = open_table(str(broken.path), schema=SCHEMA, bad_rows=bad_rows)
    ids = read(table)
    bad_rows.close()
    assert ids == broken.ids
    assert table.count == RowCount(100_000, 100_000 - 1_037, 1_037)
    assert bad_rows.reasons == broken.planted + Counter({"unknown label": 37})
    assert table.row_count() == 100_000
    rows = list(csv.reader(quarantine.open(encoding="utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == 1_037 and {len(row) for row in rows} == {5}
    found = {int(row[1]): row[3].split(": ")[0] for row in rows if row[2] != "label"}
    assert found == broken.lines
    assert {row[0] for row in rows} == {str(broken.path)}


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunk_size_changes_nothing(tmp_path, size):
    broken = write_broken_table(tmp_path / "t.tsv", rows=500, broken=50)
    bad_rows = BadRows("skip")
    table = open_table(str(broken.path), schema=SCHEMA, bad_rows=bad_rows)
    assert read(table, size=size) == broken.ids
    assert bad_rows.reasons == broken.planted


def test_shards_are_disjoint_and_complete_and_share_out_bad_rows(tmp_path):
    broken = write_broken_table(tmp_path / "t.tsv", rows=501, broken=50)
    reasons, ids, rows_read = Counter(), [], 0
    for rank in range(4):
        bad_rows = BadRows("skip")
        table = open_table(str(broken.path), schema=SCHEMA, bad_rows=bad_rows)
        for chunk in table.chunks(size=16, shard=(rank, 4)):
            assert set(chunk.index % 4) == {rank}
            assert chunk.columns["id"] == chunk.index.tolist()
            ids.extend(chunk.columns["id"])
        reasons += bad_rows.reasons
        rows_read += table.count.read
        assert table.count.read == table.count.accepted + table.count.rejected
    assert sorted(ids) == broken.ids
    assert reasons == broken.planted and rows_read == 501


def test_start_resumes_at_a_row(tmp_path):
    broken = write_broken_table(tmp_path / "t.tsv", rows=300, broken=20)
    table = open_table(str(broken.path), schema=SCHEMA, bad_rows=BadRows("skip"))
    assert read(table, size=32, start=101) == [i for i in broken.ids if i >= 101]
    assert table.count.read == 199


def test_fail_names_file_line_column_and_value(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("a\t1\nb\tx2\n")
    table = open_table(str(path), schema=parse_schema("text:str:1,label:int:1"))
    with pytest.raises(DataError) as error:
        list(table.chunks())
    message = str(error.value)
    assert f"{path}:2: column 'label': not an integer: 'x2'" in message and "b\\tx2" in message
    assert "--badRows=skip" in message
    assert error.value.exit_code == 3
    assert table.count.read == table.count.accepted + table.count.rejected


def test_message_shows_the_first_80_characters(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("y" * 500 + "\n")
    with pytest.raises(DataError) as error:
        list(open_table(str(path), schema=parse_schema("a:str:1,b:str:1")).chunks())
    assert "y" * 80 + "'" in str(error.value) and "y" * 81 not in str(error.value)


def test_limit_stops_after_as_many_bad_rows(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("1\nx\nx\nx\n2\n")
    schema = parse_schema("n:int:1")
    table = open_table(str(path), schema=schema, bad_rows=BadRows("skip", limit=3))
    assert [chunk.columns["n"] for chunk in table.chunks()] == [[1, 2]]
    with pytest.raises(DataError, match="more than maxBadRows=2 bad rows .not an integer: 3."):
        list(open_table(str(path), schema=schema, bad_rows=BadRows("skip", limit=2)).chunks())


def test_reject_counts_once_and_survives_compact(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("a\nb\nc\nd\n")
    bad_rows = BadRows("skip")
    table = open_table(str(path), schema=parse_schema("t:str:1"), bad_rows=bad_rows)
    (chunk,) = table.chunks()
    chunk.reject(1, "t", "odd: b")
    chunk.reject(1, "t", "odd: b")
    rest = chunk.compact()
    assert (rest.columns["t"], len(chunk), len(rest)) == (["a", "c", "d"], 3, 3)
    rest.reject(1, "t", "odd: c")
    assert rest.origin(1) == f"{path}:3"
    assert rest.compact().index.tolist() == [0, 3]
    assert table.count == RowCount(4, 2, 2) and bad_rows.reasons == {"odd": 2}
    np.testing.assert_array_equal(chunk.accepted, [True, False, True, True])


def test_quarantine_keeps_the_whole_row_in_one_line(tmp_path):
    path, aside = tmp_path / "t.tsv", tmp_path / "new" / "bad.tsv"
    path.write_bytes(b"1\t" + b"z" * 200 + b"\t\\\t\0\n")
    with_aside = BadRows("quarantine", quarantine_path=aside)
    assert list(open_table(str(path), schema=parse_schema("a:int:1"), bad_rows=with_aside).chunks()) == []
    with_aside.close()
    cells = aside.read_text().split("\t")
    assert len(cells) == 5 and cells[:4] == [str(path), "1", "", "NUL character"]
    assert cells[4] == "1\\t" + "z" * 200 + "\\t\\\\\\t\\0\n"


def test_quarantine_without_bad_rows_leaves_no_file(tmp_path):
    bad_rows = BadRows("quarantine", quarantine_path=tmp_path / "bad.tsv")
    bad_rows.close()
    assert not (tmp_path / "bad.tsv").exists()


def test_settings_of_bad_rows_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="accepted: fail, skip, quarantine"):
        BadRows("ignore")
    with pytest.raises(ConfigError, match="needs a file"):
        BadRows("quarantine")
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write the bad-row file"):
        BadRows("quarantine", quarantine_path=tmp_path / "file" / "bad.tsv")
