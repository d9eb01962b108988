"""Divergences, schedule, ensembles, metrics: the sheet's numbers, torch gradients, and what must always hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from appzoo.co_training.ensemble import combined
from appzoo.co_training.losses import jensen_shannon, pairwise_divergence, weight_of_epoch
from appzoo.co_training.metrics import EnsembleEvaluator

# Two images, two networks, three classes.
FIXTURE = np.array([[[2, 0, -1], [1, 1, 0]], [[0.5, 0.5, 0.5], [0, 1, 2]]], np.float32)
RANDOM = np.random.default_rng(5)


def random_logits(rows: int = 6, networks: int = 4, classes: int = 5, scale: float = 3.0) -> np.ndarray:
    return (scale * RANDOM.normal(size=(rows, networks, classes))).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    return -(probabilities * np.log(probabilities)).sum(axis=-1)


def test_published_values_of_the_divergences():
    assert float(tf.reduce_mean(jensen_shannon(FIXTURE))) == pytest.approx(0.08442199, abs=2e-7)
    assert 0.5 * float(tf.reduce_mean(pairwise_divergence(FIXTURE))) == pytest.approx(0.3545406, abs=2e-7)
    opposed = np.array([[[50, 0], [0, 50]]], np.float32)
    assert 0.5 * float(jensen_shannon(opposed)[0]) == pytest.approx(0.3465736, abs=2e-7)


@pytest.mark.parametrize(
    ("epoch", "weighted"), [(0, 0.00042211), (1, 0.00105527), (10, 0.01055275), (39, 0.04115572), (40, 0.042211)]
)
def test_published_values_of_the_schedule(epoch, weighted):
    divergence = tf.reduce_mean(jensen_shannon(FIXTURE))
    assert float(weight_of_epoch(tf.constant(epoch), 0.5, 40) * divergence) == pytest.approx(weighted, abs=5e-8)


def test_schedule_without_a_warm_up_or_a_weight():
    assert float(weight_of_epoch(tf.constant(100), 0.5, 40)) == 0.5
    assert float(weight_of_epoch(tf.constant(0), 0.5, 0)) == 0.5
    assert float(weight_of_epoch(tf.constant(3), 0.0, 40)) == 0.0
    assert float(weight_of_epoch(tf.constant(0), 0.002, 40)) == pytest.approx(0.002)


def test_jensen_shannon_is_the_difference_of_entropies():
    logits = random_logits()
    probabilities = softmax(logits)
    expected = entropy(probabilities.mean(axis=1)) - entropy(probabilities).mean(axis=1)
    np.testing.assert_allclose(jensen_shannon(logits), expected, atol=1e-6)


def test_jensen_shannon_is_symmetric_bounded_and_zero_for_equal_predictions():
    logits = random_logits(rows=500, scale=8.0)
    found = jensen_shannon(logits).numpy()
    np.testing.assert_allclose(jensen_shannon(logits[:, [2, 0, 3, 1]]), found, atol=1e-6)
    assert found.min() > -1e-6 and found.max() < math.log(4) + 1e-6
    # Equal predictions, not equal logits: a constant on each row changes nothing.
    equal = np.repeat(logits[:, :1], 4, axis=1) + RANDOM.normal(size=(500, 4, 1)).astype(np.float32)
    assert np.abs(jensen_shannon(equal)).max() < 1e-5
    assert np.abs(pairwise_divergence(equal)).max() < 1e-4
    # The bound is reached, and probabilities that float32 cannot hold do no harm.
    far = np.array([1e3 * np.eye(4)], np.float32)
    assert float(jensen_shannon(far)[0]) == pytest.approx(math.log(4), abs=1e-6)


def test_gradients_equal_torch():
    torch = pytest.importorskip("torch")
    logits = random_logits()
    weight = RANDOM.uniform(0, 1, 6)

    def js(z):
        p = torch.softmax(z, -1)
        mean = p.mean(1)
        return -(mean * mean.log()).sum(-1) + (p * p.log()).sum(-1).mean(1)

    def kl(z):
        p, total = torch.softmax(z, -1), 0
        for i in range(4):
            for j in range(4):
                if i != j:
                    total = total + (p[:, j].detach() * (p[:, j].detach().log() - p[:, i].log())).sum(-1)
        return total / 3

    for ours, theirs in ((jensen_shannon, js), (pairwise_divergence, kl)):
        z = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
        (theirs(z) * torch.tensor(weight)).sum().backward()
        x = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(ours(x) * weight.astype(np.float32))
        np.testing.assert_allclose(tape.gradient(total, x), z.grad.numpy(), atol=1e-5)


def test_ways_to_combine():
    np.testing.assert_allclose(combined(FIXTURE, "mean_logits"), [[1.5, 0.5, -0.5], [0.25, 0.75, 1.25]])
    np.testing.assert_allclose(combined(FIXTURE, "max_logits"), [[2, 1, 0], [0.5, 1, 2]])
    logits = random_logits()
    mean = softmax(logits).mean(axis=1)
    np.testing.assert_allclose(softmax(combined(logits, "mean_probabilities").numpy()), mean, atol=1e-6)
    # The geometric mean of the probabilities, normalised, is that of the mean of the logits.
    geometric = np.exp(np.log(softmax(logits)).mean(axis=1))
    geometric /= geometric.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(combined(logits, "mean_logits").numpy()), geometric, atol=1e-6)


def test_metrics_of_members_by_hand():
    evaluator = EnsembleEvaluator(list("abcdef"))
    # Rows: both right; first right; second right; none right, and the ensemble's sixth choice is the true class.
    members = np.zeros((4, 2, 6), np.float32)
    members[0, :, 1] = members[1, 0, 2] = members[2, 1, 3] = members[1, 1, 0] = members[2, 0, 0] = 1.0
    members[3] = [6, 5, 4, 3, 2, 1]
    true = np.array([1, 2, 3, 5])
    logits = members.mean(axis=1)
    logits[1, 2] += 0.1
    for rows in (slice(0, 3), slice(3, 4)):
        evaluator.update({"label_id": true[rows]}, {"logits": logits[rows], "member_logits": members[rows]})
    found = evaluator.result()
    assert (found["member_1_accuracy"], found["member_2_accuracy"], found["member_mean_accuracy"]) == (0.5, 0.5, 0.5)
    assert (found["disagreement"], found["accuracy"], found["top_5_accuracy"]) == (0.5, 0.5, 0.75)


def test_metrics_without_members_and_without_rows():
    alone = EnsembleEvaluator(["a", "b"])
    alone.update({"label_id": np.array([0, 1])}, {"logits": np.eye(2, dtype=np.float32)})
    assert alone.result()["accuracy"] == 1.0 and "disagreement" not in alone.result()
    assert "top_5_accuracy" not in alone.result()
    assert np.isnan(EnsembleEvaluator(["a", "b"]).result()["accuracy"])
