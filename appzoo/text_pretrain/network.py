"""Encoder and heads of a pre-training."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from appzoo.text_pretrain.split_head import ALONE, split_cross_entropy
from easytransfer import keras
from easytransfer.distributed.collectives import Group
from modelzoo.encoder_backbone import EncoderBackbone
from modelzoo.encoder_heads import PretrainingHead


class PretrainNetwork(keras.Model):
    """Encoder and head, reduced to what losses, metrics and pages need: logits of a whole batch are large.

    Args:
        backbone: Encoder.
        head: Head of its family.
        tensor: Workers that share the vocabulary, if any; they have the same rows.

    Call arguments:
        batch: `input_ids`, `input_mask`, `segment_ids` [batch, pieces]; `hidden_positions`, `hidden_ids`,
            `hidden_weights` [batch, predictions].

    Returns:
        Of the hidden pieces of every row: `nll` float32, the sum of their cross entropies; `hidden`, how many there
        are; `right`, how many are guessed; `guesses` and `hidden_positions` int32 [batch, predictions]; with pairs
        `pair_logits` float32 [batch, 2].
    """

    def __init__(self, backbone: EncoderBackbone, head: PretrainingHead, tensor: Group | None = None) -> None:
        super().__init__(name="text_pretrain")
        self.backbone, self.head, self._tensor = backbone, head, tensor

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, Any]:
        """See the class."""
        encoded = self.backbone(batch, training=training)
        positions, ids, weights = (batch[f"hidden_{name}"] for name in ("positions", "ids", "weights"))
        losses, guesses = self._words(self.head.states(encoded["sequence_output"], positions), ids)
        outputs = {
            "nll": tf.reduce_sum(losses * weights, axis=1),
            "hidden": tf.reduce_sum(weights, axis=1),
            "right": tf.reduce_sum(tf.cast(guesses == ids, tf.float32) * weights, axis=1),
            "guesses": guesses,
            "hidden_positions": positions,
        }
        for logits in self.head.pair_logits(encoded["pooled_output"]).values():
            outputs["pair_logits"] = logits
        return outputs

    def _words(self, states: tf.Tensor, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the cross entropy of hidden pieces and what is guessed, [batch, predictions] each."""
        table, bias = self.backbone.input_embeddings, self.head.output_bias
        return split_cross_entropy(states, table, bias, ids, self._tensor or ALONE)

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with heads."""
        *encoder, pooler = self.backbone.layer_groups()
        return [*encoder, [*pooler, *self.head.trainable_variables]]
