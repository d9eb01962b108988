"""Two streams: layers of words, layers of regions, then layers in which both look at each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import Dropout
from modelzoo.encoder_network import Encoder, encoder_layer, layer_variable
from modelzoo.lxmert.config import LxmertConfig
from modelzoo.vision_language.embeddings import LabelEmbeddings
from modelzoo.vision_language.inputs import Visibility, visible

# Taken from the scores of what must not be seen, as in BERT's encoder layers.
_HIDDEN = 1e9


class RegionInputs(keras.layers.Layer):
    """(LN(W_f f + b_f) + LN(W_b box + b_b)) / 2 (Tan and Bansal 2019, arXiv 1908.07490, section 2.1).

    Args:
        config: Sizes and settings.

    Call arguments:
        features: [batch, regions, feature_size].
        boxes: Corners x1, y1, x2, y2 [batch, regions, 4], 0 to 1.

    Returns:
        [batch, regions, hidden].
    """

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__(name="regions")
        for part, width in (("projector", config.feature_size), ("boxes", config.box_size)):
            dense = keras.layers.Dense(config.hidden_size, kernel_initializer="zeros", name=part)
            _built(dense, width, f"regions/{part}")
            setattr(self, part, dense)
            setattr(self, f"{part}_norm", _norm(config, f"regions/{part}_norm"))
        self.dropout = Dropout(config.hidden_dropout_prob, name="dropout")
        self.built = True

    def call(self, features: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """See the class."""
        features = self.projector_norm(self.projector(features))
        return self.dropout((features + self.boxes_norm(self.boxes(boxes))) / 2)


class CrossAttention(keras.layers.Layer):
    """Attention to the other stream, with a residual and LayerNorm behind it.

    Args:
        config: Sizes and settings.
        name: Name.

    Call arguments:
        x: Stream that looks [batch, from, hidden].
        others: Stream that is looked at [batch, to, hidden].
        mask: 1 for what is real there, 0 for padding [batch, to].

    Returns:
        [batch, from, hidden], and the attention probabilities without dropout [batch, heads, from, to].
    """

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        hidden = config.hidden_size
        self._heads = config.num_attention_heads
        for part in ("query", "key", "value", "output"):
            dense = keras.layers.Dense(hidden, kernel_initializer="zeros", name=part)
            _built(dense, hidden, f"{name}/{part}")
            # `output` is a property of Keras' layers.
            setattr(self, f"{part}_dense", dense)
        self.norm = _norm(config, f"{name}/norm")
        self.dropout = Dropout(config.hidden_dropout_prob, name="dropout")
        self.probs_dropout = Dropout(config.attention_probs_dropout_prob, name="probs_dropout")
        self.built = True

    def call(self, x: tf.Tensor, others: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See the class."""
        queries = self._by_head(self.query_dense(x))
        keys, values = (self._by_head(dense(others)) for dense in (self.key_dense, self.value_dense))
        scores = tf.einsum("bihd,bjhd->bhij", queries, keys) * queries.shape[-1] ** -0.5
        hidden = (1 - tf.cast(mask, tf.float32))[:, None, None, :]
        probabilities = tf.nn.softmax(tf.cast(scores, tf.float32) - _HIDDEN * hidden)
        kept = self.probs_dropout(tf.cast(probabilities, values.dtype))
        attended = tf.reshape(tf.einsum("bhij,bjhd->bihd", kept, values), tf.shape(x))
        attended = self.dropout(self.output_dense(attended))
        return self.norm(tf.cast(attended, tf.float32) + tf.cast(x, tf.float32)), probabilities

    def _by_head(self, x: tf.Tensor) -> tf.Tensor:
        """Returns [batch, tokens, heads, size] of [batch, tokens, hidden]."""
        return tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1], self._heads, x.shape[-1] // self._heads])


class CrossLayer(keras.layers.Layer):
    """Each stream looks at the other, with one shared set of weights, then goes through a layer of its own.

    Section 2.2 of the paper; both directions read what came into the layer.

    Args:
        config: Sizes and settings.
        name: Name.

    Call arguments:
        text: [batch, words and pieces, hidden].
        regions: [batch, regions, hidden].
        text_mask: 1 for what is real [batch, words and pieces].
        region_mask: [batch, regions].
        text_visible: Who looks at whom inside the texts [batch, words and pieces, words and pieces].
        region_visible: The same of regions [batch, regions, regions].

    Returns:
        Both streams, and the attention of texts to regions and of regions to texts, each [batch, heads, from, to].
    """

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.attention = CrossAttention(config, f"{name}_attention")
        self.language, self.vision = (encoder_layer(config, f"{name}_{part}") for part in ("language", "vision"))
        self.built = True

    def call(
        self,
        text: tf.Tensor,
        regions: tf.Tensor,
        text_mask: tf.Tensor,
        region_mask: tf.Tensor,
        text_visible: tf.Tensor,
        region_visible: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """See the class."""
        of_text, to_regions = self.attention(text, regions, region_mask)
        of_regions, to_text = self.attention(regions, text, text_mask)
        return (
            self.language([of_text, text_visible]),
            self.vision([of_regions, region_visible]),
            to_regions,
            to_text,
        )


class TwoStreams(keras.layers.Layer):
    """The encoder of LXMERT; words and labels are the one stream, regions the other.

    Args:
        config: Sizes and settings.

    Call arguments:
        As of `SingleStream`; `first_tokens` is ignored, as a stream is whole up to its end.

    Returns:
        As of `SingleStream`. `attentions` has the layers in which the streams look at each other, and of them what the
        one gives to the other; within a stream it is zero.
    """

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__(name="two_streams")
        self.text = Encoder(config)
        self.regions = RegionInputs(config)
        self.labels = LabelEmbeddings(config) if config.label_slots else None
        self.region_layers = [encoder_layer(config, f"region_layer_{i}") for i in range(config.r_layers)]
        self.cross_layers = [CrossLayer(config, f"cross_layer_{i}") for i in range(config.x_layers)]
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
        text, text_mask = self.text.normalized(self.text.embedded(dict(words))), words["input_mask"]
        label_mask = None
        if labels is not None:
            x = self.labels(labels, self.text.variable("words"), self.text.variable("segments"))
            text, label_mask = tf.concat([text, self.text.normalized(x)], axis=1), labels["label_mask"]
            text_mask = tf.concat([text_mask, tf.cast(label_mask, text_mask.dtype)], axis=1)
        region_mask = regions["region_mask"]
        text_visible = visible(words["input_mask"], label_mask, None, visibility, text.dtype)
        region_visible = tf.cast(region_mask, text.dtype)[:, None, :] * tf.ones_like(region_mask, text.dtype)[..., None]
        text = self.text.states(text, text_visible)[-1]
        x = self.regions(tf.cast(regions["features"], self.compute_dtype), regions["boxes"])
        for layer in self.region_layers:
            x = layer([x, region_visible])
        attentions = []
        for layer in self.cross_layers:
            text, x, to_regions, to_text = layer(text, x, text_mask, region_mask, text_visible, region_visible)
            if with_attentions:
                attentions.append(_of_both(to_regions, to_text))
        found = {"text_states": text, "region_states": x, "pooled_output": self.text.pooled(text)}
        return found | ({"attentions": tuple(attentions)} if with_attentions else {})

    def variable(self, path: str) -> tf.Variable:
        """Returns a variable by its path in the table of weights."""
        part, *rest = path.split(".")
        if part == "region_layers":
            return layer_variable(self.region_layers[int(rest[0])], ".".join(rest[1:]))
        if part == "cross_layers":
            layer, (kind, *rest) = self.cross_layers[int(rest[0])], rest[1:]
            if kind != "attention":
                return layer_variable(getattr(layer, kind), ".".join(rest))
            part = rest[0] if rest[0] == "norm" else f"{rest[0]}_dense"
            return getattr(getattr(layer.attention, part), rest[1])
        if part == "labels":
            return getattr(self.labels, rest[0])
        if part == "regions":
            return getattr(getattr(self.regions, rest[0]), rest[1])
        return self.text.variable(path)


def _of_both(to_regions: tf.Tensor, to_text: tf.Tensor) -> tf.Tensor:
    """Returns the attention of both streams to each other, [batch, heads, all, all], texts first."""
    texts, regions = tf.shape(to_regions)[2], tf.shape(to_regions)[3]
    of_text = tf.pad(to_regions, [[0, 0], [0, 0], [0, 0], [texts, 0]])
    return tf.concat([of_text, tf.pad(to_text, [[0, 0], [0, 0], [0, 0], [0, regions]])], axis=2)


def _norm(config: LxmertConfig, name: str) -> keras.layers.LayerNormalization:
    layer = keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, dtype=tf.float32, name="norm")
    return _built(layer, config.hidden_size, name)


def _built(layer: keras.layers.Layer, width: int, name: str) -> keras.layers.Layer:
    with tf.name_scope(name):
        layer.build([None, None, width])
    return layer
