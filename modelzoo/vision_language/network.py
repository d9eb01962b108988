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
        regions: `features`, `region_mask` and, with `box_size`, `boxes`.
        visibility: Whether words and labels look at each other, see `visible`.
        first_tokens: Compute the last layer for so many first tokens only.
        with_attentions: Also return the attention probabilities.

    Returns:
        The last states: `text_states` [batch, words + pieces, hidden], `region_states` [batch, regions, hidden];
        `pooled_output` [batch, hidden], and on request `attentions`, of each layer [batch, heads, from, to].
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
        regions: Mapping[str, tf.Tensor],
        visibility: Visibility = "all",
        first_tokens: int | None = None,
        with_attentions: bool = False,
    ) -> dict[str, Any]:
        """See the class."""
        boxes = regions.get("boxes")
        parts, masks = [self.text.normalized(self.text.embedded(dict(words)))], [words["input_mask"], None]
        if labels is not None:
            x = self.labels(labels, self.text.variable("words"), self.text.variable("segments"))
            if self.config.links_labels:
                x = x + linked(labels["label_slot"], labels["label_region"], self.regions.of_boxes(boxes))
            parts.append(self.text.normalized(x))
            masks[1] = labels["label_mask"]
        parts.append(self.regions(tf.cast(regions["features"], self.compute_dtype), boxes))
        x = tf.concat([tf.cast(part, parts[0].dtype) for part in parts], axis=1)
        mask = visible(*masks, regions["region_mask"], visibility, x.dtype)
        states = self.text.states(x, mask, first_tokens)
        behind = tf.shape(x)[1] - tf.shape(parts[-1])[1]
        found = {
            "text_states": states[-1][:, :behind],
            "region_states": states[-1][:, behind:],
            "pooled_output": self.text.pooled(states[-1]),
        }
        return found | ({"attentions": self.text.attentions(states, mask)} if with_attentions else {})

    def variable(self, path: str) -> tf.Variable:
        """Returns a variable by its path in the table of weights."""
        part, *rest = path.split(".")
        if part not in ("regions", "labels"):
            return self.text.variable(path)
        found: Any = getattr(self, part)
        for step in rest:
            found = getattr(found, step)
        return found
