"""The network of XLNet: two streams of attention with relative positions and a memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import Dropout
from easytransfer.layers.lora import KernelLayer, Projection, dense_projection
from modelzoo.encoder_network import ACTIVATIONS
from modelzoo.xlnet.config import XlnetConfig

# Kernels that adapters may change, by what they compute.
_HEADS = {"query": "q", "key": "k", "value": "v"}
_FEED_FORWARD = {"inner": "inner", "output": "outer"}
# Taken from the scores of tokens that must not be seen, as in the original.
_HIDDEN = 1e30


class XlnetEncoder(keras.Model):
    """Word embeddings, layers of relative attention, and a tanh summary of the last real token.

    Args:
        config: Sizes and settings.

    Call arguments:
        inputs: `input_ids` and `segment_ids`, integer [batch, tokens], or `embeddings` [batch, tokens, hidden] in place
            of the ids; `input_mask`, integer [batch, tokens] or [batch, tokens, tokens], 1 where a token is seen;
            (optional) `added_embeddings`, as wide as embeddings; (optional) `perm_mask` [batch, tokens, tokens], 1
            where the first token must not see the second; (optional) `target_mapping` [batch, targets, tokens], 1 at
            the place of each target, which asks for the query stream; (optional) `memory`, of every layer [batch,
            places, hidden].

    Returns:
        `hidden_states` of the content stream, `output` [batch, tokens, hidden], the last of them with dropout,
        `query_output` [batch, targets, hidden] where targets were given, and `memory`, of every layer what it read.
    """

    def __init__(self, config: XlnetConfig) -> None:
        super().__init__(name="encoder")
        self.config, hidden = config, config.hidden_size
        self.words = keras.layers.Embedding(config.vocab_size, hidden, embeddings_initializer="zeros", name="words")
        self.words.build(None)
        self.mask_embedding = self.add_weight("mask_embedding", [1, 1, hidden], initializer="zeros")
        self.dropout = Dropout(config.hidden_dropout_prob, name="dropout")
        self.blocks = [XlnetLayer(config, name=f"layer_{number}") for number in range(config.num_hidden_layers)]
        self.pooler = keras.layers.Dense(hidden, "tanh", kernel_initializer="zeros", name="summary")
        self.pooler.build([None, hidden])
        self.built = True

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """See the class."""
        x = self.dropout(self.embedded(inputs))
        memory, targets = inputs.get("memory"), inputs.get("target_mapping")
        places = 0 if memory is None else tf.shape(memory[0])[1]
        hidden, hidden_from_self = self._hidden(inputs, places)
        relation = Relation(
            positions=self.dropout(encoded_distances(tf.shape(x)[1], places, self.config, x.dtype)),
            hidden=hidden,
            hidden_from_self=hidden_from_self,
            others=self._other_segments(inputs, x, places),
            targets=None if targets is None else tf.cast(targets, x.dtype),
        )
        queries = None
        if targets is not None:
            shape = [tf.shape(targets)[0], tf.shape(targets)[1], self.config.hidden_size]
            queries = self.dropout(tf.broadcast_to(tf.cast(self.mask_embedding, x.dtype), shape))
        states = [x]
        for number, block in enumerate(self.blocks):
            past = None if memory is None else tf.cast(memory[number], x.dtype)
            x, queries = block(x, queries=queries, relation=relation, memory=past)
            states.append(x)
        found = {"hidden_states": tuple(states), "output": self.dropout(x)}
        return found if queries is None else {**found, "query_output": self.dropout(queries)}

    def embedded(self, inputs: dict[str, Any]) -> tf.Tensor:
        """Returns the embeddings of the words [batch, tokens, hidden], with what is added to them."""
        if "input_ids" in inputs:
            x = self.words(inputs["input_ids"])
        else:
            x = tf.cast(inputs["embeddings"], self.compute_dtype)
        return x if "added_embeddings" not in inputs else x + tf.cast(inputs["added_embeddings"], x.dtype)

    def projections(self) -> dict[str, list[Projection]]:
        """Returns the kernels that adapters may change; those of attention serve both streams."""
        layers = [(f"layer_{number}", number + 1, block) for number, block in enumerate(self.blocks)]
        found = {
            name: [block.projection(f"{place}/{name}", depth, kernel) for place, depth, block in layers]
            for name, kernel in _HEADS.items()
        }
        found["attention_output"] = [
            block.projection(f"{place}/attention_output", depth, "o", inputs=2, outputs_first=True)
            for place, depth, block in layers
        ]
        for name, attribute in _FEED_FORWARD.items():
            found[name] = [
                dense_projection(f"{place}/{name}", depth, block, attribute) for place, depth, block in layers
            ]
        return found

    def variable(self, path: str) -> tf.Variable:
        """Returns a variable by its path in the table of weights, such as `layers.0.q`."""
        if path == "words":
            return self.words.embeddings
        found: Any = self
        for step in path.split("."):
            found = found[int(step)] if step.isdigit() else getattr(found, "blocks" if step == "layers" else step)
        return found

    def remembered(self, states: Sequence[tf.Tensor], memory: Sequence[tf.Tensor] | None) -> tuple[tf.Tensor, ...]:
        """Returns the memory of every layer behind a segment (arXiv 1906.08237, section 2.4), without a gradient.

        Args:
            states: What the layers read of the segment, each [batch, tokens, hidden].
            memory: Their memory before it.
        """
        first, most = self.config.reuse_len or None, -(self.config.mem_len or 0) or None
        states = [state[:, :first] for state in states[: len(self.blocks)]]
        if memory is not None:
            states = [
                tf.concat([tf.cast(old, new.dtype), new], axis=1) for old, new in zip(memory, states, strict=True)
            ]
        return tuple(tf.stop_gradient(state[:, most:]) for state in states)

    def _hidden(self, inputs: dict[str, Any], places: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns which tokens the query stream and the content stream must not see, float [batch, 1, from, to].

        Tokens of the content stream see themselves, padding included; all of the memory is seen.
        """
        mask = tf.cast(tf.convert_to_tensor(inputs["input_mask"]), tf.float32)
        hidden = 1 - (mask[:, None, :] if mask.shape.rank == 2 else mask)
        if "perm_mask" in inputs:
            hidden = tf.maximum(hidden, tf.cast(inputs["perm_mask"], tf.float32))
        size = tf.shape(mask)[-1]
        content = hidden * (1 - tf.eye(size))
        past = tf.zeros([tf.shape(mask)[0], tf.shape(hidden)[1], places])
        past_content = tf.zeros([tf.shape(mask)[0], size, places])
        return tuple(tf.concat(parts, 2)[:, None] for parts in ([past, hidden], [past_content, content]))

    def _other_segments(self, inputs: dict[str, Any], x: tf.Tensor, places: Any) -> tf.Tensor:
        """Returns whether two tokens are of other segments, bool [batch, 1, from, to]; the memory is of segment 0."""
        segments = inputs.get("segment_ids")
        segments = tf.zeros(tf.shape(x)[:2], tf.int32) if segments is None else tf.cast(segments, tf.int32)
        seen = tf.concat([tf.zeros([tf.shape(x)[0], places], tf.int32), segments], axis=1)
        return tf.not_equal(segments[:, None, :, None], seen[:, None, None, :])


class Relation(NamedTuple):
    """What all layers read of the places of tokens.

    Attributes:
        positions: Encoded distances, see `encoded_distances`.
        hidden: What the query stream must not see, 1 there, float32 [batch, 1, from, to].
        hidden_from_self: The same of the content stream.
        others: Whether tokens are of other segments, bool [batch, 1, from, to].
        targets: 1 at the place of each target, [batch, targets, tokens]; None without targets.
    """

    positions: tf.Tensor
    hidden: tf.Tensor
    hidden_from_self: tf.Tensor
    others: tf.Tensor
    targets: tf.Tensor | None


class XlnetLayer(KernelLayer):
    """Relative attention and a feed-forward part, each with a residual and LayerNorm behind it.

    Scores are the sum of content, position and segment (Yang et al. 2019, arXiv 1906.08237, sections 2.4 and 2.5; Dai
    et al. 2019, arXiv 1901.02860, section 3.3).

    Args:
        config: Sizes and settings.

    Call arguments:
        x: Content stream [batch, tokens, hidden].
        queries: Query stream [batch, targets, hidden], None without targets.
        relation: See `XlnetEncoder.call`.
        memory: What this layer read of earlier segments [batch, places, hidden].

    Returns:
        Both streams, shaped as before.
    """

    def __init__(self, config: XlnetConfig, name: str) -> None:
        super().__init__(name=name)
        hidden, heads = config.hidden_size, config.num_attention_heads
        size = hidden // heads
        self._scale = size**-0.5
        for part in "qkvor":
            setattr(self, part, self.add_weight(part, [hidden, heads, size], initializer="zeros"))
        for part in ("r_w_bias", "r_r_bias", "r_s_bias"):
            setattr(self, part, self.add_weight(part, [heads, size], initializer="zeros"))
        self.seg_embed = self.add_weight("seg_embed", [2, heads, size], initializer="zeros")
        self.attention_norm, self.output_norm = (
            keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, dtype=tf.float32, name=part)
            for part in ("attention_norm", "output_norm")
        )
        self.inner = keras.layers.Dense(config.intermediate_size, kernel_initializer="zeros", name="inner")
        self.activation = ACTIVATIONS[config.hidden_act]
        self.outer = keras.layers.Dense(hidden, kernel_initializer="zeros", name="outer")
        for layer, width in (
            *((norm, hidden) for norm in (self.attention_norm, self.output_norm)),
            *((self.inner, hidden), (self.outer, config.intermediate_size)),
        ):
            layer.build([None, None, width])
        self.dropout = Dropout(config.hidden_dropout_prob, name="dropout")
        self.probs_dropout = Dropout(config.attention_probs_dropout_prob, name="probs_dropout")
        self.built = True

    def _projected(self, part: str, x: tf.Tensor) -> tf.Tensor:
        """Returns states [batch, tokens, hidden] as heads [batch, tokens, heads, size]."""
        return self.with_adapter(part, tf.einsum("bih,hnd->bind", x, getattr(self, part)), x)

    def call(
        self, x: tf.Tensor, queries: tf.Tensor | None, relation: Relation, memory: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """See the class."""
        seen = x if memory is None else tf.concat([memory, x], axis=1)
        keys, values = (self._projected(part, seen) for part in "kv")
        of_seen = (keys, values, tf.einsum("jh,hnd->jnd", relation.positions, self.r), relation.others)
        heads = self._projected("q", x)
        of_content = self._attended(heads, relation.hidden_from_self, *of_seen)
        if queries is not None:
            heads = self._projected("q", queries)
            # Each query asks from the place of its target.
            heads = tf.einsum("bmnd,bmi->bind", heads, relation.targets)
            found = self._attended(heads, relation.hidden, *of_seen)
            queries = self._finished(queries, tf.einsum("bind,bmi->bmnd", found, relation.targets))
        return self._finished(x, of_content), queries

    def _attended(
        self,
        heads: tf.Tensor,
        hidden: tf.Tensor,
        keys: tf.Tensor,
        values: tf.Tensor,
        positions: tf.Tensor,
        others: tf.Tensor,
    ) -> tf.Tensor:
        """Returns the mean of `values`, weighted by attention, [batch, tokens, heads, size]."""
        by_content = tf.einsum("bind,bjnd->bnij", heads + self.r_w_bias, keys)
        by_position = tf.einsum("bind,jnd->bnij", heads + self.r_r_bias, positions)
        by_segment = tf.einsum("bind,snd->bnis", heads + self.r_s_bias, self.seg_embed)
        by_segment = tf.where(others, by_segment[..., 1:], by_segment[..., :1])
        scores = by_content + relative_shift(by_position, tf.shape(keys)[1]) + by_segment
        scores = tf.cast(scores, tf.float32) * self._scale - _HIDDEN * hidden
        probabilities = self.probs_dropout(tf.cast(tf.nn.softmax(scores), values.dtype))
        return tf.einsum("bnij,bjnd->bind", probabilities, values)

    def _finished(self, x: tf.Tensor, attended: tf.Tensor) -> tf.Tensor:
        """Returns a stream behind the rest of the layer."""
        found = self.dropout(self.with_adapter("o", tf.einsum("bind,hnd->bih", attended, self.o), attended))
        x = tf.cast(self.attention_norm(tf.cast(x + found, tf.float32)), x.dtype)
        found = self.dropout(self.outer(self.dropout(self.activation(self.inner(x)))))
        return tf.cast(self.output_norm(tf.cast(x + found, tf.float32)), x.dtype)


def encoded_distances(tokens: Any, places: Any, config: XlnetConfig, dtype: Any) -> tf.Tensor:
    """Returns sines and cosines of the distances from `tokens + places` down to `1 - tokens`, [distances, hidden].

    Args:
        tokens: Length of the segment.
        places: Length of the memory.
        config: Width, and `clamp_len`.
        dtype: Of the result.
    """
    distances = tf.cast(tf.range(tokens + places, -tokens, -1), tf.float32)
    if config.clamp_len > 0:
        distances = tf.clip_by_value(distances, -float(config.clamp_len), float(config.clamp_len))
    frequencies = 1 / 10000 ** (tf.range(0, config.hidden_size, 2, tf.float32) / config.hidden_size)
    angles = distances[:, None] * frequencies
    return tf.cast(tf.concat([tf.sin(angles), tf.cos(angles)], axis=-1), dtype)


def relative_shift(scores: tf.Tensor, length: Any) -> tf.Tensor:
    """Turns scores by distance into scores by place (Dai et al. 2019, arXiv 1901.02860, appendix B).

    Args:
        scores: [batch, heads, tokens, distances], the largest distance first.
        length: Places to return, memory included.

    Returns:
        [batch, heads, tokens, length]: at (i, j) the score of token i for its distance from place j.
    """
    batch, heads, tokens, distances = tf.unstack(tf.shape(scores))
    # One line of memory, read in lines that are shorter by one, begins one place later in every line.
    scores = tf.reshape(scores, [batch, heads, distances, tokens])[:, :, 1:]
    return tf.reshape(scores, [batch, heads, tokens, distances - 1])[..., :length]
