"""Pictures exist, are pictures, and stay readable: names, many classes, characters without a glyph."""

import builtins
import json

import numpy as np
import pytest

from easytransfer.metrics.classification import ClassificationEvaluator, MultiLabelEvaluator
from easytransfer.metrics.regression import RegressionEvaluator
from easytransfer.run import pictures

pytest.importorskip("matplotlib")


def history(folder, steps=5):
    lines = [{"event": "step", "step": s, "loss": 1 / s} for s in range(1, steps + 1)]
    lines += [{"event": "evaluation", "step": s, "loss": 0.5, "accuracy": s / 10, "auc": None} for s in (2, 4)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def size_of(png):
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def report(evaluator, labels, logits):
    evaluator.update({"label_id": np.array(labels)}, {"logits": np.array(logits, float)})
    return evaluator.report()


CASES = {
    "classes": (lambda: report(ClassificationEvaluator("ab"), [0, 1], np.eye(2)), pictures.CONFUSION_MATRIX),
    "multi": (lambda: report(MultiLabelEvaluator("ab"), np.eye(2), np.eye(2)), pictures.CLASS_SCORES),
    "number": (lambda: report(RegressionEvaluator(), [1.0, 2.0], [[1.0], [3.0]]), pictures.PREDICTED_TRUE),
}


@pytest.mark.parametrize("case", CASES)
def test_each_task_gets_its_pictures(tmp_path, case):
    make, name = CASES[case]
    history(tmp_path)
    drawn = pictures.draw_pictures(tmp_path, json.loads(json.dumps(make())), "accuracy")
    assert drawn == [pictures.LEARNING_CURVE, name]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == sorted(drawn)
    for picture in drawn:
        width, height = size_of(tmp_path / picture)
        assert 300 < width < 2000 and 200 < height < 2000


def test_learning_curve_shows_what_was_recorded(tmp_path):
    from easytransfer.run.history import read_history

    history(tmp_path)
    figure = pictures.learning_curve(read_history(tmp_path), "accuracy")
    upper, lower = figure.axes
    assert upper.get_lines()[0].get_xydata().tolist() == [[s, 1 / s] for s in range(1, 6)]
    assert lower.get_lines()[0].get_xydata().tolist() == [[2, 0.2], [4, 0.4]]
    assert lower.get_ylabel() == "evaluation accuracy" and upper.get_ylabel() == "loss"
    assert lower.get_xlabel() == "optimizer step"
    assert lower.get_xticks().tolist() == upper.get_xticks().tolist()


def test_a_curve_of_one_point_is_left_out(tmp_path):
    steps = [{"event": "step", "step": step, "loss": 1 / step} for step in (1, 2)]
    evaluation = {"event": "evaluation", "step": 2, "loss": 0.4, "accuracy": 0.5}
    assert pictures.learning_curve([], "accuracy") is None
    assert pictures.learning_curve([steps[0], evaluation], "accuracy") is None
    (only,) = pictures.learning_curve([*steps, evaluation], "accuracy").axes
    assert only.get_xlabel() == "optimizer step" and only.get_lines()[0].get_xydata().tolist() == [[1, 1], [2, 0.5]]
    assert len(pictures.learning_curve([*steps, evaluation, {**evaluation, "step": 4}], "auc").axes) == 1


def test_confusion_picture_names_and_counts():
    figure = pictures.confusion_picture(np.array([[40, 2], [10, 1000]]), ["neg", "pos"])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["neg", "pos"]
    assert [text.get_text() for text in axes.texts] == ["40", "2", "10", "1,000"]
    assert axes.get_xlabel() == "predicted" and axes.get_ylabel() == "true"
    assert axes.get_title() == "Confusion matrix, 1,052 rows, 98.86% right"


def test_characters_without_a_glyph_fall_back_to_ids(monkeypatch):
    latin = frozenset(map(chr, range(32, 256)))
    monkeypatch.setattr(pictures, "_drawable", lambda: latin)
    figure = pictures.confusion_picture(np.eye(2, dtype=int), ["体育", "sport"])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1"]
    assert "label_mapping.json" in axes.get_xlabel()
    rows = [
        dict(label=n, precision=0.5, recall=0.5, f1=0.5, support=s, predicted=1) for n, s in (("体育", 1), ("b", 9))
    ]
    axes = pictures.class_scores(rows).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1 (9)", "0 (1)"], "ids, most frequent first"


def test_fonts_that_are_there_are_used_and_draw_without_warnings(tmp_path, recwarn):
    history(tmp_path)
    labels = ["体育", "été", "👍", "a $formula$ _x^2", "x" * 60]
    evaluation = report(ClassificationEvaluator(labels), range(5), np.eye(5))
    assert len(pictures.draw_pictures(tmp_path, evaluation, "accuracy")) == 2
    assert not [str(w.message) for w in recwarn if "Glyph" in str(w.message)]
    assert pictures.tick_labels(["été", "a $b"]) == (["été", r"a \$b"], False)
    (short,), _ = pictures.tick_labels(["begin" + "-" * 50 + "end"])
    assert len(short) == 24 and short.startswith("begin") and short.endswith("end")


def test_many_classes_stay_readable_in_size(tmp_path):
    history(tmp_path)
    labels = [f"class number {i}" for i in range(119)]
    evaluation = report(ClassificationEvaluator(labels), range(119), np.eye(119))
    pictures.draw_pictures(tmp_path, evaluation, "accuracy")
    assert max(size_of(tmp_path / pictures.CONFUSION_MATRIX)) < 2500
    axes = pictures.confusion_picture(np.array(evaluation["confusion"]), labels).axes[0]
    assert len(axes.get_yticklabels()) == 40 and not axes.texts


def test_constant_values_can_be_drawn():
    figure = pictures.predicted_against_true([1.0, 1.0], [1.0, 1.0])
    assert [axes.get_title() for axes in figure.axes] == ["Predicted against true", "Distribution"]


def test_without_matplotlib_one_line_names_the_extra(tmp_path, monkeypatch, capsys):
    from easytransfer.run import log

    log.setup_logging()
    real = builtins.__import__

    def fail(name, *rest):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fail)
    history(tmp_path)
    assert pictures.draw_pictures(tmp_path, {}, "accuracy") == []
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and "pip install" in shown and ("matplotlib>=" in shown or ".[plot]" in shown)
    assert not list(tmp_path.glob("*.png"))
