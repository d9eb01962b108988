"""Encoder with two linear scores per token, and the history answer embedding of conversations."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import Dropout
from modelzoo.backbone import Backbone

# Score of padding: below any other, so that it takes no part in a softmax.
PADDING = -1e9


class SpanModel(keras.Model):
    """Scores every token as the start and as the end of the answer (BERT, arXiv 1810.04805, section 4.2).

    Args:
        backbone: Encoder.
        dropout_rate: Dropout before the scores.

    Call arguments:
        batch: `input_ids`, `input_mask`, `segment_ids`, each [batch, tokens].

    Returns:
        `start_logits` and `end_logits`, float32 [batch, tokens]; padding has `PADDING`.
    """

    # What stands behind the end of shorter rows of an output, where it is not 0.
    padding: ClassVar[dict[str, float]] = {"start_logits": PADDING, "end_logits": PADDING}

    def __init__(self, backbone: Backbone, dropout_rate: float) -> None:
        super().__init__(name="text_comprehension")
        self.backbone = backbone
        self.dropout = Dropout(dropout_rate, name="head_dropout")
        self.head = keras.layers.Dense(
            2, kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02), dtype="float32", name="head"
        )

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        tokens = self.backbone(self.backbone_inputs(batch), training=training)["sequence_output"]
        logits = self.head(tf.cast(self.dropout(tokens, training=training), tf.float32))
        logits = tf.where(tf.cast(batch["input_mask"], tf.bool)[:, :, None], logits, PADDING)
        return {"start_logits": logits[:, :, 0], "end_logits": logits[:, :, 1]}

    def backbone_inputs(self, batch: dict[str, tf.Tensor]) -> dict[str, Any]:
        """Returns what the encoder is called with."""
        return {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")}

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with head."""
        *encoder, pooler = self.backbone.layer_groups()
        return [*encoder, [*pooler, *self.head.trainable_variables]]


class HistorySpanModel(SpanModel):
    """The same with an embedding, as wide as that of words, that marks tokens of an earlier answer (Qu et al. 2019).

    It is added to the other embeddings before their LayerNorm (arXiv 1905.05412). `history_answer_marker` [batch,
    tokens] is 0 or 1.
    """

    def __init__(self, backbone: Backbone, dropout_rate: float) -> None:
        super().__init__(backbone, dropout_rate)
        self.history = keras.layers.Embedding(
            2,
            backbone.input_embeddings.shape[1],
            embeddings_initializer=keras.initializers.TruncatedNormal(stddev=backbone.config.initializer_range),
            name="history_answer_embedding",
        )

    def backbone_inputs(self, batch: dict[str, tf.Tensor]) -> dict[str, Any]:
        """Returns what the encoder is called with."""
        return {**super().backbone_inputs(batch), "added_embeddings": self.history(batch["history_answer_marker"])}

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings with that of the history, encoder layers, and pooler with head."""
        embeddings, *rest = super().layer_groups()
        return [[*embeddings, *self.history.trainable_variables], *rest]
