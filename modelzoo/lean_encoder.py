"""Encoders like BERT on one text without padding, in few and large operations, as LiteRT computes fastest.

Matrix products have two axes, the scale of the attention is part of the query's weights, and where only the first
token is read the last layer is computed for it alone. Weights are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.errors import ConfigError
from modelzoo.encoder_backbone import EncoderBackbone
from modelzoo.encoder_network import ACTIVATIONS, Encoder

# A table of fewer numbers stays in float32.
SMALLEST = 4096
# Steps of the scale of a row of an int8 table: the precision of float32.
_SCALE_STEPS = 1 << 24


class LeanEncoder:
    """The encoder of a backbone on one text.

    Args:
        backbone: With trained weights.
        int8: Whether tables of embeddings are whole numbers from -127 to 127 with a scale for each row. Matrices are
            left to LiteRT's converter.

    Raises:
        ConfigError: The encoder is of another kind.
    """

    def __init__(self, backbone: EncoderBackbone, *, int8: bool = False) -> None:
        if not isinstance(backbone.encoder, Encoder):
            raise ConfigError(
                f"encoders of the family {backbone.family.name} are not exported for LiteRT",
                accepted="encoders like BERT",
                fix="leave litert and litert-int8 out of exportVariants",
            )
        self._backbone, self._config, self._int8 = backbone, backbone.config, int8

    def __call__(
        self, inputs: Mapping[str, tf.Tensor], positions: tf.Tensor, pooled_only: bool = False
    ) -> dict[str, Any]:
        """Returns what the backbone returns for the text.

        Args:
            inputs: `input_ids` int32 [1, tokens]; `segment_ids` where the encoder has segments; `added_embeddings`
                float32 [1, tokens, width of the word embeddings] (optional).
            positions: 0, 1, 2, ... int32 [1, tokens].
            pooled_only: Return `pooled_output` alone.
        """
        x = self._embedded(inputs, positions)
        layers, states = self._config.num_hidden_layers, [x]
        for depth in range(layers - 1):
            x = self._layer(depth, x, x)
            states.append(x)
        first = self._layer(layers - 1, x[:1], x)
        pooled = tf.tanh(self._dense("pooler", first))
        if pooled_only:
            return {"pooled_output": pooled}
        # The converter leaves out what the network does not read.
        states.append(self._layer(layers - 1, x, x))
        hidden = tuple(tf.reshape(each, [1, -1, self._config.hidden_size]) for each in states)
        found = {"sequence_output": hidden[-1], "summary_state": first, "pooled_output": pooled}
        return {**found, "hidden_states": hidden}

    def _embedded(self, inputs: Mapping[str, tf.Tensor], positions: tf.Tensor) -> tf.Tensor:
        """Returns what the first layer reads, [tokens, hidden]."""
        config, places = self._config, self._value("positions")[self._config.first_position :]
        x = self._rows(self._value("words"), inputs["input_ids"])
        if "added_embeddings" in inputs:
            x = x + tf.reshape(inputs["added_embeddings"], [-1, x.shape[-1]])
        segments = self._value("segments")
        if len(segments) == 1:
            places = places + segments
        else:
            x = x + self._rows(segments, inputs["segment_ids"])
        x = self._norm("norm", x + self._rows(places, positions))
        return x if config.word_width == config.hidden_size else self._dense("projection", x)

    def _rows(self, table: np.ndarray, ids: tf.Tensor) -> tf.Tensor:
        """Returns rows of a table, [tokens, width]."""
        ids = tf.reshape(ids, [-1])
        if not self._int8 or table.size < SMALLEST:
            return tf.gather(tf.constant(table), ids)
        scale = np.abs(table).max(axis=1, keepdims=True).astype(np.float64) / 127
        # Scales as whole numbers, since the converter would round a table of floating-point ones to eight bits;
        # upwards, so that no number is above 127.
        unit = np.float32(max(scale.max() / _SCALE_STEPS, np.finfo(np.float32).tiny))
        steps = np.maximum(np.ceil(scale / unit), 1)
        numbers = np.clip(np.rint(table / (steps * unit)), -127, 127)
        scales = tf.cast(tf.gather(tf.constant(steps.astype(np.int32)), ids), tf.float32) * unit
        return tf.cast(tf.gather(tf.constant(numbers.astype(np.int8)), ids), tf.float32) * scales

    def _layer(self, depth: int, x: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
        """Returns the output of a layer [tokens, hidden] for tokens `x` that look at all of `seen`."""
        at = f"layers.{depth % self._config.stored_layers}."
        heads = self._config.num_attention_heads
        size = self._config.hidden_size // heads

        def by_head(part: str, of: tf.Tensor, scale: float = 1.0) -> tf.Tensor:
            return tf.transpose(tf.reshape(self._dense(at + part, of, scale), [-1, heads, size]), [1, 0, 2])

        query, key, value = by_head("query", x, size**-0.5), by_head("key", seen), by_head("value", seen)
        attended = tf.matmul(tf.nn.softmax(tf.matmul(query, key, transpose_b=True)), value)
        attended = tf.reshape(tf.transpose(attended, [1, 0, 2]), [-1, self._config.hidden_size])
        x = self._norm(at + "attention_norm", x + self._dense(at + "attention_output", attended))
        inner = ACTIVATIONS[self._config.hidden_act](self._dense(at + "inner", x))
        return self._norm(at + "output_norm", x + self._dense(at + "output", inner))

    def _dense(self, path: str, x: tf.Tensor, scale: float = 1.0) -> tf.Tensor:
        """Returns a dense layer on [tokens, width]; kernels with an axis for heads become matrices."""
        bias = (self._value(f"{path}.bias") * scale).reshape(-1)
        kernel = (self._value(f"{path}.kernel") * scale).reshape(x.shape[-1], len(bias))
        return tf.matmul(x, tf.constant(kernel)) + tf.constant(bias)

    def _norm(self, path: str, x: tf.Tensor) -> tf.Tensor:
        """Returns layer normalization over the last axis."""
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(centred * centred, axis=-1, keepdims=True)
        normal = centred * tf.math.rsqrt(variance + self._config.layer_norm_eps)
        return normal * self._value(f"{path}.gamma") + self._value(f"{path}.beta")

    def _value(self, path: str) -> np.ndarray:
        # Its number, also where a graph is being traced.
        with tf.init_scope():
            return self._backbone.encoder.variable(path).numpy()


@contextmanager
def lean(backbone: EncoderBackbone, *, int8: bool = False) -> Iterator[Callable[[tf.Tensor, tf.Tensor], None]]:
    """Context in which a backbone computes one text without padding by `LeanEncoder`.

    Yields:
        Tells it which positions, int32 [1, tokens], belong to which `input_ids`; networks that it is part of are then
        called with these ids.

    Raises:
        ConfigError: The encoder is of another kind, or a network gives it ids that it was told nothing of.
    """
    encoder = LeanEncoder(backbone, int8=int8)
    positions: dict[Any, tf.Tensor] = {}

    @tf.autograph.experimental.do_not_convert
    def call(
        inputs: Mapping[str, tf.Tensor], training: bool | None = False, pooled_only: bool = False
    ) -> dict[str, Any]:
        ids = inputs.get("input_ids")
        if training or ids is None or ids.ref() not in positions:
            raise ConfigError(
                "this network gives its encoder more than one text, which LiteRT exports do not hold",
                fix="leave litert and litert-int8 out of exportVariants",
            )
        return encoder(inputs, positions[ids.ref()], pooled_only)

    backbone.call = call
    try:
        yield lambda ids, places: positions.update({ids.ref(): places})
    finally:
        del backbone.call
