"""Forms of tables that applications bring: found by the ending of a name, accounted for like any other table."""

import importlib
import sys
from pathlib import Path

import pytest

from easytransfer.data import app_forms, files
from easytransfer.data.app_forms import BadRecord, register, write_rows, writer_of
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.errors import DataError


@pytest.fixture(autouse=True)
def forms_of_this_test(monkeypatch):
    monkeypatch.setattr(app_forms, "_readers", {})
    monkeypatch.setattr(app_forms, "_writers", {})
    monkeypatch.setattr(files, "FOLDER_ENDINGS", set())
    monkeypatch.setattr(app_forms, "FOLDER_ENDINGS", files.FOLDER_ENDINGS)


def read_pairs(path):
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        name, _, points = line.partition(":")
        if not points:
            raise ValueError(f"{path}:{number}: no points behind the name")
        yield {"name": name, "points": [float(point) for point in points.split()]}


def test_rows_of_a_reader_are_rows_of_a_table(tmp_path):
    register({".pairs": read_pairs}, {})
    path = tmp_path / "T.PAIRS"
    path.write_text("a: 1 2\nb: 3\nc: 4 5 6\n")
    table = open_table(str(path), schema=None, bad_rows=BadRows("fail"))
    assert [str(column) for column in table.schema] == ["name:str:1", "points:float:*"]
    assert table.row_count() == 3
    (chunk,) = table.chunks()
    assert chunk.columns["name"] == ["a", "b", "c"] and list(chunk.columns["points"][2]) == [4, 5, 6]
    (chunk,) = table.chunks(start=1, stop=2)
    assert chunk.columns["name"] == ["b"] and table.count.read == 1
    bad = BadRows("skip")
    table = open_table(str(path), schema=parse_schema("name:str:1,points:float:2"), bad_rows=bad)
    assert sum(map(len, table.chunks())) == 1 and table.count.rejected == 2 and bad.reasons == {"wrong list length": 2}


def test_a_damaged_file_is_one_message(tmp_path):
    register({".pairs": read_pairs}, {})
    (tmp_path / "t.pairs").write_text("a: 1\nb\n")
    with pytest.raises(DataError, match="t.pairs:2: no points"):
        list(open_table(str(tmp_path / "t.pairs"), schema=None).chunks())
    (tmp_path / "e.pairs").write_text("")
    with pytest.raises(DataError, match="no row"):
        open_table(str(tmp_path / "e.pairs"), schema=None)


def test_what_a_reader_cannot_make_a_row_of_is_a_bad_row(tmp_path):
    def careful(path):
        for line in Path(path).read_text().splitlines():
            name, _, points = line.partition(":")
            values = [float(point) for point in points.split()]
            yield {"name": name, "points": values} if points else BadRecord("points", f"no points: {name}", line)

    register({".pairs": careful}, {})
    path = tmp_path / "t.pairs"
    path.write_text("x\na: 1 2\ny\nb: 3\n")
    bad = BadRows("quarantine", quarantine_path=tmp_path / "bad.tsv")
    table = open_table(str(path), schema=None, bad_rows=bad)
    (chunk,) = table.chunks()
    bad.close()
    assert chunk.columns["name"] == ["a", "b"] and (table.count.read, table.count.rejected) == (4, 2)
    quarantined = [line.split("\t") for line in (tmp_path / "bad.tsv").read_text().splitlines()]
    assert quarantined == [
        [str(path), "1", "points", "no points: x", "x"],
        [str(path), "3", "points", "no points: y", "y"],
    ]
    with pytest.raises(DataError, match="t.pairs:1: column 'points': no points: x; got 'x'"):
        list(open_table(str(path), schema=None, bad_rows=BadRows("fail")).chunks())
    path.write_text("x\ny\n")
    with pytest.raises(DataError, match="no record of .*t.pairs can be read; the first: no points: x"):
        open_table(str(path), schema=None)


def test_the_longest_ending_decides_and_writing_is_atomic(tmp_path):
    def broken(path, rows):
        path.write_text("half")
        raise OSError("full")

    register({}, {".lines": lambda path, rows: path.write_text("/".join(row["a"] for row in rows)), ".x.lines": broken})
    assert writer_of("t.lines") == ".lines" and writer_of("t.X.lines") == ".x.lines" and writer_of("t.tsv") is None
    pieces = [tmp_path / "0", tmp_path / "1"]
    for number, piece in enumerate(pieces):
        piece.write_text(f'{{"a": "row {number}"}}\n')
    write_rows(".lines", pieces, tmp_path / "t.lines")
    assert (tmp_path / "t.lines").read_text() == "row 0/row 1"
    with pytest.raises(OSError):
        write_rows(".x.lines", pieces, tmp_path / "t.lines")
    assert (tmp_path / "t.lines").read_text() == "row 0/row 1" and len(list(tmp_path.iterdir())) == 3


def test_readers_and_writers_of_an_application_folder_are_found(tmp_path, monkeypatch):
    from appzoo.discovery import Application

    folder = tmp_path / "zz_app_with_forms"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "readers.py").write_text("READERS = {'.zz': lambda path: iter(())}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    Application("zz", "zz_app_with_forms").register_forms()
    assert app_forms.reader_of("t.zz") == ".zz" and writer_of("t.zz") is None


def test_a_folder_is_read_by_its_name_and_stands_for_itself(tmp_path):
    def read_names(path):
        yield from ({"file": name} for name in sorted(entry.name for entry in Path(path).iterdir()))

    register({"/shots/": read_names, "/takes/": read_names}, {})
    for name in ("shots/a/1.png", "takes/2.png", "else/a/3.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    table = open_table(f"{tmp_path}/shots/,{tmp_path}/takes", schema=None)
    assert table.files == [f"{tmp_path}/shots", f"{tmp_path}/takes"]
    assert [cell for chunk in table.chunks() for cell in chunk.columns["file"]] == ["a", "2.png"]
    assert open_table(f"{tmp_path}/else", schema=None).files == [f"{tmp_path}/else/a"]


def test_pictures_of_a_reader_are_pictures(tmp_path):
    register({".pics": lambda path: iter([{"shot": "data:image/png;base64,AAAA", "name": "data: no picture"}])}, {})
    (tmp_path / "t.pics").write_text("x")
    table = open_table(str(tmp_path / "t.pics"), schema=None)
    assert [str(column) for column in table.schema] == ["shot:image:1", "name:str:1"]
