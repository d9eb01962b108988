"""The network of two towers: one text to its vector, two texts to two vectors and their cosine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from appzoo.encoder import token_batch
from easytransfer import keras
from easytransfer.layers.dropout import Dropout
from easytransfer.losses.matching import cosine
from modelzoo.backbone import Backbone

_INPUTS = ("input_ids", "input_mask", "segment_ids")


class Tower(keras.Model):
    """Turns a text into its vector: the pooled output of an encoder, or a projection of the token that stands for it.

    Args:
        backbone: Encoder.
        projection_dim: Length of the projection; below 1 for none.
        dropout_rate: Dropout on the vector in training.

    Call arguments:
        batch: `input_ids`, `input_mask`, `segment_ids`, each [batch, tokens].

    Returns:
        `vector` float32 [batch, size], not scaled to length 1.
    """

    def __init__(self, backbone: Backbone, projection_dim: int = -1, dropout_rate: float = 0.0) -> None:
        super().__init__(name="tower")
        self.backbone = backbone
        self.dropout = Dropout(dropout_rate, name="vector_dropout")
        self.projection = None
        if projection_dim > 0:
            initializer = keras.initializers.TruncatedNormal(stddev=0.02)
            self.projection = keras.layers.Dense(
                projection_dim, kernel_initializer=initializer, dtype="float32", name="projection"
            )

    @property
    def projection_variables(self) -> list[tf.Variable]:
        """Variables that are not the encoder's."""
        return [] if self.projection is None else list(self.projection.trainable_variables)

    def call(self, batch: Mapping[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        outputs = self.backbone(batch, training=training, pooled_only=self.projection is None)
        return {"vector": self.dropout(self.vector_of(outputs), training=training)}

    def vector_of(self, outputs: Mapping[str, Any]) -> tf.Tensor:
        """Returns the vectors [batch, size] that belong to outputs of the encoder, such as a feature job has."""
        if self.projection is None:
            return tf.cast(outputs["pooled_output"], tf.float32)
        return self.projection(tf.cast(outputs["summary_state"], tf.float32))


class TwoTowerModel(keras.Model):
    """Both texts through one tower.

    Args:
        tower: Network of one text.

    Call arguments:
        batch: `input_ids`, `input_mask`, `segment_ids` of first texts and the same with `_b` of second ones; the two
            sides may differ in width.

    Returns:
        `logits` (the cosine) [batch], `vector_a` and `vector_b` [batch, size], all float32.
    """

    def __init__(self, tower: Tower) -> None:
        super().__init__(name="two_towers")
        self.tower = tower

    @property
    def backbone(self) -> Backbone:
        """The encoder that both texts go through."""
        return self.tower.backbone

    @property
    def compiled_part(self) -> Tower:
        """What turns one text into its vector, the same for both texts; signatures call it for one of them too."""
        return self.tower

    def text_vector(self, outputs: Mapping[str, Any]) -> tf.Tensor:
        """Returns the vectors [batch, size] of texts from what the encoder returned for them."""
        return self.tower.vector_of(outputs)

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with projection."""
        *encoder, pooler = self.backbone.layer_groups()
        return [*encoder, [*pooler, *self.tower.projection_variables]]

    def call(self, batch: Mapping[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        first, second = (
            self.tower({name: batch[name + side] for name in _INPUTS if name + side in batch}, training=training)
            for side in ("", "_b")
        )
        a, b = first["vector"], second["vector"]
        return {"logits": cosine(a, b), "vector_a": a, "vector_b": b}


def pair_batch() -> dict[str, tf.Tensor]:
    """Returns the smallest batch that builds the variables of both towers."""
    side = token_batch()
    return {**side, **{f"{name}_b": value for name, value in side.items()}}
