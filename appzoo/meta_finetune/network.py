"""The network that is meta fine-tuned: an encoder with a head, and what tells corrupted domains in the training."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from appzoo.layer_probes import mean_of_tokens
from appzoo.pooled_model import PooledModel
from easytransfer import keras
from easytransfer.layers.plain import get_initializer
from easytransfer.train.weights import TRAINING_ONLY
from modelzoo.backbone import Backbone


class DomainClassifiers(keras.layers.Layer):
    """Logits of domains from several layers: W_l (e_d + h_l) + b_l, e_d a vector of the row's own domain.

    Args:
        layers: How many.
        domains: Domains.

    Call arguments:
        vectors: h, [batch, layers, width].
        domain_id: d, int [batch].

    Returns:
        float32 [batch, layers, domains].
    """

    def __init__(self, layers: int, domains: int) -> None:
        super().__init__(name=f"{TRAINING_ONLY}_domains", dtype="float32")
        self._layer_count, self._domains = layers, domains

    def build(self, shape: tf.TensorShape) -> None:
        """Makes a vector for each domain, and one kernel and one bias for each layer."""
        width = shape[-1]
        self.embeddings = self.add_weight("embeddings", [self._domains, width], initializer=get_initializer())
        self.kernel = self.add_weight(
            "kernel", [self._layer_count, width, self._domains], initializer=get_initializer()
        )
        self.bias = self.add_weight("bias", [self._layer_count, self._domains], initializer="zeros")
        super().build(shape)

    def call(self, vectors: tf.Tensor, domain_id: tf.Tensor) -> tf.Tensor:
        """See the class."""
        seen = vectors + tf.gather(self.embeddings, domain_id)[:, tf.newaxis]
        return tf.einsum("blh,lhd->bld", seen, self.kernel) + self.bias


class MetaModel(PooledModel):
    """Encoder, dropout on the pooled [CLS], dense layer; for the training, classifiers of domains.

    Args:
        backbone: Encoder.
        num_outputs: Classes.
        dropout_rate: Dropout before the dense layer.
        layers: Layers that domains are told from, numbered from 1.
        domains: Domains; no classifiers are made where `layers` is empty.
    """

    def __init__(
        self, backbone: Backbone, num_outputs: int, dropout_rate: float, layers: Sequence[int], domains: int
    ) -> None:
        super().__init__(backbone, num_outputs, dropout_rate)
        self._domain_layers, self.domain_classifiers = list(layers), None
        if layers:
            self.domain_classifiers = DomainClassifiers(len(layers), domains)
            self.domain_classifiers(tf.zeros([1, len(layers), backbone.config.hidden_size]), tf.zeros([1], tf.int32))

    def with_domains(self, batch: dict[str, tf.Tensor], training: bool) -> dict[str, tf.Tensor]:
        """Returns `logits` [batch, classes], and `domain_logits` [batch, layers, domains].

        Args:
            batch: As of a call, and `domain_id` int [batch].
            training: Whether dropout acts.
        """
        found = self.with_states(batch, training)
        states = tf.unstack(found["hidden_states"], axis=1)
        vectors = tf.stack([mean_of_tokens(states[i], batch["input_mask"]) for i in self._domain_layers], axis=1)
        return {"logits": found["logits"], "domain_logits": self.domain_classifiers(vectors, batch["domain_id"])}

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns the groups of encoder and head, what is there for the training in the last one."""
        *groups, last = super().layer_groups()
        extra = [] if self.domain_classifiers is None else self.domain_classifiers.trainable_variables
        return [*groups, [*last, *extra]]
