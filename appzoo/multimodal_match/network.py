"""The network of matching: words and regions to the pooled first word, and to two classes."""

from __future__ import annotations

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import Dropout
from modelzoo.vision_language.backbone import VisionLanguageBackbone
from modelzoo.vision_language.heads import VisionLanguageHeads


class MatchNetwork(keras.Model):
    """Words and regions, dropout on the pooled first word, the head of matching.

    Args:
        backbone: Reads words and regions.
        head: Heads with the part `matching`: those of a pre-training, whose second class is the match.
        dropout_rate: Dropout before the head.

    Call arguments:
        batch: What the backbone takes.

    Returns:
        `logits` float32 [batch, 2].
    """

    def __init__(self, backbone: VisionLanguageBackbone, head: VisionLanguageHeads, dropout_rate: float) -> None:
        super().__init__(name="multimodal_match")
        self.backbone, self.head = backbone, head
        self.dropout = Dropout(dropout_rate, name="head_dropout")

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        pooled = self.backbone(batch, training=training, pooled_only=True)["pooled_output"]
        outputs = {"pooled_output": self.dropout(pooled, training=training), "region_output": None}
        return {"logits": self.head(outputs)["matching_logits"]}

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with the head."""
        *encoder, pooler = self.backbone.layer_groups()
        return [*encoder, [*pooler, *self.head.trainable_variables]]
