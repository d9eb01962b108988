"""Results of single rows: metrics are those of the evaluators, tests and intervals those of scipy and of hand work."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from easytransfer.errors import ModelError
from easytransfer.metrics.classification import ClassificationEvaluator, MultiLabelEvaluator
from easytransfer.metrics.paired import bootstrap, differences, interval, mcnemar_exact, resamples_for
from easytransfer.metrics.regression import RegressionEvaluator
from easytransfer.metrics.row_results import RowResults, renamed

RANDOM = np.random.default_rng(5)
ROWS = 90


def evaluated(kind: str, classes: int = 2):
    labels = [f"c{i}" for i in range(classes)]
    logits = RANDOM.normal(size=(ROWS, classes)).astype(np.float32)
    if kind == "regression":
        evaluator, true, logits = RegressionEvaluator(), RANDOM.normal(size=ROWS), logits[:, :1]
    elif kind == "multi_label":
        evaluator, true = MultiLabelEvaluator(labels, threshold=0.4), (logits + RANDOM.normal(size=logits.shape)) > 0
    else:
        evaluator, true = ClassificationEvaluator(labels), (logits + RANDOM.normal(size=logits.shape)).argmax(axis=1)
    for start in range(0, ROWS, 32):
        rows = slice(start, start + 32)
        evaluator.update({"label_id": true[rows]}, {"logits": logits[rows]})
    return evaluator


CASES = [("classification", 2), ("classification", 4), ("multi_label", 3), ("regression", 1)]


@pytest.mark.parametrize(("kind", "classes"), CASES)
def test_metrics_are_those_of_the_evaluator(kind, classes, tmp_path):
    evaluator = evaluated(kind, classes)
    results, expected = evaluator.row_results(), evaluator.result()
    found = results.metrics()
    assert len(found) >= 4
    for name, value in found.items():
        assert value == pytest.approx(expected[name], abs=1e-6), name
    results.save(tmp_path / "rows.npz")
    again = RowResults.load(tmp_path / "rows.npz")
    assert (again.kind, again.labels) == (results.kind, results.labels)
    for name, values in results.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], values)


def test_worst_rows_by_hand():
    classes = RowResults(
        "classification",
        ["a", "b"],
        {
            "true": np.array([0, 0, 1, 1, 0]),
            "predicted": np.array([0, 1, 0, 0, 1]),
            "probability": np.array([0.9, 0.6, 0.8, 0.7, 0.8]),
        },
    )
    assert classes.worst(9).tolist() == [2, 4, 3, 1] and classes.worst(2).tolist() == [2, 4]
    assert (classes.names("true", 1), classes.names("predicted", 1)) == ("a", "b")
    numbers = RowResults("regression", [], {"true": np.array([1.0, 2, 3]), "predicted": np.array([1.0, 0, 4])})
    assert numbers.worst(9).tolist() == [1, 2] and numbers.names("true", 1) == "2"
    logits = np.log([[9.0, 1 / 9], [1 / 4, 4.0]])  # probabilities 0.9, 0.1 and 0.2, 0.8
    several = RowResults(
        "multi_label",
        ["a", "b"],
        {"true": np.array([[1, 1], [0, 1]], bool), "predicted": logits > 0, "logits": logits},
    )
    # The second row is right; of the first one the class b is missed, with a probability of 0.9 for its absence.
    assert several.worst(9).tolist() == [0] and several.confidence().tolist() == pytest.approx([0.9, 0.0])
    assert (several.names("true", 0), several.names("predicted", 1)) == ("a, b", "b")


def test_mcnemar_by_hand_and_scipy():
    def rows(first_alone, second_alone, both=5):
        first = np.array([1] * first_alone + [0] * second_alone + [1] * both, bool)
        second = np.array([0] * first_alone + [1] * second_alone + [1] * both, bool)
        return mcnemar_exact(first, second)

    # 1 of 6 coins: 2 * (1 + 6) / 2**6.
    assert rows(1, 5) == (1, 5, pytest.approx(2 * 7 / 64))
    # None of 10: 2 / 2**10.
    assert rows(10, 0) == (10, 0, pytest.approx(2 / 1024))
    assert rows(3, 3)[2] == pytest.approx(1.0) and rows(0, 0) == (0, 0, 1.0)
    assert rows(40, 61)[2] == pytest.approx(min(1.0, 2 * stats.binom.cdf(40, 101, 0.5)))


def test_the_bootstrap_of_a_mean_is_that_of_scipy():
    right = RANDOM.random(200) < 0.7
    model = RowResults("classification", ["a", "b"], {"true": np.ones(200, int), "predicted": right.astype(int)})
    low, high = interval(bootstrap([model])[0]["accuracy"])
    expected = stats.bootstrap((right,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.015)


def test_differences_of_models_on_the_same_rows():
    true = np.arange(120) % 2
    better, worse = true.copy(), true.copy()
    worse[:40] = 1 - worse[:40]
    better[:4] = 1 - better[:4]
    first, second, same = (
        RowResults("classification", ["a", "b"], {"true": true, "predicted": each}) for each in (worse, better, worse)
    )
    draws = bootstrap([first, second, same])
    found = {each.metric: each for each in differences(first, second, draws[0], draws[1])}
    assert list(found)[:2] == ["accuracy", "macro_f1"]
    accuracy = found["accuracy"]
    assert accuracy.difference == pytest.approx(36 / 120) and accuracy.test == "McNemar, exact"
    assert accuracy.p == pytest.approx(2 * 0.5**36) and 0.2 < accuracy.low < 0.3 < accuracy.high < 0.4
    # All 1,000 draws have the sign of the difference.
    assert found["mcc"].p == pytest.approx(2 / 1001) and found["mcc"].test == "bootstrap"
    # Draws of both models are of the same rows: two that are the same do not differ in any.
    for each in differences(first, same, draws[0], draws[2]):
        assert (each.difference, each.low, each.high, each.p) == (0, 0, 0, 1)


def test_large_tables_are_drawn_less_often():
    assert [resamples_for(rows) for rows in (1, 100_000, 400_000, 10**7)] == [1000, 1000, 500, 200]


def test_classes_in_another_order():
    one = RowResults("classification", ["a", "b"], {"true": np.array([0, 1, 1])})
    assert renamed(one, ["b", "c", "a"]).tolist() == [2, 0, 0] and renamed(one, ["a"]) is None
    several = RowResults("multi_label", ["a", "b"], {"true": np.array([[1, 0], [1, 1]], bool)})
    assert renamed(several, ["b", "a"]).tolist() == [[False, True], [True, True]] and renamed(several, ["a"]) is None


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "rows.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ModelError, match="cannot read .*rows.npz"):
        RowResults.load(tmp_path / "rows.npz")
