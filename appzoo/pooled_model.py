"""The network on the pooled output of a pre-trained encoder."""

from __future__ import annotations

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import Dropout
from modelzoo.backbone import Backbone


class PooledModel(keras.Model):
    """Encoder, dropout on the pooled [CLS], dense layer.

    Args:
        backbone: Encoder.
        num_outputs: Classes, or 1 for a score.
        dropout_rate: Dropout before the dense layer.

    Call arguments:
        batch: `input_ids`, `input_mask`, `segment_ids`, each [batch, tokens].

    Returns:
        `logits` float32 [batch, num_outputs].
    """

    def __init__(self, backbone: Backbone, num_outputs: int, dropout_rate: float) -> None:
        super().__init__(name="text_classifier")
        self.backbone = backbone
        self.dropout = Dropout(dropout_rate, name="head_dropout")
        self.head = keras.layers.Dense(
            num_outputs,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype="float32",
            name="head",
        )

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """Returns `{"logits": [batch, num_outputs]}`."""
        pooled = self.backbone(batch, training=training, pooled_only=True)["pooled_output"]
        return {"logits": self._answer(pooled, training)}

    def with_states(
        self, batch: dict[str, tf.Tensor], training: bool = False, attentions: bool = False
    ) -> dict[str, tf.Tensor]:
        """Returns the same logits, and what the layers of the encoder compute, for methods that look inside.

        Args:
            batch: As of a call.
            training: Whether dropout acts.
            attentions: Whether the attention probabilities are wanted too.

        Returns:
            `logits`; `hidden_states` float32 [batch, layers + 1, tokens, hidden], embeddings first; with `attentions`
            also these, float32 [batch, layers, heads, tokens, tokens].

        Raises:
            ModelError: The family of the encoder gives no attentions.
        """
        found = self.backbone(batch, training=training)
        states = found["hidden_states"]
        outputs = {"logits": self._answer(found["pooled_output"], training), "hidden_states": tf.stack(states, axis=1)}
        if attentions:
            outputs["attentions"] = tf.stack(self.backbone.attentions(states, batch["input_mask"]), axis=1)
        return outputs

    def _answer(self, pooled: tf.Tensor, training: bool) -> tf.Tensor:
        return self.head(tf.cast(self.dropout(pooled, training=training), tf.float32))

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with head: what is trained when all layers are frozen."""
        *encoder, pooler = self.backbone.layer_groups()
        return [*encoder, [*pooler, *self.head.trainable_variables]]
