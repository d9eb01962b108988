"""What a training says of single evaluation rows: all in a file, wrong ones on a page, parts in the card."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from training import without_export

from appzoo.cli.main import main
from appzoo.jobs import evaluated_rows
from appzoo.jobs.evaluated_rows import drawn_interval, slices
from easytransfer.metrics.row_results import RowResults
from easytransfer.run.intervals import wilson_interval

TRAIN = [(f"the movie number {i} is {'good' if i % 2 else 'bad'}", "pos" if i % 2 else "neg") for i in range(32)]
# Row 3 has a label that nobody knows, so the rows behind it are not those of the encoded table.
DEV = [
    ("a", f"movie {i} is {'not ' * (i % 5)}{'good' if i % 3 else '<b>bad</b>'}", "pos" if i % 2 else "neg")
    for i in range(24)
]
DEV[2] = ("b", "a row to leave out", "odd")
DEV[7] = ("b", *DEV[7][1:])


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("rows")
    for name, rows in (("train", TRAIN), ("dev", DEV)):
        with open(folder / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["source", "text", "label"][-len(rows[0]) :], *rows])
    words = ["--modelName=text_classify_bert", "--firstSequence=text", "--labelName=label", "--badRows=skip"]
    words += ["--labelEnumerateValues=neg,pos", f"--inputTable={folder}/train.csv,{folder}/dev.csv"]
    words += ["--sliceColumns=source", "--sequenceLength=16", f"--checkpointDir={folder}/run", "--batchSize=8"]
    words += ["--set=train.eval_batch_size=5", f"--set=model.pretrain_model_name_or_path={tiny_model}"]
    with without_export():
        assert main(["train", *words]) == 0
    return folder / "run"


def test_the_file_has_every_row_in_the_order_of_the_table(run):
    results = RowResults.load(run / "evaluation_rows.npz")
    assert results.arrays["row"].tolist() == [i + 1 for i in range(24) if i != 2]
    true = [label for i, (_, _, label) in enumerate(DEV) if i != 2]
    assert [results.names("true", i) for i in range(23)] == true
    report = json.loads((run / "report.json").read_text())
    for name, value in results.metrics().items():
        assert report["metrics"][name] == pytest.approx(value, abs=1e-6), name


def test_answers_belong_to_their_rows(run, tmp_path):
    """The same texts through `predict` have the same answers."""
    words = [f"--inputTable={run.parent}/dev.csv", f"--outputTable={tmp_path}/out.csv", f"--checkpointPath={run}"]
    assert main(["predict", *words, "--firstSequence=text", "--outputSchema=predictions"]) == 0
    with open(tmp_path / "out.csv", newline="") as file:
        predicted = [row["predictions"] for row in csv.DictReader(file)]
    results = RowResults.load(run / "evaluation_rows.npz")
    kept = [predicted[number - 1] for number in results.arrays["row"]]
    assert [results.names("predicted", i) for i in range(23)] == kept


def test_wrong_rows_are_shown_the_most_confident_first(run):
    page = (run / "wrong_rows.html").read_text()
    results = RowResults.load(run / "evaluation_rows.npz")
    wrong = np.flatnonzero(~results.right)
    assert 0 < len(wrong) < 23 and f"{len(wrong)} of 23 evaluation rows have a wrong answer" in page
    number = '<td class="number">'
    shown = [page.index(f"{number}{results.arrays['row'][row]}</td>\n<td>movie") for row in results.worst(100)]
    assert shown == sorted(shown) and len(shown) == len(wrong)
    assert "<b>bad" not in page and "&lt;b&gt;bad" in page
    assert 'href="wrong_rows.html"' in (run / "report.html").read_text() and 'href="report.html"' in page
    assert "[Wrong rows](wrong_rows.html)" in (run / "README.md").read_text()


def test_labels_and_lengths_of_both_tables_are_told(run):
    report, lines = json.loads((run / "report.json").read_text()), (run / "README.md").read_text().splitlines()
    labels, lengths = report["labels_by_table"], report["lengths_by_table"]
    assert labels["names"] == ["neg", "pos"] and labels["tables"] == {"train": [16, 16], "eval": [11, 12]}
    assert labels["rows"] == lengths["rows"] == {"train": 32, "eval": 23}
    assert {part: sum(counts) for part, counts in lengths["tables"].items()} == lengths["rows"]
    assert "| neg | 16 | 50.0% | 11 | 47.8% |" in lines and "| pos | 16 | 50.0% | 12 | 52.2% |" in lines
    page = (run / "report.html").read_text()
    assert '<td>neg</td>\n<td class="number">16</td>\n<td class="number"><svg class="bar"' in page


def test_an_interval_is_drawn_for_what_is_no_share_of_rows():
    random = np.random.default_rng(5)
    true = random.normal(size=60).astype(np.float32)
    results = RowResults("regression", [], {"true": true, "predicted": true + random.normal(size=60) / 2})
    found = drawn_interval(results, "mae", 3)["interval"]
    # Efron's percentiles of 1,000 tables drawn from these rows.
    draws, errors = np.random.default_rng(3), results.errors
    means = [errors[draws.integers(0, 60, 60)].mean() for _ in range(1000)]
    low, high = np.percentile(means, [2.5, 97.5])
    assert found == {"metric": "mae", "low": pytest.approx(low), "high": pytest.approx(high), "draws": 1000}
    assert low < errors.mean() < high
    assert drawn_interval(results, "loss", 3) == {} == drawn_interval(results, "accuracy", 3)
    one = np.ones(4, np.int32)
    one_class = RowResults("classification", ["a", "b"], {"true": one, "predicted": one, "score": np.arange(4.0)})
    assert drawn_interval(one_class, "auc", 3) == {}


def test_no_interval_is_drawn_of_very_many_rows(monkeypatch):
    monkeypatch.setattr(evaluated_rows, "_MOST_DRAWN", 3)
    results = RowResults("regression", [], {name: np.arange(4, dtype=np.float32) for name in ("true", "predicted")})
    assert drawn_interval(results, "mae", 3) == {} != drawn_interval(results.take(np.arange(3)), "mae", 3)


def test_parts_of_the_table(run):
    parts = json.loads((run / "report.json").read_text())["slices"]
    results = RowResults.load(run / "evaluation_rows.npz")
    sources = np.array([source for i, (source, _, _) in enumerate(DEV) if i != 2])
    for by, name, chosen in [
        ("source", "a", sources == "a"),
        ("source", "b", sources == "b"),
        ("label", "pos", results.arrays["true"] == 1),
    ]:
        (part,) = [part for part in parts if (part["by"], part["name"]) == (by, name)]
        share = results.right[chosen].mean()
        assert (part["rows"], part["metric"]) == (chosen.sum(), "accuracy") and part["value"] == pytest.approx(share)
        assert (part["low"], part["high"]) == pytest.approx(wilson_interval(share, int(chosen.sum())))
    lengths = [part for part in parts if part["by"] == "length, tokens"]
    assert sum(part["rows"] for part in lengths) == 23 and 2 <= len(lengths) <= 4
    card = (run / "README.md").read_text()
    assert "### Parts of the evaluation table" in card and "| source | b | 1 |" in card


def test_a_column_that_is_not_there_is_told_before_the_training(run, tiny_model, tmp_path, capfd):
    words = ["--modelName=text_classify_bert", "--firstSequence=text", "--labelName=label", "--sliceColumns=sourse"]
    words += [f"--inputTable={run.parent}/train.csv,{run.parent}/dev.csv", f"--checkpointDir={tmp_path}/run"]
    words += [f"--set=model.pretrain_model_name_or_path={tiny_model}", "--badRows=skip", "--dryRun"]
    assert main(["train", *words, "--labelEnumerateValues=neg,pos"]) == 2
    assert "did you mean source?" in capfd.readouterr().err


def test_parts_by_length_and_of_numbers_by_hand():
    results = RowResults("regression", [], {"true": np.zeros(4), "predicted": np.array([1.0, 3.0, 2.0, 2.0])})
    found = slices(results, np.array([3, 3, 5, 9]), {"domain": ["x", "x", "y", ""]})
    shown = [(part["by"], part["name"], part["rows"], part["value"]) for part in found]
    assert shown == [
        ("length, tokens", "3", 2, 2.0),
        ("length, tokens", "4 to 5", 1, 2.0),
        ("length, tokens", "6 to 9", 1, 2.0),
        ("domain", "x", 2, 2.0),
        ("domain", "y", 1, 2.0),
        ("domain", "(empty)", 1, 2.0),
    ]
    # Errors 1 and 3: mean 2, standard deviation sqrt(2), of their mean 1.
    assert (found[0]["low"], found[0]["high"]) == pytest.approx((2 - 1.96, 2 + 1.96)) and found[1]["low"] is None


def test_rare_values_are_one_part():
    cells = [f"v{i // 2}" for i in range(44)] + ["v0"]
    results = RowResults("classification", ["a"], {"true": np.zeros(45, int), "predicted": np.zeros(45, int)})
    found = [part for part in slices(results, None, {"c": cells}) if part["by"] == "c"]
    assert len(found) == 21 and (found[0]["name"], found[0]["rows"]) == ("v0", 3)
    assert (found[-1]["name"], found[-1]["rows"]) == ("(others)", 4)


def test_a_run_is_compared_with_itself(run, tmp_path, capfd):
    shutil.copytree(run, tmp_path / "copy")
    assert main(["compare", str(run), str(tmp_path / "copy"), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    tests = found["tests"][str(tmp_path / "copy")]
    assert {each["metric"] for each in tests} >= {"accuracy", "macro_f1", "auc", "loss"}
    assert all((each["difference"], each["p"]) == (0, 1) for each in tests) and found["settings"] == {}
