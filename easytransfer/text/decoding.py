"""Texts written word by word, inside a graph."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def greedy(next_logits: Callable[[tf.Tensor], tf.Tensor], rows: tf.Tensor, most: int, end: int) -> tf.Tensor:
    """Returns the ids of texts that take the most probable next id at every place.

    Args:
        next_logits: Takes the ids so far, int32 [rows, n], to the logits of the next one, [rows, ids].
        rows: Number of texts, a scalar.
        most: Most ids of a text, its end included.
        end: Id that ends a text.

    Returns:
        int32 [rows, most]; behind the end of a text all ids are 0.

    Example:
        >>> greedy(lambda ids: tf.one_hot(tf.fill([2], tf.shape(ids)[1] + 1), 5), 2, 4, end=3)
        array([[1, 2, 3, 0], [1, 2, 3, 0]])
    """
    ids, open_ = tf.zeros([rows, 0], tf.int32), tf.ones([rows], tf.bool)
    for _ in range(most):
        chosen = tf.where(open_, tf.argmax(next_logits(ids), axis=-1, output_type=tf.int32), 0)
        ids = tf.concat([ids, chosen[:, None]], axis=1)
        open_ &= chosen != end
    return ids
