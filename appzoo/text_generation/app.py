"""Text to text: a pre-trained encoder reads a text, its decoder writes another one.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", arXiv
1910.10683: summaries, translations, answers and names of classes are all texts.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from appzoo.t5_app import T5App
from appzoo.text_generation.config import TextGenerationConfig
from appzoo.text_generation.inputs import SourceText
from appzoo.text_generation.target import GeneratedText
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.inputs.base import Input
from easytransfer.text.decoding import Decoding, written
from easytransfer.train.task import Batch, Outputs
from modelzoo.t5.backbone import T5Backbone


class TextGeneration(T5App):
    """T5, taught every piece with the ones before it, and asked to write by itself in evaluation and prediction."""

    config: TextGenerationConfig
    target: GeneratedText
    model: Writer

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the text; the tokenizer comes from the ModelZoo or from a trained run."""
        settings, data = self.config.model, self.config.data
        self.open_network(assets)
        limits: dict[str, Any] = {"max_length": data.sequence_length, "no_truncate": data.no_truncate}
        self.source = SourceText(self.tokenizer, str(data.first_sequence), prefix=settings.prefix, **limits)
        return [self.source]

    def build_target(self, assets: Assets) -> GeneratedText:
        """Returns the text that is written."""
        column, most = str(self.config.data.label_name), self.config.model.target_length
        return GeneratedText(column, self.source, most, self.config.train.label_smoothing)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds the network with its pre-trained weights, or with the shape stored in a run and random ones."""
        network, ids = Writer(self.backbone(assets)), tf.ones([1, 2], tf.int32)
        network({"input_ids": ids, "input_mask": ids, "target_ids": ids})
        return network

    def predict_step(self, batch: Batch) -> Outputs:
        """Returns `ids` int32 [batch, target_length], 0 behind the end of a text."""
        how = self.decoding
        next_logits, cache = self.model.backbone.writer(batch, how.beams)
        return {"ids": written(next_logits, cache, tf.shape(batch["input_ids"])[0], how)}

    @property
    def decoding(self) -> Decoding:
        """How texts are written."""
        settings, config = self.config.model, self.network_config
        drawn = {"is_drawn": True, "temperature": settings.temperature, "top_k": settings.top_k}
        drawn |= {"top_p": settings.top_p, "seed": self.config.runtime.seed}
        return Decoding(
            settings.target_length,
            config.decoder_start_token_id,
            self.tokenizer.eos_id,
            beams=settings.num_beams if settings.decoding == "beam" else 1,
            length_penalty=settings.length_penalty,
            **(drawn if settings.decoding == "sampling" else {}),
        )


class Writer(keras.Model):
    """The network as a training sees it: with the text to write, it gives the logits of each of its places.

    Args:
        backbone: The network.

    Call arguments:
        batch: `input_ids`, `input_mask`, and `target_ids`, each integer [batch, pieces].

    Returns:
        `logits` float32 [batch, pieces, vocabulary].
    """

    # Texts are written by the decoder's steps, not by a call of this network.
    compiled_part = None

    def __init__(self, backbone: T5Backbone) -> None:
        super().__init__(name="text_generation")
        self.backbone = backbone

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        read = {name: batch[name] for name in ("input_ids", "input_mask")}
        before = self.backbone.shifted(batch["target_ids"])
        return {"logits": self.backbone({**read, "decoder_ids": before}, training=training)["logits"]}

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns variables by depth, see `T5Backbone.layer_groups`."""
        return self.backbone.layer_groups()


VARIANTS = {"": TextGeneration}
