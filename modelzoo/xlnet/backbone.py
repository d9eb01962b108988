"""XLNet: token ids to vectors, with relative positions, a query stream and a memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from easytransfer import keras
from easytransfer.distributed.collectives import Group
from easytransfer.distributed.pipeline import Stage
from easytransfer.errors import ModelError
from modelzoo.encoder_backbone import EncoderBackbone
from modelzoo.xlnet.convert import XLNET
from modelzoo.xlnet.network import XlnetEncoder


@keras.utils.register_keras_serializable(package="easytransfer")
class XlnetBackbone(EncoderBackbone):
    """Turns token ids into vectors (Yang et al. 2019, arXiv 1906.08237); see `EncoderBackbone`.

    Positions are distances: rows may be padded on either side, and states of real tokens do not change. The token that
    stands for a row is its last real one. `pooled_output` is a tanh of a dense layer on it, which pre-training has no
    use for: published files lack it, and it starts from random values.

    Call arguments beside those of `EncoderBackbone`:
        inputs: `perm_mask`, 0 or 1 [batch, tokens, tokens], 1 where the first token must not see the second, whatever
            its place, as in a permutation (section 2.2); `target_mapping`, 0 or 1 [batch, targets, tokens], with one 1
            in every row, at the place of the target; `memory`, of every layer float [batch, places, hidden], what an
            earlier call returned.
        with_memory: Also return `memory` for the next segment of the same texts, as `mem_len` and `reuse_len` say.

    Returns:
        What `EncoderBackbone` returns, all of the content stream; with `target_mapping` also `query_output` float32
        [batch, targets, hidden], which does not know the tokens at the targets' places; and `memory` on request.

    Example:
        >>> backbone = XlnetBackbone(XlnetConfig(vocab_size=100, hidden_size=32, num_attention_heads=4))
        >>> backbone({"input_ids": tf.ones([2, 8], tf.int32), "input_mask": tf.ones([2, 8], tf.int32)})
    """

    family = XLNET

    def _network(self, tensor: Group | None, stage: Stage | None) -> XlnetEncoder:
        return XlnetEncoder(self.config)

    def call(
        self,
        inputs: Mapping[str, Any],
        training: bool | None = False,
        pooled_only: bool = False,
        with_memory: bool = False,
    ) -> dict[str, Any]:
        """See the class."""
        words, checks = self._checked(inputs)
        with tf.control_dependencies([*checks, *_memory_checks(inputs, with_memory)]):
            outputs = self.encoder(words)
        last = tf.cast(outputs["output"], tf.float32)
        summary = self.summary_of(last, inputs["input_mask"])
        pooled = tf.cast(self.encoder.pooler(tf.cast(summary, self.compute_dtype)), tf.float32)
        if pooled_only:
            return {"pooled_output": pooled}
        states = tuple(tf.cast(x, tf.float32) for x in outputs["hidden_states"])
        found = {
            "sequence_output": last,
            "summary_state": summary,
            "pooled_output": pooled,
            "hidden_states": states,
        }
        if "query_output" in outputs:
            found["query_output"] = tf.cast(outputs["query_output"], tf.float32)
        if with_memory:
            found["memory"] = self.encoder.remembered(states, inputs.get("memory"))
        return found

    def summary_of(self, states: tf.Tensor, input_mask: tf.Tensor) -> tf.Tensor:
        """Returns the states [batch, width] of the last real tokens.

        Args:
            states: Of all tokens, [batch, tokens, width].
            input_mask: As in a call.
        """
        mask = tf.convert_to_tensor(input_mask)
        mask = mask if mask.shape.rank == 2 else tf.reduce_max(mask, axis=1)
        behind = tf.argmax(tf.reverse(mask, [1]), axis=1, output_type=tf.int32)
        return tf.gather(states, tf.shape(states)[1] - 1 - behind, batch_dims=1)

    def _checked(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], list[tf.Operation]]:
        """Returns the inputs of the network, and checks that can only be made when they are known."""
        words, checks = super()._checked(inputs)
        if "segment_ids" not in words and inputs.get("segment_ids") is not None:
            words["segment_ids"] = tf.convert_to_tensor(inputs["segment_ids"])
        for name, what in (("perm_mask", "[batch, tokens, tokens]"), ("target_mapping", "[batch, targets, tokens]")):
            if inputs.get(name) is None:
                continue
            words[name] = tf.convert_to_tensor(inputs[name])
            if words[name].shape.rank != 3:
                raise ModelError(f"{name} has another shape", received=str(words[name].shape), accepted=what)
            inside = tf.reduce_all((words[name] == 0) | (words[name] == 1))
            checks.append(tf.debugging.Assert(inside, [f"{name} must be 0 or 1"]))
        if (memory := inputs.get("memory")) is not None:
            if len(memory) != self.config.num_hidden_layers:
                layers = self.config.num_hidden_layers
                raise ModelError("memory is not that of every layer", received=len(memory), accepted=str(layers))
            words["memory"] = tuple(memory)
        return words, [check for check in checks if check is not None]


def _memory_checks(inputs: Mapping[str, Any], with_memory: bool) -> list[tf.Operation]:
    """Returns the check that no padding is remembered: a later segment would see it."""
    if not with_memory:
        return []
    whole = tf.reduce_all(tf.convert_to_tensor(inputs["input_mask"]) == 1)
    check = tf.debugging.Assert(whole, ["a segment that is remembered must have no padding: cut texts to one length"])
    return [check] if check is not None else []


BACKBONE_CLASS = XlnetBackbone
