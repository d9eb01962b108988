"""Convolutions over words with max over time, for one text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from easytransfer import keras


@keras.utils.register_keras_serializable(package="easytransfer")
class TextCNNEncoder(keras.layers.Layer):
    """Convolutions of several widths, each with ReLU and the maximum over time (Kim 2014, arXiv 1408.5882, section 2).

    Padding does not take part: a window counts when it lies inside the text, and a text shorter than a filter has one
    window, filled up with zeros. (The original convolved the padding as well.)

    Args:
        num_filters: Filters of each width.
        filter_sizes: Widths, in words.

    Call arguments:
        inputs: Word vectors [batch, words, size] and their mask [batch, words], 1 for words, which come first.

    Returns:
        [batch, sum(num_filters)].

    Raises:
        ValueError: The two lists differ in length, or a number in them is below 1.

    Example:
        >>> TextCNNEncoder([100, 100], [3, 4])([tf.zeros([2, 7, 8]), tf.ones([2, 7], tf.int32)]).shape
        TensorShape([2, 200])
    """

    def __init__(
        self, num_filters: Sequence[int] = (100, 100, 100), filter_sizes: Sequence[int] = (3, 4, 5), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not num_filters or len(num_filters) != len(filter_sizes) or min(*num_filters, *filter_sizes) < 1:
            raise ValueError(f"num_filters and filter_sizes do not fit: {num_filters} and {filter_sizes}")
        self.num_filters, self.filter_sizes = tuple(num_filters), tuple(filter_sizes)
        self.convolutions = [
            keras.layers.Conv1D(filters, size, activation="relu", name=f"convolution_{number}_of_{size}")
            for number, (filters, size) in enumerate(zip(num_filters, filter_sizes, strict=True), 1)
        ]

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns the largest answer of every filter, [batch, sum(num_filters)]."""
        vectors, mask = inputs
        real = tf.cast(mask, vectors.dtype)[..., tf.newaxis]
        vectors *= real
        rows, pooled = tf.shape(vectors)[0], []
        for convolution, size in zip(self.convolutions, self.filter_sizes, strict=True):
            answers = convolution(tf.pad(vectors, [[0, one_if_empty(vectors)], [0, size - 1], [0, 0]]))[:rows]
            # A window is inside the text when its last word is; the first window counts in any case.
            last = tf.pad(real, [[0, 0], [0, size - 1], [0, 0]])[:, size - 1 :]
            counts = tf.concat([tf.ones_like(last[:, :1]), last[:, 1:]], axis=1)
            # ReLU leaves nothing below 0, so that 0 never wins against a window that counts.
            pooled.append(tf.reduce_max(answers * counts, axis=1))
        return tf.concat(pooled, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the layer."""
        return {**super().get_config(), "num_filters": self.num_filters, "filter_sizes": self.filter_sizes}


def one_if_empty(batch: tf.Tensor) -> tf.Tensor:
    """Returns 1 for a batch of no rows, else 0, int32: how many rows a convolution must be given in addition.

    The oneDNN convolution of TensorFlow 2.20 gives the result of an empty batch the shape of its input.
    """
    return tf.cast(tf.equal(tf.shape(batch)[0], 0), tf.int32)
