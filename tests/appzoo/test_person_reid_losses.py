"""Losses of re-identification against NumPy formulas of the sheet, and the BNNeck network against torch."""

import numpy as np
import pytest
import tensorflow as tf

from appzoo.person_reid.config import ReidSettings
from appzoo.person_reid.losses import batch_hard_triplet, distances, invariance, smoothed_cross_entropy
from appzoo.person_reid.network import ReidNetwork


def mean(loss) -> float:
    return float(loss.sum / loss.weight)


def test_smoothed_cross_entropy_is_the_formula():
    random = np.random.default_rng(0)
    logits, labels = random.normal(0, 3, (7, 5)), random.integers(0, 5, 7)
    weights = np.array([1, 1, 0, 1, 1, 0, 1])
    log_shares = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = 0.9 * np.eye(5)[labels] + 0.1 / 5
    each = -(target * log_shares).sum(1)
    labels[5] = -1  # of weight 0: not looked at
    found = smoothed_cross_entropy(tf.constant(logits, tf.float32), tf.constant(labels), np.float32(weights), 0.1)
    assert mean(found) == pytest.approx((each * weights).sum() / weights.sum(), abs=1e-5)
    assert float(found.weight) == 5


def triplet_by_loops(features, labels, weights, margin):
    total, count = 0.0, 0
    for a in range(len(features)):
        apart = {
            j: np.sqrt(max(np.sum((features[a] - features[j]) ** 2), 1e-12))
            for j in range(len(features))
            if j != a and weights[a] and weights[j]
        }
        positives = [d for j, d in apart.items() if labels[j] == labels[a]]
        negatives = [d for j, d in apart.items() if labels[j] != labels[a]]
        if positives and negatives:
            total, count = total + max(max(positives) - min(negatives) + margin, 0), count + 1
    return total, count


@pytest.mark.parametrize("margin", [0.3, 5.0])
def test_batch_hard_triplets_are_those_that_loops_find(margin):
    random = np.random.default_rng(1)
    features, labels = random.normal(size=(12, 6)).astype(np.float32), np.repeat([4, 1, 7, 7], 3)
    weights = np.float32([1] * 12)
    weights[[2, 5]] = 0
    labels[9] = 99  # no positive
    expected = triplet_by_loops(features.astype(np.float64), labels, weights, margin)
    found = batch_hard_triplet(tf.constant(features), tf.constant(labels), tf.constant(weights), margin)
    np.testing.assert_allclose([found.sum, found.weight], expected, atol=1e-5)


def test_triplets_of_equal_features_have_finite_gradients_and_one_identity_has_none():
    features = tf.Variable(tf.zeros([4, 3]))
    with tf.GradientTape() as tape:
        loss = batch_hard_triplet(features, tf.constant([0, 0, 1, 1]), tf.ones(4), 0.3)
    assert np.isfinite(tape.gradient(loss.sum, features).numpy()).all() and mean(loss) == pytest.approx(0.3, abs=1e-5)
    alone = batch_hard_triplet(features, tf.constant([2, 2, 2, 2]), tf.ones(4), 0.3)
    assert (float(alone.sum), float(alone.weight)) == (0, 0)


def test_distances_and_invariance_are_the_formulas():
    random = np.random.default_rng(2)
    one, other = random.normal(size=(2, 5, 4))
    expected = np.sqrt(((one[:, None] - one[None]) ** 2).sum(-1))
    np.testing.assert_allclose(distances(tf.constant(one, tf.float32)), expected, atol=2e-3)
    weights = np.float32([1, 0, 1, 1, 0])
    apart = [(a / np.linalg.norm(a) - b / np.linalg.norm(b)) for a, b in zip(one, other, strict=True)]
    expected = (np.square(apart).sum(1) * weights).sum() / 3
    found = invariance(tf.constant(one, tf.float32), tf.constant(other, tf.float32), tf.constant(weights))
    assert mean(found) == pytest.approx(expected, abs=1e-5)


def test_neck_is_batch_normalisation_without_a_shift_and_the_classifier_has_no_bias():
    settings = ReidSettings(network="tiny", image_size=[32, 16])
    network = ReidNetwork(settings, None, identities=3, seed=0)
    images = np.random.default_rng(3).integers(0, 256, (6, 32, 16, 3)).astype(np.uint8)
    outputs = network(images, training=True)
    trained = outputs["feature"].numpy().astype(np.float64)
    np.testing.assert_allclose(outputs["neck"], (trained - trained.mean(0)) / np.sqrt(trained.var(0) + 1e-5), atol=1e-4)
    # The moving statistics go a tenth of the way, as with momentum 0.1 in PyTorch.
    np.testing.assert_allclose(network.neck.moving_mean, 0.1 * trained.mean(0), atol=1e-5)
    np.testing.assert_allclose(network.neck.moving_variance, 0.9 + 0.1 * trained.var(0), atol=1e-5)
    assert [v.name for v in network.neck.trainable_variables] == ["reid/neck/gamma:0"]
    assert [v.name for v in network.classifier.trainable_variables] == ["reid/classifier/kernel:0"]
    assert np.std(network.classifier.kernel) == pytest.approx(1e-3, rel=0.3)
    embedded = network.embed(images).numpy()
    neck = network(images)["neck"].numpy()
    np.testing.assert_allclose(embedded, neck / np.linalg.norm(neck, axis=1, keepdims=True), atol=1e-6)


def test_unit_pixels_are_the_bytes_they_are_made_of():
    settings = ReidSettings(network="tiny", image_size=[32, 16])
    network = ReidNetwork(settings, None, identities=3, seed=0)
    images = np.random.default_rng(3).integers(0, 256, (2, 32, 16, 3)).astype(np.uint8)
    np.testing.assert_allclose(network.embed(images), network.embed(np.float32(images / 255)), atol=1e-5)


def test_a_backbone_has_its_last_stage_at_stride_one():
    from appzoo.person_reid.network import body_shape

    assert body_shape(ReidSettings()).strides == (1, 2, 2, 1)
    assert body_shape(ReidSettings(last_stride=2)).strides == (1, 2, 2, 2)
    assert body_shape(ReidSettings(network="tiny")) is None
