"""One stream: words, labels and regions through one encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from easytransfer import keras
from modelzoo.encoder_network import Encoder
from modelzoo.vision_language.config import SingleStreamConfig
from modelzoo.vision_language.embeddings import LabelEmbeddings, RegionEmbeddings, linked
from modelzoo.vision_language.inputs import Visibility, visible


class SingleStream(keras.layers.Layer):
    """The encoder of BERT on the sequence words, labels, regions.

    Args:
        config: Sizes and settings.

    Call arguments:
        words: `input_ids`, `segment_ids`, `input_mask`.
        labels: `label_ids`, `label_slot`, `label_inner`, `label_mask` and, with `label_link` box, `label_region`; None
            without labels.
        regions: `features`, `region_mask` and, with `box_size`, `boxes`; None for texts alone.
        visibility: Whether words and labels look at each other, see `visible`.
        first_tokens: Compute the last layer for so many first tokens only.
        with_attentions: Also return the attention probabilities.

    Returns:
        `states`, the last of the sequence [batch, words + pieces + regions, hidden], `pooled_output` [batch, hidden],
        and on request `attentions`, of each layer [batch, heads, from, to].
    """

    def __init__(self, config: SingleStreamConfig) -> None:
        super().__init__(name="single_stream")
        self.config = config
        self.text = Encoder(config)
        self.regions = RegionEmbeddings(config)
        self.labels = LabelEmbeddings(config) if config.label_slots else None
        self.built = True

    def call(
        self,
        words: Mapping[str, tf.Tensor],
        labels: Mapping[str, tf.Tensor] | None,
        regions: Mapping[str, tf.Tensor] | None,
        visibility: Visibility = "all",
        first_tokens: int | None = None,
        with_attentions: bool = False,
    ) -> dict[str, Any]:
        """See the class."""
        parts = [self.text.normalized(self.text.embedded(dict(words)))]
        boxes = None if regions is None or not self.config.box_size else regions["boxes"]
        if labels is not None:
            parts.append(self.text.normalized(self.embedded_labels(labels, boxes)))
        if regions is not None:
            parts.append(self.regions(tf.cast(regions["features"], self.compute_dtype), boxes))
        x = tf.concat([tf.cast(part, parts[0].dtype) for part in parts], axis=1)
        mask = visible(
            words["input_mask"],
            None if labels is None else labels["label_mask"],
            None if regions is None else regions["region_mask"],
            visibility,
            x.dtype,
        )
        states = self.text.states(x, mask, first_tokens)
        found = {"states": states[-1], "pooled_output": self.text.pooled(states[-1])}
        return found | ({"attentions": self.text.attentions(states, mask)} if with_attentions else {})

    def embedded_labels(self, labels: Mapping[str, tf.Tensor], boxes: tf.Tensor | None) -> tf.Tensor:
        """Returns E_word + E_slot + E_inner + E_segment(1) of labels [batch, pieces, hidden], before their LayerNorm.

        Args:
            labels: As in a call.
            boxes: Of the regions [batch, regions, 4]; None where boxes are not read.
        """
        x = tf.gather(self.text.variable("words"), labels["label_ids"]) + self.text.variable("segments")[1]
        x = tf.cast(x, self.compute_dtype) + self.labels(labels["label_slot"], labels["label_inner"])
        if self.config.label_link == "box" and boxes is not None:
            x = x + linked(labels["label_slot"], labels["label_region"], self.regions.of_boxes(boxes))
        return x

    def variable(self, path: str) -> tf.Variable:
        """Returns a variable by its path in the table of weights."""
        part, *rest = path.split(".")
        if part not in ("regions", "labels"):
            return self.text.variable(path)
        found: Any = getattr(self, part)
        for step in rest:
            found = getattr(found, step)
        return found
