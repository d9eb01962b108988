"""Encoder and heads of a pre-training."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

import modelzoo.loading as zoo
from easytransfer import keras
from easytransfer.errors import ModelError
from easytransfer.presets import Preset
from easytransfer.run.log import say
from modelzoo.encoder_backbone import EncoderBackbone
from modelzoo.encoder_files import EncoderFiles
from modelzoo.encoder_heads import PretrainingHead


def pretraining_head(backbone: EncoderBackbone, pairs: bool, seed: int, preset: Preset | None) -> PretrainingHead:
    """Returns the head of the family of an encoder.

    Args:
        backbone: Encoder.
        pairs: Whether it also tells pairs apart.
        seed: Seed of fresh weights.
        preset: Model whose head it is; what it has none of starts from random values, which is told. None = all does.

    Raises:
        ModelError: The family has no such head.
    """
    family = backbone.family.name
    try:
        kind = getattr(zoo.family_module(family, "heads"), "HEAD_CLASS", None)
    except ModuleNotFoundError:
        kind = None
    if kind is None:
        raise ModelError(f"models of the family {family} have no head for hidden words")
    if pairs and len(kind.family.heads) < 2:
        raise ModelError(f"models of the family {family} have no head for pairs", fix="set model.pair_task=none")
    head = kind(backbone.config, pairs, seed)
    if preset is None:
        return head
    found = EncoderFiles(kind.family).read_folder(
        preset.folder, config=head.config, parts=head.parts, checkpoint=preset.checkpoint
    )
    for part in head.parts:
        names = {row.name for row in kind.family.weights(head.config, [part])}
        missing = names - found.values.keys()
        if missing and missing != names:
            raise ModelError(f"{preset.folder} lacks a part of its head", received=", ".join(sorted(missing)))
        if missing:
            say(f"the head {part} starts from random values: {preset.folder} has none")
    head.import_weights(found.values)
    return head


class PretrainNetwork(keras.Model):
    """Encoder and head, reduced to what losses, metrics and pages need: logits of a whole batch are large.

    Args:
        backbone: Encoder.
        head: Head of its family.

    Call arguments:
        batch: `input_ids`, `input_mask`, `segment_ids` [batch, pieces]; `hidden_positions`, `hidden_ids`,
            `hidden_weights` [batch, predictions].

    Returns:
        Of the hidden pieces of every row: `nll` float32, the sum of their cross entropies; `hidden`, how many there
        are; `right`, how many are guessed; `guesses` and `hidden_positions` int32 [batch, predictions]; with pairs
        `pair_logits` float32 [batch, 2].
    """

    def __init__(self, backbone: EncoderBackbone, head: PretrainingHead) -> None:
        super().__init__(name="text_pretrain")
        self.backbone, self.head = backbone, head

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, Any]:
        """See the class."""
        encoded = self.backbone(batch, training=training)
        positions, ids, weights = (batch[f"hidden_{name}"] for name in ("positions", "ids", "weights"))
        found = self.head(
            encoded["sequence_output"], self.backbone.input_embeddings, positions, encoded["pooled_output"]
        )
        logits = found["mlm_logits"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(ids, logits)
        guesses = tf.argmax(logits, axis=-1, output_type=tf.int32)
        outputs = {
            "nll": tf.reduce_sum(losses * weights, axis=1),
            "hidden": tf.reduce_sum(weights, axis=1),
            "right": tf.reduce_sum(tf.cast(guesses == ids, tf.float32) * weights, axis=1),
            "guesses": guesses,
            "hidden_positions": positions,
        }
        if len(self.head.parts) > 1:
            outputs["pair_logits"] = found[f"{self.head.parts[1]}_logits"]
        return outputs

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with heads."""
        *encoder, pooler = self.backbone.layer_groups()
        return [*encoder, [*pooler, *self.head.trainable_variables]]
