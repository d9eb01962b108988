"""One encoder and a head for each task."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import Dropout
from easytransfer.layers.plain import get_initializer
from modelzoo.backbone import Backbone


def logits_of(task: str) -> str:
    """Returns the name of the output of a task."""
    return f"{task}_logits"


class MultiTaskModel(keras.Model):
    """Encoder, dropout on the pooled [CLS], a dense layer for each task (MT-DNN, arXiv 1901.11504, section 3).

    Args:
        backbone: Encoder, shared by the tasks.
        outputs: Of each task its classes, or 1 for a number.
        dropout_rate: Dropout before the dense layers.

    Call arguments:
        batch: `input_ids`, `input_mask`, `segment_ids`, each [batch, tokens].

    Returns:
        Of every task, whichever a row is of, `<task>_logits` float32 [batch, outputs].
    """

    def __init__(self, backbone: Backbone, outputs: Mapping[str, int], dropout_rate: float) -> None:
        super().__init__(name="multi_task")
        self.backbone = backbone
        self.dropout = Dropout(dropout_rate, name="head_dropout")
        self.heads = {
            task: keras.layers.Dense(
                count,
                kernel_initializer=get_initializer(),
                dtype="float32",
                name=f"{task}_head",
            )
            for task, count in outputs.items()
        }

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        pooled = self.backbone(batch, training=training, pooled_only=True)["pooled_output"]
        vectors = tf.cast(self.dropout(pooled, training=training), tf.float32)
        return {logits_of(task): head(vectors) for task, head in self.heads.items()}

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with heads: what is trained when all layers are frozen."""
        *encoder, pooler = self.backbone.layer_groups()
        heads = [variable for head in self.heads.values() for variable in head.trainable_variables]
        return [*encoder, [*pooler, *heads]]
