"""What is looked at of the layers of a network, and linear probes on it."""

from __future__ import annotations

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.plain import get_initializer
from modelzoo.encoder_backbone import EncoderBackbone


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
        start = get_initializer()
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
    mean = mean_of_tokens(embeddings, input_mask)
    return tf.stack([mean, *(backbone.summary_of(states, input_mask) for states in layers)], axis=1)


def mean_of_tokens(states: tf.Tensor, input_mask: tf.Tensor) -> tf.Tensor:
    """Returns the mean over the real tokens, float32 [batch, width].

    Args:
        states: Outputs of a layer, [batch, tokens, width].
        input_mask: [batch, tokens], 1 for tokens.
    """
    mask = tf.cast(input_mask, tf.float32)[:, :, tf.newaxis]
    total = tf.reduce_sum(tf.cast(states, tf.float32) * mask, axis=1)
    return tf.math.divide_no_nan(total, tf.reduce_sum(mask, axis=1))
