"""Files of the benchmarks: records of TuSimple and lists of CULane as tables, results as their programs read them."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from appzoo import discovery
from appzoo.lane_detection.readers import CATEGORIES, read_culane, read_tusimple
from appzoo.lane_detection.writers import write_culane, write_tusimple
from easytransfer.data import app_forms
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.table import open_table
from easytransfer.errors import ConfigError

RECORD = {"raw_file": "clips/1/20.jpg", "lanes": [[-2, 10, 20]], "h_samples": [240, 250, 260]}


@pytest.fixture(autouse=True)
def forms_of_this_test(monkeypatch):
    monkeypatch.setattr(app_forms, "_readers", {})
    monkeypatch.setattr(app_forms, "_writers", {})
    discovery.resolve("lane_detection_resa")


def test_records_of_tusimple_are_rows(tmp_path):
    task = {key: value for key, value in RECORD.items() if key != "lanes"}
    lines = [json.dumps(RECORD), "", json.dumps(task), "{broken", '{"raw_file": "x"}', "[1]"]
    (tmp_path / "label_data_0313.json").write_text("\n".join(lines) + "\n")
    bad = BadRows("skip")
    table = open_table(str(tmp_path / "label_data_0313.json"), schema=None, bad_rows=bad, texts={"lanes": "json"})
    (chunk,) = table.chunks()
    assert chunk.columns["image"] == chunk.columns["raw_file"] == ["clips/1/20.jpg"] * 2
    cells = [json.loads(cell) for cell in chunk.columns["lanes"]]
    assert cells[0] == {"lanes": RECORD["lanes"], "h_samples": RECORD["h_samples"]} and cells[1]["lanes"] == []
    assert (table.count.read, table.count.rejected) == (5, 3) and bad.reasons == {"missing value": 3}


def test_lists_of_culane_are_rows(tmp_path):
    (tmp_path / "list" / "test_split").mkdir(parents=True)
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver" / "1.lines.txt").write_text("1 2 3 4\n")
    (tmp_path / "list" / "train_gt.txt").write_text(
        "/driver/1.jpg /seg/driver/1.png 1 0 1 1\n/driver/2.jpg /seg/driver/2.png 0 0 0 0\n/driver/3.jpg /seg/3.png\n"
    )
    first, second, broken = read_culane(str(tmp_path / "list" / "train_gt.txt"))
    assert (first["image"], first["raw_file"]) == ("../driver/1.jpg", "/driver/1.jpg")
    expected = {"mask": "../seg/driver/1.png", "exist": [1, 0, 1, 1], "lines": "../driver/1.lines.txt"}
    assert json.loads(first["lanes"]) == expected
    # Without its file of lines the lanes are those of the mask.
    assert json.loads(second["lanes"]) == {"mask": "../seg/driver/2.png", "exist": [0, 0, 0, 0]}
    assert broken["image"] is None and broken["lanes"].startswith("/driver/3.jpg")
    for number, name in enumerate(CATEGORIES):
        path = tmp_path / "list" / "test_split" / f"test{number}_{name}.txt"
        path.write_text("driver/1.jpg\n")
        assert app_forms.reader_of(str(path)) is not None
        (row,) = read_culane(str(path))
        assert row["image"] == "../../driver/1.jpg"
        assert json.loads(row["lanes"]) == {"lines": "../../driver/1.lines.txt", "category": name}
    (tmp_path / "train_gt.txt").write_text("x\n")
    with pytest.raises(ValueError, match="lists of CULane lie in its folder `list`"):
        list(read_culane(str(tmp_path / "train_gt.txt")))


def test_tables_of_others_are_left_alone():
    for name in ("train.json", "mine.txt", "my_list.txt", "dev.jsonl", "answers.json"):
        assert app_forms.reader_of(name) is None and app_forms.writer_of(name) is None


def test_lines_without_an_end_are_refused(tmp_path):
    (tmp_path / "x.tusimple.json").write_text("a" * (1 << 20))
    with pytest.raises(ValueError, match="x.tusimple.json:1: a line of more than 1048576 characters"):
        list(read_tusimple(str(tmp_path / "x.tusimple.json")))


ROWS = [
    {"lane_x": [[-2, 10, -2, 30], [-2, -2, -2, -2]], "rows": [10, 20, 30, 40], "raw_file": "clips/1/20.jpg"},
    {"lane_x": [[-2] * 4] * 2, "rows": [10, 20, 30, 40], "image": "a/b.jpg"},
]


def test_result_files_of_tusimple(tmp_path):
    write_tusimple(tmp_path / "r", iter(ROWS))
    first, second = (json.loads(line) for line in (tmp_path / "r").read_text().splitlines())
    assert first == {
        **{"raw_file": "clips/1/20.jpg", "lanes": [[-2, 10, 20, 30]]},
        **{"h_samples": [10, 20, 30, 40], "run_time": 0},
    }
    assert second["raw_file"] == "a/b.jpg" and second["lanes"] == [[-2] * 4]


def test_result_files_of_culane(tmp_path):
    write_culane(tmp_path / "r", iter(ROWS))
    with zipfile.ZipFile(tmp_path / "r") as archive:
        assert archive.namelist() == ["clips/1/20.lines.txt", "a/b.lines.txt"]
        assert archive.read("clips/1/20.lines.txt") == b"30 40 10 20\n" and archive.read("a/b.lines.txt") == b""
    first = (tmp_path / "r").read_bytes()
    write_culane(tmp_path / "r", iter(ROWS))
    assert (tmp_path / "r").read_bytes() == first


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"lane_x": [], "rows": []}, "no column holds their paths"),
        ({**ROWS[0], "raw_file": "data:image/png;base64,AA"}, "no column holds their paths"),
        ({"raw_file": "a.jpg", "rows": []}, "a result file needs the column lane_x"),
        ({**ROWS[0], "raw_file": "../../etc/a.jpg"}, "an image lies outside of the data set"),
    ],
)
def test_rows_that_make_no_result_are_refused(tmp_path, row, message):
    with pytest.raises(ConfigError, match=message):
        write_culane(tmp_path / "r", iter([row]))


def test_two_rows_of_one_image_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="two rows are of one image"):
        write_culane(tmp_path / "r", iter([ROWS[1], ROWS[1]]))


def test_results_are_what_the_metrics_read(tmp_path):
    """A result file of the true lanes has the best score."""
    from appzoo.lane_detection.tusimple import score_image

    x = np.array([[100, 110, -2, 130, 140, 150]], float)
    write_tusimple(tmp_path / "r", iter([{"lane_x": x.tolist(), "rows": list(range(10, 70, 10)), "image": "a"}]))
    found = json.loads((tmp_path / "r").read_text())
    filled = np.where(x < 0, 120, x)
    score = score_image([np.array(lane) for lane in found["lanes"]], list(filled), found["h_samples"])
    assert (score.accuracy, score.fp, score.fn) == (1, 0, 0)
