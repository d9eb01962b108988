"""The network behind the columns of `ez_bert_feat`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from appzoo.encoder import token_batch
from easytransfer.errors import ConfigError


class VectorModule(tf.Module):
    """Turns token ids into the columns of `ez_bert_feat`, inside a graph.

    Args:
        backbone: Encoder.
        vector: Makes `pool_output` of the encoder's outputs.
        columns: Columns to return, of `VECTOR_COLUMNS`.
        layers: Layers that all columns but `pool_output` are taken from, as indices of the encoder's hidden states.

    Raises:
        ConfigError: The encoder has no such layer.
    """

    def __init__(
        self, backbone: Any, vector: Callable[[Mapping[str, Any]], Any], columns: Sequence[str], layers: Sequence[int]
    ) -> None:
        super().__init__(name="vectors")
        last = backbone.config.num_hidden_layers
        wrong = [layer for layer in layers if not -last - 1 <= layer <= last]
        if wrong:
            raise ConfigError("the encoder has no such layer", received=wrong[0], accepted=f"{-last - 1} to {last}")
        self.backbone, self._vector = backbone, vector
        self._columns, self._layers = tuple(columns), tuple(layers)
        self._pooled_only = self._columns == ("pool_output",) and self._reads_only_the_pooled()

    @property
    def owner(self) -> tf.Module:
        """What holds all variables: the network whose method makes `pool_output`, or this module."""
        return getattr(self._vector, "__self__", self)

    def _reads_only_the_pooled(self) -> bool:
        """Returns whether `pool_output` can be had without the last layer of all but the first token."""
        try:
            self._vector(self.backbone(token_batch(), pooled_only=True))
        except KeyError:
            return False
        return True

    def __call__(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns vectors [batch, size], and `all_hidden_outputs` [batch, tokens, size], 0 behind the end of a text."""
        outputs = self.backbone(batch, training=False, pooled_only=self._pooled_only)
        found = {"pool_output": self._vector(outputs)}
        if not self._pooled_only:
            mask = tf.cast(batch["input_mask"], tf.float32)[:, :, None]
            states = tf.concat([outputs["hidden_states"][layer] for layer in self._layers], axis=-1) * mask
            found["first_token_output"] = self.backbone.summary_of(states, batch["input_mask"])
            found["mean_output"] = tf.reduce_sum(states, axis=1) / tf.reduce_sum(mask, axis=1)
            found["all_hidden_outputs"] = states
        return {name: tf.cast(found[name], tf.float32) for name in self._columns}
