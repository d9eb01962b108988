"""Two texts aligned word by word: the decomposable attention model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import Dropout

ATTEND_DROPOUT, COMPARE_DROPOUT = 0.1, 0.2


@keras.utils.register_keras_serializable(package="easytransfer")
class DAMEncoder(keras.layers.Layer):
    """Decomposable attention (Parikh et al. 2016, arXiv 1606.01933, section 3): attend, compare, aggregate.

    Departs from the paper: F and G are one dense layer each, the inputs are projected with ReLU, and the maximum over
    positions stands beside the sum.

    Args:
        hidden_size: Units of every dense layer.

    Call arguments:
        inputs: Word vectors [batch, words, size] of the first and of the second text, then their masks
            [batch, words], 1 for words.

    Returns:
        [batch, 4 * hidden_size]: sums of both sides, then maxima of both sides.

    Example:
        >>> vectors, mask = tf.zeros([2, 7, 8]), tf.ones([2, 7], tf.int32)
        >>> DAMEncoder(16)([vectors, vectors, mask, mask]).shape
        TensorShape([2, 64])
    """

    def __init__(self, hidden_size: int = 200, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.projection, self.attend, self.compare = (
            keras.layers.Dense(hidden_size, activation="relu", name=name)
            for name in ("projection", "attend", "compare")
        )
        self.attend_dropout = Dropout(ATTEND_DROPOUT, name="attend_dropout")
        self.compare_dropout = Dropout(COMPARE_DROPOUT, name="compare_dropout")

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns the features of the pair, [batch, 4 * hidden_size]."""
        first, second, first_mask, second_mask = inputs
        masks = [tf.cast(mask, first.dtype)[..., tf.newaxis] for mask in (first_mask, second_mask)]
        sides = [self.projection(first), self.projection(second)]
        keys = [
            self.attend(self.attend_dropout(side, training=training)) * mask
            for side, mask in zip(sides, masks, strict=True)
        ]
        scores = tf.matmul(keys[0], keys[1], transpose_b=True)
        pairs = tf.matmul(masks[0], masks[1], transpose_b=True)
        aligned = [
            tf.matmul(masked_softmax(scores, pairs), sides[1]),
            tf.matmul(masked_softmax(tf.transpose(scores, [0, 2, 1]), tf.transpose(pairs, [0, 2, 1])), sides[0]),
        ]
        compared = [
            self.compare(self.compare_dropout(tf.concat([side, other], axis=-1), training=training)) * mask
            for side, other, mask in zip(sides, aligned, masks, strict=True)
        ]
        # After ReLU and mask nothing is below 0, so that padding never wins the maximum.
        totals = [tf.reduce_sum(side, axis=1) for side in compared]
        return tf.concat([*totals, *(tf.reduce_max(side, axis=1) for side in compared)], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the layer."""
        return {**super().get_config(), "hidden_size": self.hidden_size}


def masked_softmax(scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Softmax over the last axis of the entries whose mask is 1, computed in float32; all 0 where there is none.

    Args:
        scores: [..., n].
        mask: 0 or 1, [..., n].

    Returns:
        [..., n] in the dtype of `scores`.
    """
    values, real = tf.cast(scores, tf.float32), tf.cast(mask, tf.float32)
    values = tf.where(real > 0, values, values.dtype.min)
    weights = tf.exp(values - tf.reduce_max(values, axis=-1, keepdims=True)) * real
    total = tf.reduce_sum(weights, axis=-1, keepdims=True)
    return tf.cast(tf.math.divide_no_nan(weights, total), scores.dtype)
