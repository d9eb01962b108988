"""Dropout masks: statistics, and dependence on nothing but (seed, step, order of calls)."""

import numpy as np
import pytest
import tensorflow as tf

from easytransfer.layers.dropout import Dropout, dropout_seed


def masks(seed, shape=(200, 300), calls=1, rate=0.1):
    with dropout_seed(tf.constant(seed, tf.int32)):
        return [Dropout(rate)(tf.ones(shape), training=True).numpy() for _ in range(calls)]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_share_of_zeros_and_scale(rate):
    mask = masks([1, 2], rate=rate)[0]
    # 60,000 draws: the share of zeros lies within five standard deviations of the rate.
    assert abs((mask == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / mask.size)
    np.testing.assert_allclose(mask[mask > 0], 1 / (1 - rate), rtol=1e-6)


def test_elements_and_calls_are_independent():
    first, second = (mask > 0 for mask in masks([1, 2], calls=2, rate=0.5))
    for a, b in ((first, second), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_same_seed_repeats_and_another_step_or_seed_does_not():
    np.testing.assert_array_equal(masks([1, 2]), masks([1, 2]))
    for other in ([1, 3], [2, 2]):
        assert (masks([1, 2])[0] != masks(other)[0]).mean() > 0.1


def test_a_graph_repeats_the_masks_of_eager_mode():
    layer = Dropout(0.5)

    @tf.function
    def graph(seed):
        with dropout_seed(seed):
            return layer(tf.ones([50, 50]), training=True), layer(tf.ones([50, 50]), training=True)

    eager = masks([3, 4], (50, 50), calls=2, rate=0.5)
    for value, expected in zip(graph(tf.constant([3, 4])), eager, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_without_training_or_rate_nothing_happens():
    x = tf.random.stateless_normal([4, 4], [0, 0])
    assert Dropout(0.5)(x, training=False) is x
    assert Dropout(0.0)(x, training=True) is x


def test_gradient_passes_through_kept_elements_only():
    x = tf.Variable(tf.ones([100]))
    with tf.GradientTape() as tape, dropout_seed(tf.constant([0, 0])):
        y = Dropout(0.3)(x, training=True)
    np.testing.assert_allclose(tape.gradient(y, x), y.numpy())


def test_rate_is_checked():
    with pytest.raises(ValueError, match="rate"):
        Dropout(1.0)
