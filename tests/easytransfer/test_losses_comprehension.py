"""The span loss against NumPy, and the original's shape defect."""

import numpy as np
import pytest
import tensorflow as tf

from easytransfer.losses.comprehension import comprehension_loss, span_cross_entropy_sum

RANDOM = np.random.default_rng(0)
START, END = RANDOM.normal(size=(2, 5, 7)).astype(np.float32)
STARTS, ENDS = np.array([0, 3, 6, 2, 0]), np.array([0, 4, 6, 5, 0])


def oracle(rows):
    """-1/2 log of the probabilities of the right start and end, one value per example."""

    def loss(logits, position):
        return -(logits[position] - np.log(np.exp(logits.astype(np.float64)).sum()))

    return np.array([(loss(START[i], STARTS[i]) + loss(END[i], ENDS[i])) / 2 for i in rows])


@pytest.mark.parametrize("shape", [[5], [5, 1]])
def test_sum_and_mean_against_numpy(shape):
    starts, ends = (tf.constant(positions.reshape(shape), tf.int32) for positions in (STARTS, ENDS))
    weight = np.array([1, 0.5, 0, 2, 1], np.float32)
    total = span_cross_entropy_sum(starts, ends, START, END, weight)
    np.testing.assert_allclose(total, (oracle(range(5)) * weight).sum(), rtol=1e-6)
    np.testing.assert_allclose(comprehension_loss((START, END), (starts, ends)), oracle(range(5)).mean(), rtol=1e-6)
    weighted = comprehension_loss((START, END), (starts, ends), weight)
    np.testing.assert_allclose(weighted, (oracle(range(5)) * weight).sum() / weight.sum(), rtol=1e-6)


def test_original_loss_mixed_the_examples_of_a_batch():
    """Positions [B, 1] became one-hot [B, 1, L] and met log softmax [B, L]: every example with every other."""
    column = (tf.constant(STARTS[:, None], tf.int32), tf.constant(ENDS[:, None], tf.int32))
    found = comprehension_loss((START, END), column).numpy()

    def mixed(logits, positions):
        log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        one_hot = np.eye(7)[positions[:, None]]
        return -(one_hot * log_softmax).sum(axis=-1).mean()

    wrong = (mixed(START, STARTS) + mixed(END, ENDS)) / 2
    assert abs(found - oracle(range(5)).mean()) < 1e-6 < abs(found - wrong)
    # The loss of one example does not change with its neighbours.
    variable = tf.Variable(START)
    with tf.GradientTape() as tape:
        loss = span_cross_entropy_sum(*column, variable, END, np.array([1, 0, 0, 0, 0], np.float32))
    gradient = tape.gradient(loss, variable).numpy()
    assert np.abs(gradient[0]).max() > 0 and not gradient[1:].any()


def test_gradient_against_differences():
    logits = tf.Variable(START)
    with tf.GradientTape() as tape:
        loss = span_cross_entropy_sum(STARTS, ENDS, logits, END, np.ones(5, np.float32))
    gradient = tape.gradient(loss, logits).numpy()
    softmax = np.exp(START) / np.exp(START).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, (softmax - np.eye(7)[STARTS]) / 2, atol=1e-6)
