"""Evaluators against scikit-learn, SciPy and hand-worked cases; independence of batch size and row order."""

import math
import warnings
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from easytransfer.errors import ConfigError
from easytransfer.metrics import scores
from easytransfer.metrics.classification import ClassificationEvaluator, MultiLabelEvaluator
from easytransfer.metrics.collector import RowCollector
from easytransfer.metrics.exact_sum import ExactSum
from easytransfer.metrics.names import canonical_metric, choose_metric, higher_is_better
from easytransfer.metrics.regression import RegressionEvaluator
from easytransfer.run.atomic import write_json
from easytransfer.run.pictures import draw_pictures


def filled(evaluator, labels, logits, size=None):
    size = size or len(labels)
    for start in range(0, len(labels), size):
        rows = slice(start, start + size)
        evaluator.update({"label_id": labels[rows]}, {"logits": logits[rows]})
    return evaluator


def table(classes, rows=200, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)).astype(np.float32)
    logits[np.arange(rows), labels] += 1
    return labels, logits


# Single label ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_classification_agrees_with_scikit_learn(classes):
    labels, logits = table(classes)
    predicted, probabilities = logits.argmax(-1), scores.softmax(logits)
    result = filled(ClassificationEvaluator("abcdefg"[:classes]), labels, logits).result()
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "micro_f1": sk.f1_score(labels, predicted, average="micro"),
        "macro_f1": sk.f1_score(labels, predicted, average="macro"),
        "weighted_f1": sk.f1_score(labels, predicted, average="weighted"),
        "mcc": sk.matthews_corrcoef(labels, predicted),
        "loss": sk.log_loss(labels, probabilities),
    }
    if classes == 2:
        expected["auc"] = sk.roc_auc_score(labels, probabilities[:, 1])
        expected |= {name: getattr(sk, f"{name}_score")(labels, predicted) for name in ("f1", "precision", "recall")}
    else:
        expected["auc"] = sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    if classes > 5:
        expected["top_5_accuracy"] = sk.top_k_accuracy_score(labels, probabilities, k=5)
    assert set(result) == set(expected)
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-9), name
        assert type(result[name]) is float


def test_hand_worked_classification():
    # true 0 0 0 1 1 2, predicted 0 0 1 1 0 1: hits 2, 1, 0; F1 = 4/6, 2/5, 0
    logits = np.eye(3)[[0, 0, 1, 1, 0, 1]]
    evaluator = filled(ClassificationEvaluator(["x", "y", "z"]), np.array([0, 0, 0, 1, 1, 2]), logits)
    result = evaluator.result()
    assert result["accuracy"] == result["micro_f1"] == 0.5
    assert result["macro_f1"] == pytest.approx((2 / 3 + 2 / 5 + 0) / 3)
    assert result["weighted_f1"] == pytest.approx((3 * 2 / 3 + 2 * 2 / 5 + 0) / 6)
    assert evaluator.confusion().tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert evaluator.per_class()[1] == {
        "label": "y",
        "precision": pytest.approx(1 / 3),
        "recall": 0.5,
        "f1": pytest.approx(0.4),
        "support": 2,
        "predicted": 3,
    }
    assert evaluator.report()["rows"] == 6


def test_auc_uses_probabilities_not_decisions():
    """The original fed hard predictions: here every row is predicted 0, but the order is perfect."""
    logits = np.array([[5.0, 0], [4, 0], [3, 0], [2, 0]])
    result = filled(ClassificationEvaluator("ab"), np.array([0, 0, 1, 1]), logits).result()
    assert result["auc"] == 1.0 and result["recall"] == 0.0


def test_auc_of_saturated_probabilities_keeps_the_order():
    """softmax of these logits rounds to 1.0 for all rows; their order is still known."""
    logits = np.array([[0, 50.0], [0, 60.0], [0, 70.0]])
    assert filled(ClassificationEvaluator("ab"), np.array([0, 1, 1]), logits).result()["auc"] == 1.0


def test_one_class_in_the_table():
    logits = np.array([[1.0, 0], [0, 1]])
    result = filled(ClassificationEvaluator("ab"), np.array([0, 0]), logits).result()
    assert result["accuracy"] == 0.5 and math.isnan(result["auc"]) and result["mcc"] == 0.0


def test_absent_class_counts_zero_in_macro_f1_and_is_left_out_of_auc():
    labels, logits = table(2)
    wide = np.c_[logits, np.full(len(logits), -9.0)]
    narrow = filled(ClassificationEvaluator("ab"), labels, logits).result()
    result = filled(ClassificationEvaluator("abc"), labels, wide).result()
    assert result["macro_f1"] == pytest.approx(narrow["macro_f1"] * 2 / 3)
    predicted = wide.argmax(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert result["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro", labels=[0, 1, 2]))
    assert 0.5 < result["auc"] <= 1


def test_loss_is_finite_for_large_logits():
    result = filled(ClassificationEvaluator("ab"), np.array([1]), np.array([[3e4, -3e4]], np.float16)).result()
    assert result["loss"] == pytest.approx(6e4, rel=1e-3)


def test_bad_arrays_are_refused():
    evaluator = ClassificationEvaluator("ab")
    with pytest.raises(ValueError, match="label ids go from 0 to 2"):
        filled(evaluator, np.array([0, 2]), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"logits are \(2, 3\), expected \(2, 2\)"):
        filled(evaluator, np.array([0, 1]), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="there are 2 classes"):
        filled(MultiLabelEvaluator("ab"), np.zeros((2, 3)), np.zeros((2, 3)))


@pytest.mark.parametrize("evaluator", [ClassificationEvaluator("ab"), MultiLabelEvaluator("ab"), RegressionEvaluator()])
def test_no_rows_give_nan(evaluator):
    result = evaluator.result()
    assert set(result) == set(evaluator.names) and all(math.isnan(value) for value in result.values())


def test_without_auc_no_logits_are_kept():
    evaluator = filled(ClassificationEvaluator("ab", with_auc=False), *table(2))
    assert "auc" not in evaluator.result() and "logits" not in evaluator._parts
    with pytest.raises(ConfigError):
        ClassificationEvaluator("ab", with_auc=False, main_metric="auc")


# Several labels ----------------------------------------------------------------------------------------------


def multi_table(classes=5, rows=150, seed=1):
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, classes)) < 0.3).astype(np.float32)
    return labels, (rng.normal(size=(rows, classes)) + 1.5 * labels - 0.7).astype(np.float32)


def test_multi_label_agrees_with_scikit_learn():
    labels, logits = multi_table()
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    for threshold in (0.5, 0.3):
        predicted = probabilities > threshold
        evaluator = filled(MultiLabelEvaluator("abcde", threshold=threshold), labels, logits)
        result = evaluator.result()
        assert result["micro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="micro"))
        assert result["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
        assert result["mean_auc"] == pytest.approx(sk.roc_auc_score(labels, probabilities, average="macro"))
        assert result["subset_accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
        expected = -(labels * np.log(probabilities) + (1 - labels) * np.log(1 - probabilities)).mean()
        assert result["loss"] == pytest.approx(expected)
        precision, recall, f1, support = sk.precision_recall_fscore_support(labels, predicted, zero_division=0)
        for k, row in enumerate(evaluator.per_class()):
            assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((precision[k], recall[k], f1[k]))
            assert row["support"] == support[k] and row["predicted"] == predicted[:, k].sum()


def test_mean_auc_skips_classes_of_one_value():
    labels, logits = multi_table()
    labels[:, 0], labels[:, 1] = 0, 1
    result = filled(MultiLabelEvaluator("abcde"), labels, logits).result()
    assert result["mean_auc"] == pytest.approx(sk.roc_auc_score(labels[:, 2:], logits[:, 2:], average="macro"))
    assert math.isnan(filled(MultiLabelEvaluator("ab"), np.zeros((3, 2)), np.zeros((3, 2))).result()["mean_auc"])


def test_best_threshold_agrees_with_trying_all():
    labels, logits = multi_table()
    threshold, f1 = filled(MultiLabelEvaluator("abcde"), labels, logits).best_threshold()
    assert filled(MultiLabelEvaluator("abcde", threshold=threshold), labels, logits).result()["micro_f1"] == f1
    probabilities = scores.sigmoid(logits)
    tried = [sk.f1_score(labels, probabilities > t, average="micro") for t in np.r_[0, np.unique(probabilities)][:-1]]
    assert f1 == pytest.approx(max(tried))


def test_extreme_logits_of_several_labels_are_finite():
    result = filled(MultiLabelEvaluator("ab"), np.array([[1.0, 0]]), np.array([[-1e30, 1e4]])).result()
    assert result["loss"] == pytest.approx(5e29, rel=1e-5)


# One number --------------------------------------------------------------------------------------------------


def test_regression_agrees_with_scipy():
    rng = np.random.default_rng(2)
    true = np.round(rng.normal(size=120), 1)  # with ties
    predicted = (true + rng.normal(size=120))[:, None].astype(np.float32)
    result = filled(RegressionEvaluator(), true, predicted, 17).result()
    flat = predicted[:, 0].astype(np.float64)
    assert result["mse"] == result["loss"] == pytest.approx(sk.mean_squared_error(true, flat))
    assert result["mae"] == pytest.approx(sk.mean_absolute_error(true, flat))
    assert result["pearson"] == pytest.approx(stats.pearsonr(true, flat).statistic)
    assert result["spearman"] == pytest.approx(stats.spearmanr(true, flat).statistic)


def test_constant_predictions_have_correlation_zero():
    result = filled(RegressionEvaluator(), np.array([1.0, 2, 3]), np.full((3, 1), 2.0)).result()
    assert result == {
        "mse": pytest.approx(2 / 3),
        "mae": pytest.approx(2 / 3),
        "pearson": 0,
        "spearman": 0,
        "loss": result["mse"],
    }
    assert filled(RegressionEvaluator(), np.array([1.0]), np.array([2.0])).result()["pearson"] == 0


def test_not_finite_predictions_show_in_every_metric():
    result = filled(RegressionEvaluator(), np.array([1.0, 2, 3]), np.array([1.0, math.nan, math.inf])).result()
    assert all(math.isnan(value) or math.isinf(value) for value in result.values()), result


def test_tiny_and_huge_spreads_are_correlated_exactly():
    true = np.array([1.0, 2, 3, 4])
    for scale in (1e-200, 1e200):
        assert scores.pearson(true, true * scale) == pytest.approx(1)
        assert scores.pearson(true, -true * scale) == pytest.approx(-1)


def test_report_keeps_a_sample_of_the_rows():
    evaluator = filled(RegressionEvaluator(), np.arange(5000.0), np.arange(5000.0) + 1)
    pairs = evaluator.report()["pairs"]
    assert len(pairs["true"]) == 2000 and pairs["true"][0] == 0 and pairs["true"][-1] == 4999
    assert np.subtract(pairs["predicted"], pairs["true"]).tolist() == [1] * 2000


# Whatever the batches ----------------------------------------------------------------------------------------

CASES = {
    "binary": (lambda: ClassificationEvaluator("ab"), table(2, 60)),
    "classes": (lambda: ClassificationEvaluator("abcd"), table(4, 60)),
    "multi_label": (lambda: MultiLabelEvaluator("abcde"), multi_table(rows=60)),
    "regression": (RegressionEvaluator, (np.random.default_rng(3).normal(size=60), table(2, 60)[1][:, :1])),
}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, 59), max_size=8))
def test_result_does_not_depend_on_the_batches(case, cuts):
    make, (labels, logits) = CASES[case]
    whole, parts = filled(make(), labels, logits), make()
    for rows in np.split(np.arange(60), sorted(cuts)):
        parts.update({"label_id": labels[rows]}, {"logits": logits[rows]})
    assert parts.result() == whole.result()


@pytest.mark.parametrize("case", CASES)
def test_merged_workers_and_other_row_orders_agree(case):
    make, (labels, logits) = CASES[case]
    order = np.random.default_rng(5).permutation(60)
    first, second = order[:25], order[25:]
    merged = filled(make(), labels[first], logits[first], 8)
    merged.merge(filled(make(), labels[second], logits[second], 4).state())
    whole = filled(make(), labels, logits).result()
    assert merged.result() == pytest.approx(whole, abs=1e-15)
    assert merged.result()["loss"] == whole["loss"], "the sum of the losses is exact"


def test_batch_is_copied():
    """The engine may reuse its buffers."""
    labels, logits = table(2, 4)
    expected = filled(ClassificationEvaluator("ab"), labels, logits).result()
    evaluator = filled(ClassificationEvaluator("ab"), labels, logits)
    labels[:], logits[:] = 0, 0
    assert evaluator.result() == expected


# Scores ------------------------------------------------------------------------------------------------------


_FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64, max_value=1e300, min_value=-1e300)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(_FLOATS, max_size=9), max_size=9))
@example([[5e-324, -5e-324], [2.0**-1074 * 3], [1e300, 1.0, -1e300], []])
def test_exact_sum_is_that_of_the_fractions(parts):
    sums = [ExactSum() for _ in range(3)]
    for number, part in enumerate(parts):
        sums[number % 3].add(np.array(part))
    for other in sums[1:]:
        sums[0].merge(other)
    values = [value for part in parts for value in part]
    total, count = sum(map(Fraction, values), Fraction(0)), len(values)
    found = sums[0].mean()
    assert sums[0].count == count and (found == float(total) / count if count else math.isnan(found))
    expected = scores.exact_mean(np.array(values))
    assert found == expected or (math.isnan(found) and math.isnan(expected))


@pytest.mark.filterwarnings("ignore:invalid value")  # of NumPy, where infinities cancel
def test_exact_sum_of_what_is_not_finite_is_that_of_numpy():
    for values in ([1.0, math.inf], [math.inf, -math.inf, 1.0], [math.nan, 1.0], [-math.inf, 2.0]):
        total = ExactSum()
        for value in values:
            total.add(np.array([value]))
        np.testing.assert_equal(total.mean(), scores.exact_mean(np.array(values)))


def test_rows_are_collected_in_order_and_in_few_arrays():
    random, collector, expected = np.random.default_rng(3), RowCollector(), []
    for size in [0, 1, 1, *random.integers(0, 50, 300)]:
        part = random.normal(size=(size, 2))
        expected.append(part)
        collector.add(x=part, y=np.arange(size))
    assert all(len(parts) < 20 for parts in collector._parts.values())
    np.testing.assert_array_equal(collector.rows("x"), np.concatenate(expected))
    np.testing.assert_array_equal(collector.rows("y"), np.concatenate([np.arange(len(part)) for part in expected]))


def test_auc_of_many_rows_is_that_of_scikit_learn():
    random = np.random.default_rng(4)
    true, logits = random.integers(0, 3, 5000), np.round(random.normal(size=(5000, 3)), 1).astype(np.float32)
    score = logits[:, 0].astype(np.float64)
    assert scores.area_under_roc(true == 0, score) == pytest.approx(sk.roc_auc_score(true == 0, score), rel=1e-12)
    probability = scores.softmax(logits)
    # Probabilities are rounded, so that some ties of the exact ones are none.
    expected = sk.roc_auc_score(true, probability, multi_class="ovr", average="macro")
    assert scores.one_against_rest_area(true, logits) == pytest.approx(expected, abs=1e-5)
    assert math.isnan(scores.area_under_roc(true == 0, np.where(score > 0, np.nan, score)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=40))
def test_auc_is_the_share_of_ordered_pairs(rows):
    positive, score = np.array([p for p, _ in rows]), np.array([float(s) for _, s in rows])
    pairs = [(a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive]]
    found = scores.area_under_roc(positive, score)
    assert found == pytest.approx(np.mean(pairs)) if pairs else math.isnan(found)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=3, max_size=3))
def test_matthews_correlation_agrees_with_scikit_learn(counts):
    counts = np.array(counts)
    true, predicted = np.nonzero(counts >= 0)
    true, predicted = np.repeat(true, counts.reshape(-1)), np.repeat(predicted, counts.reshape(-1))
    if len(true):
        found = scores.class_counts(true, predicted, 3)
        sums = (np.diag(counts), counts.sum(axis=0), counts.sum(axis=1))
        assert [part.tolist() for part in found] == [part.tolist() for part in sums]
        assert scores.matthews_correlation(*found) == pytest.approx(sk.matthews_corrcoef(true, predicted), abs=1e-12)
        assert (scores.confusion_matrix(true, predicted, 3) == counts).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.permutations([0.1, 0.7, 1.3]) | st.lists(st.integers(-3, 3), min_size=3, max_size=3)
        ),
        min_size=2,
        max_size=8,
    ),
    st.lists(st.sampled_from([0.0, 1.0, -64.0, 0.25]), min_size=8, max_size=8),
)
def test_probabilities_equal_in_exact_arithmetic_are_ties(rows, shifts):
    true = np.array([label for label, _ in rows])
    logits = np.array([z for _, z in rows], np.float32)
    shifted = (logits + np.array(shifts[: len(rows)], np.float32)[:, None]).astype(np.float32)
    # A shift that rounds is another row.
    logits = np.where(shifted - np.array(shifts[: len(rows)])[:, None] == logits, shifted, logits).astype(np.float32)
    with localcontext() as context:
        context.prec = 60
        exact = [[Decimal(float(z)).exp() for z in row] for row in logits]
        shares = [[z / sum(row) for z in row] for row in exact]
        areas = []
        for k in range(3):
            pairs = [
                Decimal("0.5") if abs(a[k] - b[k]) < Decimal("1e-50") else Decimal(int(a[k] > b[k]))
                for a, one in zip(shares, true, strict=True)
                for b, other in zip(shares, true, strict=True)
                if one == k and other != k
            ]
            areas += [float(sum(pairs) / len(pairs))] if pairs else []
    found = scores.one_against_rest_area(true, logits)
    assert found == pytest.approx(np.mean(areas), abs=1e-12) if areas else math.isnan(found)


def test_rows_that_differ_in_the_order_of_other_logits_are_ties():
    random = np.random.default_rng(0)
    logits = random.normal(size=30).astype(np.float32)
    rows = np.array([[*logits[:2], *random.permutation(logits[2:])] for _ in range(100)], np.float32)
    assert len({float(row[0]) for row in scores.softmax(rows)}) > 1, "the last bit of the probabilities differs"
    assert scores.one_against_rest_area(np.arange(len(rows)) % 2, rows) == 0.5


def test_saturated_probabilities_of_many_classes_keep_their_order():
    logits = np.array([[60.0, 0, 0], [70, 0, 0], [80, 0, 0], [0, -90, 0]], np.float32)
    assert scores.one_against_rest_area(np.array([1, 0, 0, 1]), logits) == pytest.approx((1.0 + 0.5) / 2)


def test_many_classes_make_a_report_that_grows_with_the_rows(tmp_path):
    classes = 3000
    random = np.random.default_rng(0)
    true = random.integers(0, classes, 500)
    evaluator = ClassificationEvaluator([f"L{i}" for i in range(classes)])
    evaluator.update({"label_id": true}, {"logits": random.normal(size=(500, classes)).astype(np.float32)})
    result, report = evaluator.result(), evaluator.report()
    assert 0 <= result["accuracy"] < 0.1 and 0.3 < result["auc"] < 0.7
    assert "confusion" not in report and report["confusion_cells_left_out"] == 0
    assert sum(count for *_, count in report["confusion_cells"]) == 500
    write_json(tmp_path / "report.json", report)
    assert (tmp_path / "report.json").stat().st_size < 1e6
    assert "confusion_matrix.png" not in draw_pictures(tmp_path, report, "accuracy")


def test_cells_of_a_large_matrix_are_the_most_frequent_first(monkeypatch):
    true, predicted = np.array([250, 3, 250, 7, 250]), np.array([3, 3, 3, 7, 250])
    expected = [[250, 3, 2], [3, 3, 1], [7, 7, 1], [250, 250, 1]]
    found = scores.confusion_report(true, predicted, 251)
    assert found == {"confusion_cells": expected, "confusion_cells_left_out": 0}
    monkeypatch.setattr(scores, "MOST_CELLS", 1)
    found = scores.confusion_report(true, predicted, 251)
    assert found == {"confusion_cells": expected[:1], "confusion_cells_left_out": 3}
    assert scores.confusion_report(true[:0], predicted[:0], 2) == {"confusion": [[0, 0], [0, 0]]}
    for count in (scores.class_counts, scores.confusion_report):
        with pytest.raises(ValueError, match="label ids go from 3 to 250, there are 250 classes"):
            count(true, predicted, 250)


def test_sigmoid_and_softmax_without_overflow():
    with np.errstate(all="raise"):
        assert scores.sigmoid(np.array([-700.0, 0, 700])).tolist() == [pytest.approx(0, abs=1e-300), 0.5, 1]
    assert scores.softmax(np.array([[1e30, -1e30]])).tolist() == [[1, 0]]


# Names -------------------------------------------------------------------------------------------------------


def test_names_of_the_original_are_understood():
    pairs = {"py_accuracy": "accuracy", "py_micro_f1": "micro_f1", "py_macro_f1": "macro_f1", "MSE": "mse"}
    pairs |= {"py_weighted_f1": "weighted_f1", "matthew_corr": "mcc", "py_mean_auc": "mean_auc", "auc": "auc"}
    assert {name: canonical_metric(name) for name in pairs} == pairs
    assert not any(higher_is_better(name) for name in ("mse", "MSE", "loss", "mae", "eval_masked_lm_loss"))
    assert all(higher_is_better(name) for name in ("accuracy", "pearson", "matthew_corr"))


def test_main_metric_is_checked_at_the_start():
    assert ClassificationEvaluator("ab").main_metric == "accuracy"
    assert ClassificationEvaluator("ab", main_metric="matthew_corr").main_metric == "mcc"
    assert MultiLabelEvaluator("ab").main_metric == "micro_f1"
    regression = RegressionEvaluator()
    assert regression.main_metric == "mse" and not regression.higher_is_better
    assert RegressionEvaluator(main_metric="spearman").higher_is_better
    with pytest.raises(ConfigError, match="metric_for_best .*'accurcy'.*did you mean accuracy"):
        choose_metric("accurcy", ["accuracy", "loss"], "loss")
    with pytest.raises(ConfigError, match="'accuracy'"):
        RegressionEvaluator(main_metric="accuracy")
