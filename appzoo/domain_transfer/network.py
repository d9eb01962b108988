"""Encoder and head, and beside them what only the training needs."""

from __future__ import annotations

import tensorflow as tf

from appzoo.pooled_app import PooledModel
from easytransfer import keras
from modelzoo.backbone import Backbone

_DEVIATION = 0.02


class TransferModel(PooledModel):
    """Encoder, dropout on the pooled [CLS], dense layer; for the training what tells domains apart.

    Args:
        backbone: Encoder.
        num_outputs: Classes.
        dropout_rate: Dropout before the dense layer.
        domain_units: Units of the hidden layer of the discriminator; 0 leaves it out.
    """

    def __init__(self, backbone: Backbone, num_outputs: int, dropout_rate: float, domain_units: int) -> None:
        super().__init__(backbone, num_outputs, dropout_rate)
        self.discriminator = None
        if domain_units:
            self.discriminator = TwoLayers("discriminator", domain_units, backbone.config.hidden_size)

    def features(self, batch: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns what the head reads, float32 [batch, hidden].

        Args:
            batch: As of a call.
            training: Whether dropout acts.
        """
        pooled = self.backbone(batch, training=training, pooled_only=True)["pooled_output"]
        return tf.cast(self.dropout(pooled, training=training), tf.float32)

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """Returns `{"logits": [batch, num_outputs]}` of the target domain."""
        return {"logits": self.head(self.features(batch, training))}


class TwoLayers(keras.layers.Layer):
    """A dense layer with ReLU and one with a single output, float32.

    Args:
        name: Name of the layer.
        units: Of the hidden layer.
        width: Of the vectors it is called with.

    Call arguments:
        vectors: [rows, width].

    Returns:
        float32 [rows].
    """

    def __init__(self, name: str, units: int, width: int) -> None:
        super().__init__(name=name, dtype="float32")
        start = keras.initializers.TruncatedNormal(stddev=_DEVIATION)
        self.hidden = keras.layers.Dense(units, activation="relu", kernel_initializer=start, name="hidden")
        self.output_layer = keras.layers.Dense(1, kernel_initializer=start, name="output")
        self(tf.zeros([1, width]))

    def call(self, vectors: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return self.output_layer(self.hidden(vectors))[:, 0]
