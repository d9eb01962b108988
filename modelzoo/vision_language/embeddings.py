"""Embeddings of regions and of labels."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import Dropout
from modelzoo.vision_language.config import BOX_NUMBERS, SingleStreamConfig, VisionLanguageConfig


def box_numbers(boxes: tf.Tensor) -> tf.Tensor:
    """Returns corners, width, height and area [..., 7] of boxes x1, y1, x2, y2 [..., 4].

    As in UNITER (Chen et al. 2020, arXiv 1909.11740, section 3.1).
    """
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    width, height = x2 - x1, y2 - y1
    return tf.stack([x1, y1, x2, y2, width, height, width * height], axis=-1)


class RegionEmbeddings(keras.layers.Layer):
    """What a single stream reads of regions: LN(W_f f + position + type [+ W_b box]).

    FashionBERT (Gao et al. 2020, arXiv 2005.09801, section 3.2) for patches; boxes as in UNITER. All regions have the
    second type.

    Args:
        config: Sizes and settings.

    Call arguments:
        features: [batch, regions, feature_size].
        boxes: [batch, regions, 4], 0 to 1; None where the configuration has no boxes.

    Returns:
        [batch, regions, hidden].
    """

    def __init__(self, config: SingleStreamConfig) -> None:
        super().__init__(name="regions")
        self.projector = self._table("projector", config.feature_size, config)
        self.positions = self._table("positions", config.max_regions, config) if config.region_positions else None
        self.types = self._table("types", config.region_types, config)
        self.boxes = self._table("boxes", BOX_NUMBERS, config) if config.box_size else None
        self.norm = keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, dtype=tf.float32, name="norm")
        with tf.name_scope("regions/norm"):
            self.norm.build([None, None, config.hidden_size])
        self.dropout = Dropout(config.hidden_dropout_prob, name="dropout")
        self.built = True

    def _table(self, name: str, rows: int, config: SingleStreamConfig) -> tf.Variable:
        return self.add_weight(f"regions/{name}", [rows, config.hidden_size], initializer="zeros")

    def call(self, features: tf.Tensor, boxes: tf.Tensor | None = None) -> tf.Tensor:
        """See the class."""
        x = tf.einsum("bkf,fh->bkh", features, self.projector) + self.types[1]
        if self.positions is not None:
            x = x + self.positions[: tf.shape(features)[1]]
        if boxes is not None:
            x = x + self.of_boxes(boxes)
        return self.dropout(self.norm(x))

    def of_boxes(self, boxes: tf.Tensor) -> tf.Tensor:
        """Returns W_b box [batch, boxes, hidden]."""
        return tf.einsum("bkn,nh->bkh", tf.cast(box_numbers(boxes), self.compute_dtype), self.boxes)


class LabelEmbeddings(keras.layers.Layer):
    """What a network reads of labels, before its LayerNorm: E_word + E_slot + E_inner + E_segment(1).

    E_slot says which label a piece belongs to, E_inner which piece of it; a piece of none, such as [SEP], has neither.

    Args:
        config: Sizes and settings.

    Call arguments:
        labels: `label_ids`, `label_slot`, -1 for none, and `label_inner`, each integer [batch, pieces].
        words: Table of words [vocab, hidden].
        segments: Table of segments [type_vocab_size, hidden].

    Returns:
        [batch, pieces, hidden].
    """

    def __init__(self, config: VisionLanguageConfig) -> None:
        super().__init__(name="labels")
        hidden = config.hidden_size
        self.slot = self.add_weight("labels/slot", [config.label_slots, hidden], initializer="zeros")
        self.inner = self.add_weight("labels/inner", [config.label_pieces, hidden], initializer="zeros")
        self.built = True

    def call(self, labels: Mapping[str, tf.Tensor], words: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
        """See the class."""
        slots, of_label = labels["label_slot"], labels["label_slot"] >= 0
        x = tf.gather(self.slot, tf.where(of_label, slots, 0))
        x = x + tf.gather(self.inner, tf.where(of_label, labels["label_inner"], 0))
        x = tf.where(of_label[..., None], x, tf.zeros_like(x))
        return x + tf.cast(tf.gather(words, labels["label_ids"]) + segments[1], x.dtype)


def linked(slots: tf.Tensor, regions: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """Returns for each piece the vector of the region that its label came from, zeros for none.

    Args:
        slots: Which label a piece belongs to, -1 for none, integer [batch, pieces].
        regions: Region of each label, -1 for none, integer [batch, labels].
        vectors: Of the regions [batch, regions, width].

    Returns:
        [batch, pieces, width].
    """
    region = tf.gather(regions, tf.maximum(slots, 0), batch_dims=1)
    known = (slots >= 0) & (region >= 0)
    found = tf.gather(vectors, tf.where(known, region, 0), batch_dims=1)
    return tf.where(known[..., None], found, tf.zeros_like(found))
