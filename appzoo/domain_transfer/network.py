"""Encoder and head, and beside them what only the training needs."""

from __future__ import annotations

import tensorflow as tf

from appzoo.domain_transfer.config import TransferSettings
from appzoo.pooled_model import PooledModel
from easytransfer import keras
from easytransfer.layers.plain import get_initializer
from modelzoo.backbone import Backbone


class TransferModel(PooledModel):
    """Encoder, dropout on the pooled [CLS], head; for the training what tells domains apart and what selects rows.

    Args:
        backbone: Encoder.
        num_outputs: Classes.
        dropout_rate: Dropout before the head.
        settings: Of the algorithm: which parts there are, and their sizes.
    """

    def __init__(self, backbone: Backbone, num_outputs: int, dropout_rate: float, settings: TransferSettings) -> None:
        super().__init__(backbone, num_outputs, dropout_rate)
        algorithm, width = settings.algorithm, backbone.config.hidden_size
        self.discriminator = self.selector = None
        if algorithm == "drss":
            self.head = DomainHeads(settings.feature_units, num_outputs, width)
        if algorithm in ("dann", "reweight", "drss", "mgtl"):
            seen = settings.feature_units if algorithm == "drss" else width
            self.discriminator = TwoLayers("discriminator", settings.domain_units, seen)
        if algorithm in ("rtl", "mgtl"):
            state = width + 1 + num_outputs
            self.selector = Selector(settings.selection_units, state, critic=algorithm == "rtl")

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
        self.hidden = keras.layers.Dense(units, activation="relu", kernel_initializer=get_initializer(), name="hidden")
        self.output_layer = keras.layers.Dense(1, kernel_initializer=get_initializer(), name="output")
        self(tf.zeros([1, width]))

    def call(self, vectors: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return self.output_layer(self.hidden(vectors))[:, 0]


class DomainHeads(keras.layers.Layer):
    """Features that domains share and features of each, and the output weights of each domain on both; float32.

    Args:
        units: Of each kind of features.
        classes: Classes.
        width: Of what the layer is called with.

    Call arguments:
        pooled: [rows, width].

    Returns:
        Logits of the target domain, [rows, classes].
    """

    def __init__(self, units: int, classes: int, width: int) -> None:
        super().__init__(name="head", dtype="float32")
        self.shared, *self.specific = (
            keras.layers.Dense(units, activation="tanh", kernel_initializer=get_initializer(), name=name)
            for name in ("shared", "source", "target")
        )
        # Of each domain: weights of shared features, and of its own.
        self.kernel = self.add_weight("kernel", [2, 2, units, classes], initializer=get_initializer())
        self.bias = self.add_weight("bias", [2, classes], initializer="zeros")
        self(tf.zeros([1, width]))

    @property
    def columns(self) -> tf.Tensor:
        """The output weights as columns, those of the source domain first: [units * classes, 4]."""
        return tf.transpose(tf.reshape(self.kernel, [4, -1]))

    def call(self, pooled: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return self.of_domains(pooled)[0][:, 1]

    def of_domains(self, pooled: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the logits of source and target domain, [rows, 2, classes], and the shared features, [rows, units].

        Args:
            pooled: [rows, width].
        """
        shared = self.shared(pooled)
        logits = [
            tf.matmul(shared, self.kernel[number, 0]) + tf.matmul(layer(pooled), self.kernel[number, 1])
            for number, layer in enumerate(self.specific)
        ]
        return tf.stack(logits, axis=1) + self.bias, shared


class Selector(keras.layers.Layer):
    """A policy that keeps or drops rows, and a critic that expects its reward; float32.

    Args:
        units: Of the hidden layer of each.
        width: Of a state, see `selection.states`.
        critic: Whether there is a critic.
    """

    def __init__(self, units: int, width: int, critic: bool) -> None:
        super().__init__(name="selector", dtype="float32")
        self.policy = TwoLayers("policy", units, width)
        self.critic = TwoLayers("critic", units, width) if critic else None
        self.built = True

    def expected(self, states: tf.Tensor, source: tf.Tensor) -> tf.Tensor:
        """Returns the reward that the critic expects for the mean of the states of source rows, a scalar.

        Args:
            states: [rows, width].
            source: 1 for source rows, 0 for others, float32 [rows].
        """
        total = tf.reduce_sum(states * source[:, tf.newaxis], axis=0, keepdims=True)
        return self.critic(tf.math.divide_no_nan(total, tf.reduce_sum(source)))[0]
