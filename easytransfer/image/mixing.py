"""Mixup: images and targets in pairs (https://arxiv.org/abs/1710.09412)."""

from __future__ import annotations

import tensorflow as tf

from easytransfer.layers.draws import RowDraws

# Halvings when a quantile is looked for: below the spacing of float32 numbers next to one half.
_HALVINGS = 26


def draw_partners(draws: RowDraws) -> tf.Tensor:
    """Returns a random permutation of the rows here, int32 [rows]: with whom each row is mixed."""
    return tf.argsort(draws.uniform(1)[:, 0])


def draw_share(draws: RowDraws, alpha: float) -> tf.Tensor:
    """Returns the share of the own image, a scalar from Beta(alpha, alpha) that is the same on all workers."""
    return symmetric_beta_quantile(alpha, draws.shared())


def symmetric_beta_quantile(alpha: float, probability: tf.Tensor) -> tf.Tensor:
    """Returns x with I_x(alpha, alpha) = probability, where I is the regularised incomplete beta function.

    By halving, which compiles everywhere; drawing from a gamma distribution does not.
    """
    # The smaller tail is looked for and reflected: numbers near 0 are denser than those near 1.
    tail = tf.minimum(probability, 1 - probability)
    shape = alpha * tf.ones_like(tail)

    def halve(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        middle = (low + high) / 2
        below = tf.math.betainc(shape, shape, middle) < tail
        return tf.where(below, middle, low), tf.where(below, high, middle)

    # A loop, so that the function compiles once and not for every halving.
    start = (tf.zeros_like(tail), tf.fill(tf.shape(tail), 0.5))
    low, high = tf.while_loop(lambda low, high: True, halve, start, maximum_iterations=_HALVINGS)
    found = (low + high) / 2
    return tf.where(probability <= 0.5, found, 1 - found)


def mix(values: tf.Tensor, partners: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Returns `share * own + (1 - share) * partner's`, row by row."""
    share = tf.cast(share, values.dtype)
    return share * values + (1 - share) * tf.gather(values, partners)
