"""Encoder layers of which each worker of a group computes some attention heads and some feed-forward units."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from official.nlp.modeling.layers import TransformerEncoderBlock

from easytransfer import keras
from easytransfer.distributed.collectives import Group, copy_to, reduce_from
from easytransfer.distributed.shards import Shard, mark_shard
from easytransfer.errors import ConfigError
from modelzoo.bert.config import BertConfig

# The axis of each variable that is split; the rest is whole on every worker.
_AXES = {
    "_attention_layer._query_dense": {"kernel": 1, "bias": 0},
    "_attention_layer._key_dense": {"kernel": 1, "bias": 0},
    "_attention_layer._value_dense": {"kernel": 1, "bias": 0},
    "_attention_layer._output_dense": {"kernel": 0},
    "_intermediate_dense": {"kernel": 1, "bias": 0},
    "_output_dense": {"kernel": 0},
}


class SplitBlock(TransformerEncoderBlock):
    """One worker's part of an encoder layer (Megatron-LM, Shoeybi et al. 2019, arXiv 1909.08053, section 3).

    The attention heads and the units of the feed-forward part are shared out; the two halves of the layer take one
    all-reduce each, forward and backward. Variables have the names of the whole layer's.

    Args:
        config: Sizes and settings of the encoder.
        group: Workers that share the layer; all have the same input.
        activation: Activation of the feed-forward part.
        **options: See `TransformerEncoderBlock`.

    Call arguments:
        inputs: Vectors [batch, tokens, hidden] and attention mask [batch, tokens, tokens].
        output_range: Compute the first tokens only.

    Returns:
        float32 [batch, tokens or output_range, hidden], the same on every worker.

    Raises:
        ConfigError: The group's size does not divide the heads or the feed-forward units.
    """

    def __init__(self, config: BertConfig, group: Group, activation: Any, **options: Any) -> None:
        heads, inner = config.num_attention_heads, config.intermediate_size
        for number, what in ((heads, "attention heads"), (inner, "feed-forward units")):
            if number % group.size:
                raise ConfigError(
                    f"{number} {what} cannot be split over {group.size} workers",
                    fix=f"set distribution.tensor_parallel to a divisor of {number}",
                )
        super().__init__(
            num_attention_heads=heads // group.size,
            key_dim=config.hidden_size // heads,
            inner_dim=inner // group.size,
            inner_activation=activation,
            kernel_initializer="zeros",
            **options,
        )
        self._group = group

    def mark_parts(self) -> None:
        """Notes which variables of the built layer are parts."""
        for path, axes in _AXES.items():
            layer = self
            for step in path.split("."):
                layer = getattr(layer, step)
            for name, axis in axes.items():
                mark_shard(getattr(layer, name), Shard(self._group, axis))

    def call(self, inputs: list[tf.Tensor], output_range: int | None = None) -> tf.Tensor:
        """See the class."""
        x, mask = inputs
        shared = copy_to(x, self._group, f"{self.name}/attention/input")
        heads = self._attention_layer(
            query=shared[:, :output_range], value=shared, attention_mask=mask[:, :output_range]
        )
        attended = self._attention_dropout(self._sum(heads, self._attention_layer._output_dense, "attention/output"))
        x = self._attention_layer_norm(x[:, :output_range] + attended)
        shared = copy_to(x, self._group, f"{self.name}/feed_forward/input")
        units = self._intermediate_activation_layer(self._intermediate_dense(shared))
        output = self._output_dropout(self._sum(self._output_dense(units), self._output_dense, "feed_forward/output"))
        return self._output_layer_norm(tf.cast(output, tf.float32) + x)

    def _sum(self, partial: tf.Tensor, dense: keras.layers.Layer, name: str) -> tf.Tensor:
        """Adds up the workers' outputs of `dense`, each of which holds the whole bias."""
        total = reduce_from(partial, self._group, f"{self.name}/{name}")
        # Without a gradient: the bias has its own, once, from this worker's output.
        return total - tf.stop_gradient((self._group.size - 1) * tf.cast(dense.bias, total.dtype))
