"""Two texts compared by their convolutions: BiCNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.text_cnn import TextCNNEncoder

FILTER_SIZES = (2, 3, 4)


@keras.utils.register_keras_serializable(package="easytransfer")
class BiCNNEncoder(keras.layers.Layer):
    """The same convolutions over both texts, and the mean word vector of each; compared by difference and product.

    With l and r the features of the sides, three widths of `TextCNNEncoder` and the mean vector of the real words:
    [l, r, l - r, l * r]. (The original averaged over the wrong axis, which gave one number per position instead of
    the mean vector, and convolved the padding.)

    Args:
        num_filters: Filters of each width.

    Call arguments:
        inputs: Word vectors [batch, words, size] of the first and of the second text, then their masks
            [batch, words], 1 for words, which come first.

    Returns:
        [batch, 4 * (3 * num_filters + size)].

    Example:
        >>> vectors, mask = tf.zeros([2, 7, 8]), tf.ones([2, 7], tf.int32)
        >>> BiCNNEncoder(100)([vectors, vectors, mask, mask]).shape
        TensorShape([2, 1232])
    """

    def __init__(self, num_filters: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_filters = num_filters
        self.convolutions = TextCNNEncoder([num_filters] * len(FILTER_SIZES), FILTER_SIZES, name="shared")

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns the features of the pair, [batch, 4 * (3 * num_filters + size)]."""
        first, second, first_mask, second_mask = inputs
        left, right = self._side(first, first_mask), self._side(second, second_mask)
        return compared(left, right)

    def _side(self, vectors: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        real = tf.cast(mask, vectors.dtype)[..., tf.newaxis]
        mean = tf.math.divide_no_nan(tf.reduce_sum(vectors * real, axis=1), tf.reduce_sum(real, axis=1))
        return tf.concat([self.convolutions([vectors, mask]), mean], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the layer."""
        return {**super().get_config(), "num_filters": self.num_filters}


def compared(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Returns [l, r, l - r, l * r] for features [batch, n] of two sides, [batch, 4 * n]."""
    return tf.concat([left, right, left - right, left * right], axis=-1)
