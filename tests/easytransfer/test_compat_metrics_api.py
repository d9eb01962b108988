"""The original's metric functions, traced in a `tf.function` as `build_eval_metrics` is."""

import math

import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics as sk

from easytransfer.compat import evaluators
from easytransfer.errors import ConfigError

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 50)
LOGITS = (RNG.normal(size=(50, 3)) + np.eye(3)[LABELS]).astype(np.float32)


def run(build, logits, labels, main_metric=None, size=16):
    """Does what the runner does: trace once, fetch per batch, compute at the end."""
    traced = {}

    @tf.function(reduce_retracing=True)
    def step(logits, labels):
        traced["metrics"] = build(logits, labels)
        return evaluators.fetches(traced["metrics"])

    collector = None
    for start in range(0, len(labels), size):
        rows = slice(start, start + size)
        outputs = {
            name: value.numpy() for name, value in step(tf.constant(logits[rows]), tf.constant(labels[rows])).items()
        }
        collector = collector or evaluators.MetricCollector(traced["metrics"], main_metric)
        collector.update({}, outputs)
    return collector, outputs


def test_classification_metrics_keep_their_names():
    collector, outputs = run(lambda x, y: evaluators.classification_eval_metrics(x, y, 3), LOGITS, LABELS)
    assert len(outputs) == 2, "four metrics fetch the same two tensors"
    predicted = LOGITS.argmax(-1)
    assert collector.result() == {
        "py_accuracy": pytest.approx(sk.accuracy_score(LABELS, predicted)),
        "py_micro_f1": pytest.approx(sk.f1_score(LABELS, predicted, average="micro")),
        "py_macro_f1": pytest.approx(sk.f1_score(LABELS, predicted, average="macro")),
        "py_weighted_f1": pytest.approx(sk.f1_score(LABELS, predicted, average="weighted")),
    }
    assert collector.main_metric == "py_accuracy" and collector.higher_is_better


@pytest.mark.parametrize("asked", ["macro_f1", "py_macro_f1"])
def test_best_metric_by_either_name(asked):
    build = lambda x, y: evaluators.classification_eval_metrics(x, y, 3)  # noqa: E731
    assert run(build, LOGITS, LABELS, asked)[0].main_metric == "py_macro_f1"
    with pytest.raises(ConfigError, match="'auc'"):
        run(build, LOGITS, LABELS, "auc")


def test_multi_label_metrics_read_padded_ids_and_multi_hot():
    ids = np.array([[0, -1], [2, 1], [-1, -1], [1, 1]])
    hot = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 1, 0]], np.float32)
    logits = RNG.normal(size=(4, 3)).astype(np.float32)
    build = lambda x, y: evaluators.multi_label_eval_metrics(x, y, 3)  # noqa: E731
    result = run(build, logits, ids, size=3)[0].result()
    assert result == run(build, logits, hot)[0].result()
    assert result["py_micro_f1"] == pytest.approx(sk.f1_score(hot, logits > 0, average="micro", zero_division=0))
    assert set(result) == {"py_micro_f1", "py_macro_f1", "py_mean_auc"}


def test_regression_metric_picks_the_lowest():
    values, labels = LOGITS[:, :1], LABELS.astype(np.float32)
    build = lambda x, y: evaluators.regression_eval_metrics(x, y, ("mse", "pearson"))  # noqa: E731
    collector, _ = run(build, values, labels)
    assert collector.result()["mse"] == pytest.approx(((values[:, 0] - labels) ** 2).mean())
    assert collector.main_metric == "mse" and not collector.higher_is_better


def test_own_means_beside_standard_metrics():
    def build(logits, labels):
        right = tf.cast(tf.equal(tf.argmax(logits, -1), tf.cast(labels, tf.int64)), tf.float32)
        weight = tf.cast(labels > 0, tf.float32)
        return {
            **evaluators.mean_eval_metric("accuracy_not_0", right, weight),
            **evaluators.mean_eval_metric("mean_logit", logits),
            **evaluators.classification_eval_metrics(logits, labels, 3),
        }

    result = run(build, LOGITS, LABELS)[0].result()
    assert result["accuracy_not_0"] == pytest.approx((LOGITS.argmax(-1) == LABELS)[LABELS > 0].mean())
    assert result["mean_logit"] == pytest.approx(LOGITS.mean(), abs=1e-6)
    empty = evaluators.MetricCollector(evaluators.mean_eval_metric("x", None))
    assert math.isnan(empty.result()["x"])


def test_unknown_names_and_no_metrics_are_refused():
    with pytest.raises(ConfigError, match="no classification metric.*'f2'"):
        evaluators.classification_eval_metrics(None, None, 3, ("f2",))
    with pytest.raises(ConfigError, match="returned no metrics"):
        evaluators.MetricCollector({})
