"""Losses of re-identification, each as a sum over rows and a weight that depends on the labels alone."""

from __future__ import annotations

import tensorflow as tf

from easytransfer.train.step import Loss

# Of squared distances, so that the root of 0 has a gradient.
_LEAST_SQUARE = 1e-12


def smoothed_cross_entropy(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, smoothing: float) -> Loss:
    """Returns the cross entropy with targets (1 - eps) * onehot + eps / classes.

    Args:
        logits: [rows, classes].
        labels: Class of each row, int [rows]; of rows of weight 0 it is not looked at.
        weights: Of the rows, float32 [rows].
        smoothing: eps.
    """
    log_shares = tf.nn.log_softmax(logits)
    own = tf.gather(log_shares, tf.maximum(labels, 0), batch_dims=1)
    each = (1 - smoothing) * own + smoothing * tf.reduce_mean(log_shares, axis=-1)
    return Loss(-tf.reduce_sum(each * weights), tf.reduce_sum(weights))


def distances(features: tf.Tensor) -> tf.Tensor:
    """Returns Euclidean distances sqrt(max(d^2, 1e-12)) between all rows, [rows, rows]."""
    squares = tf.reduce_sum(tf.square(features), axis=-1)
    squared = squares[:, None] + squares[None, :] - 2 * tf.matmul(features, features, transpose_b=True)
    return tf.sqrt(tf.maximum(squared, _LEAST_SQUARE))


def batch_hard_triplet(features: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, margin: float) -> Loss:
    """Returns, of each anchor, its farthest positive less its nearest negative plus the margin, cut off at 0.

    Hermans et al., arXiv 1703.07737, equation 5. Rows of weight 0 are no anchors, positives or negatives; anchors
    without a positive or a negative are left out.

    Args:
        features: [rows, width].
        labels: Identity of each row, int [rows].
        weights: 1 for rows that count, 0 for others, float32 [rows].
        margin: Margin.
    """
    found = distances(features)
    real = weights > 0
    pairs = real[:, None] & real[None, :]
    same = labels[:, None] == labels[None, :]
    positive = pairs & same & ~tf.eye(tf.shape(labels)[0], dtype=tf.bool)
    negative = pairs & ~same
    valid = tf.reduce_any(positive, axis=1) & tf.reduce_any(negative, axis=1)
    farthest = tf.reduce_max(tf.where(positive, found, 0.0), axis=1)
    nearest = tf.reduce_min(tf.where(negative, found, found.dtype.max), axis=1)
    # Where there is no triplet nothing must be subtracted from the largest number.
    each = tf.nn.relu(tf.where(valid, farthest - tf.where(valid, nearest, 0.0) + margin, 0.0))
    return Loss(tf.reduce_sum(each), tf.reduce_sum(tf.cast(valid, tf.float32)))


def invariance(real: tf.Tensor, simulated: tf.Tensor, weights: tf.Tensor) -> Loss:
    """Returns the squared distance between the directions of two views of each person.

    Args:
        real: b of the images, [rows, width].
        simulated: b of the same persons in other clothes, [rows, width].
        weights: Of the rows, float32 [rows].
    """
    apart = tf.math.l2_normalize(real, axis=-1) - tf.math.l2_normalize(simulated, axis=-1)
    return Loss(tf.reduce_sum(tf.reduce_sum(tf.square(apart), axis=-1) * weights), tf.reduce_sum(weights))


def scaled(loss: Loss, factor: float) -> Loss:
    """Returns a loss times a factor."""
    return Loss(loss.sum * factor, loss.weight)
