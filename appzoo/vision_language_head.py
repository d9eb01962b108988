"""The head of tasks on texts and regions: two dense layers with normalization between."""

from __future__ import annotations

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import Dropout

_EPSILON = 1e-12


class TaskHead(keras.layers.Layer):
    """Dropout, Dense, GELU, layer normalization, Dense: Tan and Bansal 2019 (LXMERT), arXiv 1908.07490, released code.

    All is computed in float32.

    Args:
        size: Width between the dense layers.
        outputs: Numbers for each vector.
        dropout_rate: Dropout on the vectors in training.

    Call arguments:
        vectors: [..., width].

    Returns:
        float32 [..., outputs].

    Example:
        >>> TaskHead(8, 3)(tf.ones([2, 4])).shape
        TensorShape([2, 3])
    """

    def __init__(self, size: int, outputs: int, dropout_rate: float = 0.0, name: str = "head") -> None:
        super().__init__(name=name, dtype="float32")
        self.dropout = Dropout(dropout_rate, name="dropout")
        self.hidden, self.out = (
            keras.layers.Dense(
                units, kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02), dtype="float32", name=each
            )
            for each, units in (("hidden", size), ("out", outputs))
        )
        self.norm = keras.layers.LayerNormalization(epsilon=_EPSILON, dtype="float32", name="norm")

    def call(self, vectors: tf.Tensor, training: bool = False) -> tf.Tensor:
        """See the class."""
        vectors = self.dropout(tf.cast(vectors, tf.float32), training=training)
        return self.out(self.norm(tf.nn.gelu(self.hidden(vectors), approximate=False)))
