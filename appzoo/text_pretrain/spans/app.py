"""Pre-training of a T5 on plain text: spans that were left out are written.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", arXiv
1910.10683, section 3.1.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.t5_app import T5App
from appzoo.text_pretrain.config import SpanPretrainConfig
from appzoo.text_pretrain.metrics import PretrainEvaluator
from appzoo.text_pretrain.spans.corruption import SpanRemover, text_length
from appzoo.text_pretrain.spans.inputs import SpanPassages
from appzoo.text_pretrain.target import Perplexity
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.inputs.base import Input
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import ConfigError
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.train.task import Batch, Outputs
from modelzoo.t5.backbone import T5Backbone


class SpanPretrain(T5App):
    """A T5 that writes the spans which were left out, others in every step, and always the same in an evaluation."""

    config: SpanPretrainConfig

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the passages; the tokenizer comes from the ModelZoo or from a trained run."""
        self.open_network(assets)
        settings, data = self.config.model, self.config.data
        shares = (settings.noise_density, settings.mean_span_length)
        most = text_length(data.sequence_length, *shares)
        first, count = self.tokenizer.sentinels
        remover = SpanRemover(most, *shares, first_sentinel=first, eos_id=self.tokenizer.eos_id)
        if remover.spans > count:
            raise ConfigError(
                f"a passage has {remover.spans} spans, the tokenizer {count} sentinels",
                fix="lower sequenceLength or raise model.mean_span_length",
            )
        if first >= self.network_config.vocab_size:
            raise ConfigError(
                f"the network has no embedding for the sentinel {first}", received=self.network_config.vocab_size,
                accepted=f"vocab_size above {first}", fix="take a T5 whose embeddings have room for its sentinels",
            )  # fmt: skip
        self.passages = SpanPassages(
            self.tokenizer, str(data.first_sequence), remover,
            most=most, seed=self.config.runtime.seed, short_passages=settings.short_passages,
        )  # fmt: skip
        return [self.passages]

    def build_target(self, assets: Assets) -> Spans:
        """Returns the spans."""
        return Spans()

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds the network with its pre-trained weights, or with the shape stored in a run and random ones."""
        network = SpanNetwork(self.backbone(assets))
        ids = tf.ones([1, 4], tf.int32)
        network(self.passages.removed({"input_ids": ids, "input_mask": ids}))
        return network

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Calls the model; spans that no training has left out are left out first."""
        if "target_ids" not in batch:
            batch = self.passages.removed(batch)
        return super().forward(batch, training)


class Spans(Perplexity):
    """Pieces of the spans with their sentinels and an end; their number is the weight of the loss."""

    loss_name = "span_loss"

    def evaluator(self) -> Evaluator:
        """Returns perplexity and accuracy of the pieces."""
        return PretrainEvaluator("span")

    def report(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Returns nothing."""
        return []


class SpanNetwork(keras.Model):
    """The network as a training sees it: with the spans to write, reduced to what losses and metrics need.

    Args:
        backbone: The network.

    Call arguments:
        batch: `encoder_ids`, `encoder_mask`, `target_ids` and `target_mask`, int32 [batch, pieces].

    Returns:
        Of the target of every row, float32 [batch]: `nll`, the sum of the cross entropies of its pieces; `hidden`, how
        many there are; `right`, how many are the most probable ones.
    """

    def __init__(self, backbone: T5Backbone) -> None:
        super().__init__(name="span_pretrain")
        self.backbone = backbone

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        target, weight = batch["target_ids"], tf.cast(batch["target_mask"], tf.float32)
        read: dict[str, Any] = {"input_ids": batch["encoder_ids"], "input_mask": batch["encoder_mask"]}
        logits = self.backbone({**read, "decoder_ids": self.backbone.shifted(target)}, training=training)["logits"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, tf.cast(logits, tf.float32))
        right = tf.argmax(logits, axis=-1, output_type=tf.int32) == target
        return {
            "nll": tf.reduce_sum(losses * weight, axis=1),
            "hidden": tf.reduce_sum(weight, axis=1),
            "right": tf.reduce_sum(tf.cast(right, tf.float32) * weight, axis=1),
        }

    def layer_groups(self) -> Sequence[list[tf.Variable]]:
        """Returns variables by depth, see `T5Backbone.layer_groups`."""
        return self.backbone.layer_groups()
