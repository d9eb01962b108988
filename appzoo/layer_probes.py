"""Linear probes on the layers of a network: what they look at, and the probes themselves."""

from __future__ import annotations

import tensorflow as tf

from easytransfer import keras
from modelzoo.encoder_backbone import EncoderBackbone

_DEVIATION = 0.02


class Probes(keras.layers.Layer):
    """A linear classifier on each of several vectors of a row.

    Args:
        count: Vectors.
        classes: Classes.
        name: Name of the layer.

    Call arguments:
        vectors: [batch, count, width].

    Returns:
        float32 [batch, count, classes].
    """

    def __init__(self, count: int, classes: int, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self._count, self._classes = count, classes

    def build(self, shape: tf.TensorShape) -> None:
        """Makes one kernel and one bias for each vector."""
        start = keras.initializers.TruncatedNormal(stddev=_DEVIATION)
        self.kernel = self.add_weight("kernel", [self._count, shape[-1], self._classes], initializer=start)
        self.bias = self.add_weight("bias", [self._count, self._classes], initializer="zeros")
        super().build(shape)

    def call(self, vectors: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return tf.einsum("bph,phc->bpc", vectors, self.kernel) + self.bias


def probed(backbone: EncoderBackbone, hidden_states: tf.Tensor, input_mask: tf.Tensor) -> tf.Tensor:
    """Returns what probes look at [batch, layers + 1, hidden]: the mean of the embeddings, and [CLS] of every layer.

    Args:
        backbone: Of the states; it knows where [CLS] is.
        hidden_states: [batch, layers + 1, tokens, hidden], embeddings first.
        input_mask: [batch, tokens], 1 for tokens.
    """
    embeddings, *layers = tf.unstack(hidden_states, axis=1)
    mask = tf.cast(input_mask, tf.float32)[:, :, tf.newaxis]
    mean = tf.math.divide_no_nan(tf.reduce_sum(embeddings * mask, axis=1), tf.reduce_sum(mask, axis=1))
    return tf.stack([mean, *(backbone.summary_of(states, input_mask) for states in layers)], axis=1)
