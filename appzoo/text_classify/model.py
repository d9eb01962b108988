"""Encoder with a dense head on the pooled output."""

from __future__ import annotations

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import Dropout
from modelzoo.bert.backbone import BertBackbone


class TextClassifier(keras.Model):
    """Encoder, dropout on the pooled output, dense head.

    Reference: BERT (arXiv 1810.04805), section 4.1.

    Args:
        backbone: Text encoder.
        num_outputs: Classes, or 1 for regression.
        dropout_rate: Dropout before the head.

    Inputs are `input_ids`, `input_mask`, `segment_ids`, each int32 [batch, time]; the output is
    `logits` float32 [batch, num_outputs].
    """

    def __init__(self, backbone: BertBackbone, num_outputs: int, dropout_rate: float) -> None:
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
        return {"logits": self.head(tf.cast(self.dropout(pooled, training=training), tf.float32))}
