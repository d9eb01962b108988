"""Which source rows are kept: a policy that is rewarded by what the classifier gains on rows of the target."""

from __future__ import annotations

import tensorflow as tf

from easytransfer.losses.adversarial import cross_entropy_rows

_EPSILON = 1e-8


def states(features: tf.Tensor, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns what a policy sees of rows: features, loss, and class probabilities; float32, without gradient.

    Args:
        features: What the head reads, [rows, hidden].
        logits: What it answers, [rows, classes].
        labels: Class ids, int [rows].

    Returns:
        [rows, hidden + 1 + classes].
    """
    loss = cross_entropy_rows(labels, logits)[:, tf.newaxis]
    return tf.stop_gradient(tf.concat([features, loss, tf.nn.softmax(logits)], axis=-1))


def gains(
    features: tf.Tensor,
    labels: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    kept: tf.Tensor,
    source: tf.Tensor,
    held: tf.Tensor,
    rate: float,
) -> tf.Tensor:
    """Returns by how much the loss of rows held back falls when the dense layer makes a step on the rows kept.

    (L(W) - L(W - r g_k)) / r, with L the mean cross entropy of the rows held back, and g_k the gradient of the cross
    entropy of the rows of draw k, divided by all source rows: as in the training a row more takes nothing from others.

    Args:
        features: What the layer reads, [rows, hidden].
        labels: Class ids, int [rows]; any where a row is neither kept nor held.
        kernel: W, [hidden, classes].
        bias: Its bias, [classes].
        kept: 1 for the rows of each draw, float32 [rows, draws].
        source: 1 for source rows, 0 for others, float32 [rows].
        held: 1 for the rows held back, float32 [rows].
        rate: r.

    Returns:
        float32 [draws], without gradient.
    """
    logits = tf.matmul(features, kernel) + bias
    error = tf.nn.softmax(logits) - tf.one_hot(labels, tf.shape(logits)[-1])
    share = tf.math.divide_no_nan(kept, tf.reduce_sum(source))
    kernels = kernel - rate * tf.einsum("nk,nh,nc->khc", share, features, error)
    biases = bias - rate * tf.einsum("nk,nc->kc", share, error)
    after = tf.einsum("nh,khc->knc", features, kernels) + biases[:, tf.newaxis]

    def score(values: tf.Tensor) -> tf.Tensor:
        """Returns the mean cross entropy of the rows held back, for logits [..., rows, classes]."""
        true = tf.one_hot(labels, tf.shape(values)[-1])
        rows = -tf.reduce_sum(tf.nn.log_softmax(values) * true, axis=-1)
        return tf.math.divide_no_nan(tf.reduce_sum(rows * held, axis=-1), tf.reduce_sum(held))

    return tf.stop_gradient((score(logits) - score(after)) / rate)


def likeness(logits: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Returns the mean of -log(1 - d) over the rows kept, float32 [draws], 0 where none is; without gradient.

    What the selector of MGTL maximises: rows that the discriminator takes for those of the target.

    Args:
        logits: Logits of d, [rows].
        kept: 1 for the rows of each draw, float32 [rows, draws].
    """
    each = tf.nn.softplus(logits)[:, tf.newaxis]
    return tf.stop_gradient(tf.math.divide_no_nan(tf.reduce_sum(each * kept, axis=0), tf.reduce_sum(kept, axis=0)))


def standardised(values: tf.Tensor) -> tf.Tensor:
    """Returns values [draws] less their mean, over their deviation."""
    off = values - tf.reduce_mean(values)
    return off / (tf.sqrt(tf.reduce_mean(tf.square(off))) + _EPSILON)


def policy_loss(logits: tf.Tensor, actions: tf.Tensor, source: tf.Tensor, advantage: tf.Tensor) -> tf.Tensor:
    """Returns -mean_k A_k log pi(a_k), a scalar: its gradient is that of REINFORCE.

    Args:
        logits: Of the probability to keep a row, [rows].
        actions: Whether each draw keeps it, float32 [rows, draws].
        source: 1 for source rows, 0 for others, float32 [rows].
        advantage: A, float32 [draws].
    """
    every = tf.broadcast_to(logits[:, tf.newaxis], tf.shape(actions))
    logs = -tf.nn.sigmoid_cross_entropy_with_logits(actions, every) * source[:, tf.newaxis]
    return -tf.reduce_mean(tf.stop_gradient(advantage) * tf.reduce_sum(logs, axis=0))
