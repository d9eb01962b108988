"""The original's further metric functions, exact over the data set, against scikit-learn and plain loops."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics as sk

from easytransfer.compat import evaluators

RNG = np.random.default_rng(5)
ROWS = 37


def measure(build, *arrays, sizes=(16, 37, 5)):
    """Computes metrics as the runner does, traced once and fetched per batch; the batch size must not matter."""
    results = []
    for size in sizes:
        traced = {}

        @tf.function(reduce_retracing=True)
        def step(*inputs):
            traced["metrics"] = build(*inputs)  # noqa: B023
            return evaluators.fetches(traced["metrics"])  # noqa: B023

        collector = None
        for start in range(0, ROWS, size):
            outputs = step(*(tf.nest.map_structure(lambda x: tf.constant(x[start : start + size]), a) for a in arrays))  # noqa: B023
            collector = collector or evaluators.MetricCollector(traced["metrics"])
            collector.update({}, {name: value.numpy() for name, value in outputs.items()})
        results.append(collector.result())
    for other in results[1:]:
        assert other == pytest.approx(results[0], rel=1e-6)
    return results[0]


LABELS = RNG.integers(0, 2, ROWS)
LOGITS = (RNG.normal(size=(ROWS, 2)) + np.eye(2)[LABELS]).astype(np.float32)
LABELS3 = RNG.integers(0, 3, ROWS)
LOGITS3 = (RNG.normal(size=(ROWS, 3)) + np.eye(3)[LABELS3]).astype(np.float32)


def test_matthews_correlation():
    found = measure(evaluators.matthew_corr_metrics, LOGITS, LABELS)
    assert found == {"matthew_corr": pytest.approx(sk.matthews_corrcoef(LABELS, LOGITS.argmax(1)))}
    found = measure(evaluators.matthew_corr_metrics, LOGITS3, LABELS3)
    assert found["matthew_corr"] == pytest.approx(sk.matthews_corrcoef(LABELS3, LOGITS3.argmax(1)))


def test_match_of_two_classes():
    found = measure(lambda x, y: evaluators.match_eval_metrics(x, y, 2), LOGITS, LABELS[:, None])
    predicted = LOGITS.argmax(1)
    assert found == {
        "accuracy": pytest.approx(sk.accuracy_score(LABELS, predicted)),
        "auc": pytest.approx(sk.roc_auc_score(LABELS, LOGITS[:, 1] - LOGITS[:, 0])),
        "f1": pytest.approx(sk.f1_score(LABELS, predicted)),
    }


def test_original_auc_of_predicted_classes_is_not_the_auc():
    found = measure(lambda x, y: evaluators.match_eval_metrics(x, y, 2), LOGITS, LABELS)
    assert abs(found["auc"] - sk.roc_auc_score(LABELS, LOGITS.argmax(1))) > 0.01


def test_match_of_three_classes_and_of_a_score():
    found = measure(lambda x, y: evaluators.match_eval_metrics(x, y, 3), LOGITS3, LABELS3)
    predicted = LOGITS3.argmax(1)
    assert found == {
        "accuracy": pytest.approx(sk.accuracy_score(LABELS3, predicted)),
        "micro_f1": pytest.approx(sk.f1_score(LABELS3, predicted, average="micro")),
        "macro_f1": pytest.approx(sk.f1_score(LABELS3, predicted, average="macro")),
    }
    score = RNG.normal(size=ROWS).astype(np.float32)
    found = measure(lambda x, y: evaluators.match_eval_metrics(x, y, 1), LOGITS[:, :1], score)
    assert found == {"mse": pytest.approx(sk.mean_squared_error(score, LOGITS[:, 0]), rel=1e-5)}


@pytest.mark.parametrize("as_list", [False, True])
def test_match_of_two_towers(as_list):
    similarity = RNG.uniform(-1, 1, ROWS).astype(np.float32)
    similarity[:3] = 0.5
    build = lambda x, y: evaluators.match_eval_metrics([x, y] if as_list else x, y, 2)  # noqa: E731
    found = measure(build, similarity, LABELS)
    predicted = (similarity > 0.5).astype(int)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(LABELS, predicted))
    assert found["f1"] == pytest.approx(sk.f1_score(LABELS, predicted))
    assert found["auc"] == pytest.approx(sk.roc_auc_score(LABELS, similarity))


def test_tag_accuracy_leaves_out_unlabelled_positions():
    labels = RNG.integers(-1, 4, (ROWS, 6))
    logits = RNG.normal(size=(ROWS, 6, 4)).astype(np.float32)
    found = measure(lambda x, y: evaluators.sequence_labeling_eval_metrics(x, y, 4), logits, labels)
    real = labels >= 0
    assert found == {"accuracy": pytest.approx(sk.accuracy_score(labels[real], logits.argmax(-1)[real]))}
    with pytest.raises(ValueError, match="logits have 4 classes, 5 were declared"):
        evaluators.sequence_labeling_eval_metrics(tf.constant(logits), labels, 5)


def best_span(start, end, count):
    """Straight from the definition."""
    best, found = -np.inf, (-1, -1)
    for i in np.argsort(-start, kind="stable")[:count]:
        for j in np.argsort(-end, kind="stable")[:count]:
            if i <= j and start[i] + end[j] > best:
                best, found = start[i] + end[j], (i, j)
    return found


@pytest.mark.parametrize("count", [20, 3, 1])
def test_spans(count):
    start, end = (RNG.normal(size=(ROWS, 12)).astype(np.float32) for _ in range(2))
    spans = np.array([best_span(s, e, count) for s, e in zip(start, end, strict=True)])
    truth = np.where(RNG.random((ROWS, 2)) < 0.6, spans, RNG.integers(0, 12, (ROWS, 2)))
    expected = {
        "start_accuracy": (truth[:, 0] == spans[:, 0]).mean(),
        "end_accuracy": (truth[:, 1] == spans[:, 1]).mean(),
        "accuracy": (truth == spans).all(1).mean(),
    }
    for column in (False, True):
        places = tuple(truth[:, side, None] if column else truth[:, side] for side in (0, 1))
        found = measure(lambda x, y: evaluators.comprehension_eval_metrics(x, y, count), (start, end), places)
        assert found == pytest.approx(expected)


def test_probes():
    layers = tuple(RNG.normal(size=(ROWS, 3)).astype(np.float32) for _ in range(4))
    found = measure(lambda x, y: evaluators.teacher_probes_eval_metrics(x, y, 3), layers, LABELS3)
    assert found == {
        f"accuracy_layer_{i}": pytest.approx(sk.accuracy_score(LABELS3, logits.argmax(1)))
        for i, logits in enumerate(layers)
    }


def test_pretraining_metrics():
    ids, weights = RNG.integers(0, 9, (ROWS, 4)), (RNG.random((ROWS, 4)) < 0.7).astype(np.float32)
    logits = (RNG.normal(size=(ROWS, 4, 9)) + 2 * np.eye(9)[ids]).astype(np.float32)
    build = lambda x, y, w: evaluators.masked_language_model_eval_metrics(x, y, w, 9)  # noqa: E731
    found = measure(build, logits, ids, weights)
    real = weights > 0
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = -np.take_along_axis(log_p, ids[..., None], -1)[..., 0]
    assert found == {
        "eval_masked_lm_accuracy": pytest.approx(sk.accuracy_score(ids[real], logits.argmax(-1)[real])),
        "eval_masked_lm_loss": pytest.approx(loss[real].mean(), rel=1e-5),
    }
    flat = lambda x, y, w: evaluators.masked_language_model_eval_metrics(tf.reshape(x, [-1, 9]), y, w, 9)  # noqa: E731
    assert measure(flat, logits, ids, weights) == pytest.approx(found)
    found = measure(evaluators.next_sentence_prediction_eval_metrics, LOGITS, LABELS[:, None])
    assert found == {"next_sentence_accuracy": pytest.approx(sk.accuracy_score(LABELS, LOGITS.argmax(1)))}


def test_original_both_pretraining_metrics_together_are_returned():
    """The original's function for both tasks at once computed its metrics and returned nothing."""
    ids, weights = RNG.integers(0, 9, (ROWS, 4)), np.ones((ROWS, 4), np.float32)
    logits = RNG.normal(size=(ROWS, 4, 9)).astype(np.float32)

    def both(lm, ids, weights, sentences, labels):
        return {
            **evaluators.masked_language_model_eval_metrics(lm, ids, weights, 9),
            **evaluators.next_sentence_prediction_eval_metrics(sentences, labels),
        }

    found = measure(both, logits, ids, weights, LOGITS, LABELS)
    assert set(found) == {"eval_masked_lm_accuracy", "eval_masked_lm_loss", "next_sentence_accuracy"}
    assert all(np.isfinite(value) for value in found.values())


def test_losses_are_better_when_lower():
    metric = evaluators.mean_eval_metric("eval_masked_lm_loss", tf.ones([2]))
    assert evaluators.MetricCollector(metric).higher_is_better is False
