"""Losses of vision-language pre-training against NumPy in float64 and hand-worked cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from appzoo.vl_pretraining.losses import adaptive_weights, class_loss, feature_loss, pointer_loss


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def test_classes_are_weighted_by_confidence_in_the_sum_alone():
    random = np.random.default_rng(1)
    logits = random.normal(size=[3, 4, 5]).astype(np.float32)
    labels = random.integers(0, 5, [3, 4]).astype(np.int32)
    selected = np.float32([[1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0]])
    labels[selected == 0] = -1
    conf = random.uniform(size=[3, 4]).astype(np.float32)
    nll = -np.take_along_axis(log_softmax(logits), np.maximum(labels, 0)[..., None], -1)[..., 0]
    right = (logits.argmax(-1) == labels) * selected
    for confidence in (None, conf):
        found = class_loss(logits, labels, selected, confidence)
        scale = selected if confidence is None else selected * conf
        np.testing.assert_allclose(found.sum, (nll * scale).sum(1), rtol=1e-5)
        np.testing.assert_array_equal(found.weight, [2, 3, 0])
        np.testing.assert_array_equal(found.right, right.sum(1))


def test_features():
    random = np.random.default_rng(2)
    predicted, wanted = (random.normal(size=[2, 3, 4]) * 2 for _ in range(2))
    selected = np.float32([[1, 0, 1], [0, 0, 1]])
    apart = predicted - wanted
    smooth = np.where(np.abs(apart) < 1, apart**2 / 2, np.abs(apart) - 0.5).mean(-1)
    p, q = log_softmax(wanted), log_softmax(predicted)
    by_hand = {"smooth_l1": smooth, "mse": (apart**2).mean(-1), "kl": (np.exp(p) * (p - q)).sum(-1)}
    for kind, value in by_hand.items():
        found = feature_loss(kind, tf.constant(predicted, tf.float32), tf.constant(wanted, tf.float32), selected)
        np.testing.assert_allclose(found.sum, (value * selected).sum(1), rtol=1e-5)
        np.testing.assert_array_equal(found.weight, [2, 1])
    equal = feature_loss("kl", tf.constant(wanted), tf.constant(wanted), selected)
    np.testing.assert_allclose(equal.sum, 0, atol=1e-6)


def test_pointers_share_targets_and_see_no_padding():
    random = np.random.default_rng(4)
    scores = random.normal(size=[2, 3, 4]).astype(np.float32)
    scores[:, :, 3] = 9  # padding
    regions = np.zeros([2, 3, 4], np.float32)
    regions[0, 0, [0, 2]] = regions[0, 1, 1] = regions[1, 2, 0] = 1
    mask = np.int32([[1, 1, 1, 0]] * 2)
    found = pointer_loss(scores, regions, mask)
    p = np.exp(log_softmax(scores[:, :, :3]))
    pointed = (p * regions[:, :, :3]).sum(-1)
    assert float(found.sum[0]) == pytest.approx(-np.log(pointed[0, :2]).sum(), rel=1e-5)
    assert float(found.sum[1]) == pytest.approx(-np.log(pointed[1, 2]), rel=1e-5)
    np.testing.assert_array_equal(found.weight, [2, 1])
    best = scores[:, :, :3].argmax(-1)
    right = [int(best[0, 0] in (0, 2)) + int(best[0, 1] == 1), int(best[1, 2] == 0)]
    np.testing.assert_array_equal(found.right, np.float32(right))


def test_pointer_gradients_are_finite_where_nothing_is_pointed_to():
    scores = tf.Variable(tf.random.stateless_normal([2, 3, 4], [1, 2]))
    with tf.GradientTape() as tape:
        found = pointer_loss(scores, tf.zeros([2, 3, 4]), tf.zeros([2, 4], tf.int32))
    assert float(tf.reduce_sum(found.sum)) == 0
    np.testing.assert_array_equal(tape.gradient(found.sum, scores), np.zeros([2, 3, 4]))


def test_adaptive_weights_are_those_of_the_products():
    for losses in ([0.2, 3.0, 1.0], [5.0, 5.0], [0.1, 0.7, 2.0, 1.5, 0.3]):
        n = len(losses)
        g = (np.exp(losses) / np.exp(losses).sum()) ** 2
        products = np.array([np.prod([n - g[j] for j in range(n) if j != k]) for k in range(n)])
        np.testing.assert_allclose(adaptive_weights(tf.constant(losses)), products / products.sum(), rtol=1e-5)


def test_adaptive_weights_have_no_gradient():
    losses = tf.Variable([0.2, 3.0, 1.0])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(adaptive_weights(losses) * losses)
    np.testing.assert_allclose(tape.gradient(total, losses), adaptive_weights(losses), rtol=1e-6)
    assert all(a < b for a, b in itertools.pairwise(adaptive_weights(tf.constant([1.0, 2.0, 3.0])).numpy()))
