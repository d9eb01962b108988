"""`easy_transfer_app compare` on runs whose rows are made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from appzoo.cli.main import main
from easytransfer.metrics.row_results import RowResults
from easytransfer.run.folder import ROWS_FILE, RunFolder
from easytransfer.run.intervals import wilson_interval

ROWS = 60
TRUE = np.arange(ROWS) % 2


def make_run(path: Path, wrong: int, *, rate=1e-4, labels=("neg", "pos"), digest="d", rows=None, true=TRUE) -> str:
    """Writes a run that is wrong in its first `wrong` rows."""
    config = {"model_name": "text_classify_bert", "checkpoint_dir": str(path), "train": {"learning_rate": rate}}
    folder = RunFolder.create(path, {**config, "data": {"first_sequence": "text"}})
    inputs = [{"table": "evaluation", "path": "dev.csv", "bytes": 1, "sha256": digest}]
    folder.write_run({"inputs": [{"table": "training", "path": "t.csv", "bytes": 1, "sha256": "t"}, *inputs]})
    predicted = np.where(np.arange(len(true)) < wrong, 1 - true, true)
    arrays = {"true": true, "predicted": predicted, "row": np.arange(1, len(true) + 1) if rows is None else rows}
    results = RowResults("classification", list(labels), arrays)
    results.save(path / ROWS_FILE)
    folder.finish("done", report={"metrics": {**results.metrics(), "member_accuracy": 0.5}, "pictures": []})
    return str(path)


def test_settings_metrics_and_tests(tmp_path, capfd):
    first, second = make_run(tmp_path / "a", 20), make_run(tmp_path / "b", 10, rate=3e-4)
    assert main(["compare", first, second, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["settings"] == {"train.learning_rate": [1e-4, 3e-4]}
    accuracy = found["metrics"][1]["accuracy"]
    assert accuracy["value"] == pytest.approx(5 / 6)
    assert (accuracy["low"], accuracy["high"]) == pytest.approx(wilson_interval(5 / 6, ROWS))
    macro = found["metrics"][1]["macro_f1"]
    assert macro["low"] < macro["value"] < macro["high"]
    # What does not follow from the rows has no interval.
    assert found["metrics"][0]["member_accuracy"] == {"value": 0.5, "low": None, "high": None}
    tests = {each["metric"]: each for each in found["tests"][second]}
    # 10 rows that the second alone gets right, none that the first does.
    assert tests["accuracy"]["p"] == pytest.approx(2 / 2**10) and tests["accuracy"]["test"] == "McNemar, exact"
    assert tests["accuracy"]["difference"] == pytest.approx(1 / 6) and tests["macro_f1"]["test"] == "bootstrap"
    assert "member_accuracy" not in tests
    assert main(["compare", first, second, "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == found, "draws are those of the seed"


def test_terminal_and_page(tmp_path, capfd):
    runs = [make_run(tmp_path / name, wrong) for name, wrong in (("a", 20), ("b", 10), ("c", 0))]
    assert main(["compare", *runs, f"--outputDir={tmp_path}/out"]) == 0
    shown = capfd.readouterr().out
    page = (tmp_path / "out" / "comparison.html").read_text()
    for text in ("McNemar, exact", "0.00195", "+0.1667", "60 rows, 1,000 draws. Each p is of one test"):
        assert text in shown and text in page, text
    assert "Settings that differ" not in shown


def test_classes_in_another_order_are_the_same_rows(tmp_path, capfd):
    first = make_run(tmp_path / "a", 20)
    second = make_run(tmp_path / "b", 10, labels=("pos", "neg"), true=1 - TRUE)
    assert main(["compare", first, second, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)["tests"][second]
    assert found[0]["metric"] == "accuracy" and found[0]["p"] == pytest.approx(2 / 2**10)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"digest": "another"}, "their evaluation tables are different files"),
        ({"rows": np.arange(2, ROWS + 2)}, "60 rows and 60 rows of the table, 59 of them in both"),
        ({"true": TRUE[:-1]}, "60 rows and 59 rows of the table, 59 of them in both"),
        ({"true": 1 - TRUE}, "their labels are different"),
        ({"labels": ("neg", "good")}, "their labels are different"),
    ],
)
def test_other_rows_are_refused_in_one_line(other, reason, tmp_path, capfd):
    runs = [make_run(tmp_path / "a", 20), make_run(tmp_path / "b", 10, **other)]
    assert main(["compare", *runs]) == 3
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and f"not measured on the same rows: {reason}" in error[0] and "--unpaired" in error[0]
    assert main(["compare", *runs, "--unpaired"]) == 0
    shown = capfd.readouterr().out
    assert "Metrics" in shown and "on the same rows" not in shown


def test_runs_without_rows(tmp_path, capfd):
    runs = [make_run(tmp_path / "a", 20), make_run(tmp_path / "b", 10)]
    (tmp_path / "b" / ROWS_FILE).unlink()
    assert main(["compare", *runs]) == 3
    assert f"b has no {ROWS_FILE}" in capfd.readouterr().err
    assert main(["compare", *runs, "--unpaired", "--json"]) == 0
    metrics = json.loads(capfd.readouterr().out)["metrics"]
    assert metrics[0]["accuracy"]["low"] is not None and metrics[1]["accuracy"]["low"] is None


def test_mistakes_are_one_line(tmp_path, capfd):
    run = make_run(tmp_path / "a", 20)
    for words, code, message in [
        ([run], 2, "compare needs two runs"),
        ([run, run], 2, "named twice"),
        ([run, str(tmp_path / "none")], 4, "is not a run folder"),
        ([run, run, "--nonsense"], 2, "--nonsense"),
    ]:
        assert main(["compare", *words]) == code
        assert message in capfd.readouterr().err
    (tmp_path / "a" / "report.json").unlink()
    assert main(["compare", run, make_run(tmp_path / "b", 1)]) == 4
    assert "is no finished run" in capfd.readouterr().err
