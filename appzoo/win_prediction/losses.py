"""Losses over the real frames of games: one for each stage, and what may be added to the second."""

from __future__ import annotations

import tensorflow as tf

from easytransfer.train.step import Loss


def frame_weights(mask: tf.Tensor, example_weight: tf.Tensor, game_balanced: bool) -> tf.Tensor:
    """Returns what each frame counts, float32 [batch, frames]: 1, or 1 / frames of its game; 0 for padding.

    Args:
        mask: 1 for real frames, int32 [batch, frames].
        example_weight: float32 [batch].
        game_balanced: Whether games count the same.
    """
    real = tf.cast(mask, tf.float32)
    if game_balanced:
        real = tf.math.divide_no_nan(real, tf.reduce_sum(real, axis=1, keepdims=True))
    return real * example_weight[:, None]


def cross_entropies(label: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns binary cross entropies in nats of `logits` [batch, ...] against the labels of games [batch]."""
    shape = [-1] + [1] * (logits.shape.rank - 1)
    return tf.nn.sigmoid_cross_entropy_with_logits(tf.reshape(label, shape) + tf.zeros_like(logits), logits)


def spatial_loss(label: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor) -> Loss:
    """Returns the cross entropy of every score, added up over groups, mean over frames.

    Args:
        label: 1 where team A has won, float32 [batch].
        scores: [batch, frames, groups].
        weights: Of frames, [batch, frames].
    """
    each = tf.reduce_sum(cross_entropies(label, scores), axis=-1)
    return Loss(tf.reduce_sum(each * weights), tf.reduce_sum(weights))


def prediction_loss(label: tf.Tensor, logit: tf.Tensor, weights: tf.Tensor) -> Loss:
    """Returns the cross entropy of the prediction, mean over frames; arguments as of `spatial_loss`."""
    return Loss(tf.reduce_sum(cross_entropies(label, logit) * weights), tf.reduce_sum(weights))


def entropy_loss(group_weights: tf.Tensor, weights: tf.Tensor, factor: float) -> Loss:
    """Returns factor times the mean entropy in nats of the weights of groups [batch, frames, groups]."""
    entropy = -tf.reduce_sum(tf.math.xlogy(group_weights, group_weights), axis=-1)
    return Loss(factor * tf.reduce_sum(entropy * weights), tf.reduce_sum(weights))


def smoothness_loss(group_weights: tf.Tensor, weights: tf.Tensor, factor: float) -> Loss:
    """Returns factor times the mean squared change of the weights of groups from each frame to the next."""
    change = tf.reduce_sum(tf.square(group_weights[:, 1:] - group_weights[:, :-1]), axis=-1)
    # A change counts like the frame it leads to, which is real or padding.
    return Loss(factor * tf.reduce_sum(change * weights[:, 1:]), tf.reduce_sum(weights[:, 1:]))
