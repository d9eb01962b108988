"""Two texts compared by wide convolutions and by a pyramid on their word-by-word similarities: the hybrid CNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.bicnn import compared
from easytransfer.layers.text_cnn import one_if_empty

# Start value of the biases in the original.
BIAS = 1e-4
# The smallest side of the similarity matrix from which the pyramid leaves anything: 28 / 4 = 7 rows, of which the
# second convolution makes 2 and the second pooling 1.
SMALLEST_SIDE = 28


@keras.utils.register_keras_serializable(package="easytransfer")
class HybridCNNEncoder(keras.layers.Layer):
    """Hybrid CNN (Qiu et al. 2018, https://aclanthology.org/P18-2034, section 2).

    Each side: a wide convolution (the text filled up with zeros on both ends), tanh, the maximum over time. The
    pyramid: the dot products of all pairs of word vectors as a picture; 6x6 convolution with 8 channels, tanh, pooling
    by 4; 4x4 convolution with 16 channels and stride 3, tanh, pooling by 2. Features: [pyramid, l, r, l - r, l * r].

    The dense layer behind needs features of one length, so the picture is filled up with zeros to `max_lengths`, or to
    28 where those are smaller; words behind `max_lengths` do not take part in it. Padding in the batch changes nothing.

    Args:
        num_filters: Filters of the wide convolution.
        filter_size: Their width, in words.
        max_lengths: Most words of the first and of the second text.

    Call arguments:
        inputs: Word vectors [batch, words, size] of the first and of the second text, then their masks
            [batch, words], 1 for words, which come first.

    Returns:
        [batch, pyramid + 4 * num_filters]; with lengths of 64 the pyramid has 2 * 2 * 16 features.

    Example:
        >>> vectors, mask = tf.zeros([2, 7, 8]), tf.ones([2, 7], tf.int32)
        >>> HybridCNNEncoder(10)([vectors, vectors, mask, mask]).shape
        TensorShape([2, 104])
    """

    def __init__(
        self, num_filters: int = 200, filter_size: int = 4, max_lengths: Sequence[int] = (64, 64), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_filters, self.filter_size, self.max_lengths = num_filters, filter_size, tuple(max_lengths)
        options = {"activation": "tanh", "bias_initializer": keras.initializers.Constant(BIAS)}
        self.wide = keras.layers.Conv1D(num_filters, filter_size, name="wide", **options)
        self.pyramid = [
            keras.layers.Conv2D(8, 6, padding="same", name="pyramid_1", **options),
            keras.layers.Conv2D(16, 4, strides=3, name="pyramid_2", **options),
        ]

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns the features of the pair, [batch, pyramid + 4 * num_filters]."""
        first, second, first_mask, second_mask = inputs
        masks = [tf.cast(mask, first.dtype)[..., tf.newaxis] for mask in (first_mask, second_mask)]
        sides = [first * masks[0], second * masks[1]]
        left, right = (self._side(side, mask) for side, mask in zip(sides, masks, strict=True))
        return tf.concat([self._picture(*sides), compared(left, right)], axis=-1)

    def _side(self, vectors: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
        """Returns the largest answer of every filter, [batch, num_filters]; 0 for an empty text."""
        more = self.filter_size - 1
        rows = tf.shape(vectors)[0]
        answers = self.wide(tf.pad(vectors, [[0, one_if_empty(vectors)], [more, more], [0, 0]]))[:rows]
        # A text of n words has n + width - 1 windows with a word in them; tanh is above -1, so the others never win.
        counts = tf.concat([real[:, :1]] * more + [real], axis=1)
        pooled = tf.reduce_max(tf.where(counts > 0, answers, -tf.ones_like(answers)), axis=1)
        return pooled * real[:, 0]

    def _picture(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """Returns the features of the pyramid, [batch, features]."""
        height, width = self.max_lengths
        products = tf.matmul(first, second, transpose_b=True)[:, :height, :width]
        sides = [max(length, SMALLEST_SIDE) for length in self.max_lengths]
        missing = [[0, side - tf.shape(products)[axis]] for axis, side in enumerate(sides, 1)]
        picture = tf.pad(products, [[0, one_if_empty(products)], *missing])
        picture = tf.ensure_shape(picture, [None, *sides])[..., tf.newaxis]
        for convolution, pool in zip(self.pyramid, (4, 2), strict=True):
            picture = tf.nn.max_pool2d(convolution(picture), pool, pool, "VALID")
        features = tf.reshape(picture, [-1, picture.shape[1] * picture.shape[2] * picture.shape[3]])
        return features[: tf.shape(products)[0]]

    def l2_penalty(self) -> tf.Tensor:
        """Returns half the sum of squares of all convolution kernels, a float32 scalar."""
        return tf.add_n([tf.nn.l2_loss(tf.cast(layer.kernel, tf.float32)) for layer in (self.wide, *self.pyramid)])

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the layer."""
        config = {"num_filters": self.num_filters, "filter_size": self.filter_size, "max_lengths": self.max_lengths}
        return {**super().get_config(), **config}
