"""Classification with few labelled rows, by the words that a pre-trained encoder guesses in a pattern.

PET: Schick and Schütze 2021, "Exploiting Cloze Questions for Few Shot Text Classification and Natural Language
Inference", arXiv 2001.07676. P-tuning: Liu et al. 2021, "GPT Understands, Too", arXiv 2103.10385.
"""

from __future__ import annotations

import tensorflow as tf

from appzoo.encoder import Encoder, token_batch
from appzoo.few_shot.config import PetConfig, PTuningConfig
from appzoo.few_shot.inputs import HIDDEN, PatternTokens
from appzoo.few_shot.network import PatternNetwork, PromptEncoder
from appzoo.few_shot.pattern import verbalizer_of, verbalizer_pieces
from appzoo.pretraining_head import pretraining_head
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.app.targets.labels import LabelTarget, label_target
from easytransfer.errors import ConfigError
from easytransfer.layers.lora import mark_base
from easytransfer.presets import resolve
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs
from modelzoo.encoder_backbone import EncoderBackbone


class Pet(App):
    """An encoder and its head for hidden words, read at the masks of a pattern."""

    config: PetConfig
    encoder: Encoder
    target: LabelTarget
    model: PatternNetwork

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the texts in their pattern; the tokenizer comes from the ModelZoo or from a trained run."""
        data, self.encoder = self.config.data, Encoder(self.config, assets.folder)
        self.texts = PatternTokens(self.encoder, str(data.first_sequence), data.second_sequence)
        return [self.texts]

    def build_target(self, assets: Assets) -> LabelTarget:
        """Returns the classes, and sets the words that stand for them.

        Raises:
            ConfigError: The labels are no classes, or words do not fit them or the vocabulary.
        """
        target = label_target(self.config, assets, numbers=False)
        target.require_classes(str(self.config.model_name))
        try:
            words = verbalizer_of(self.config.model.verbalizer, target.names)
            self.words = verbalizer_pieces(words, target.names, self.encoder.tokenizer)
        except ValueError as error:
            raise ConfigError(f"model.{error}", fix="give model.verbalizer=label:words,label:words") from None
        self.texts.set_masks(max(map(len, self.words)))
        return target

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder and head; from the ModelZoo, or the shape stored in a run."""
        model, runtime = self.config.model, self.config.runtime
        backbone = self.encoder.backbone(assets.folder, self.workers)
        fresh = model.from_scratch or (assets.folder is not None and not model.keeps_base)
        preset = None if fresh else resolve(model.pretrain_model_name_or_path, runtime.model_zoo_base_path)
        head = pretraining_head(backbone, False, runtime.seed, preset)
        network = PatternNetwork(backbone, head, self.words, self._prompts(backbone), self.encoder.tokenizer.unk_id)
        batch = token_batch()
        network({**batch, "slots": tf.zeros_like(batch["input_ids"])})
        return network

    def _prompts(self, backbone: EncoderBackbone) -> PromptEncoder | None:
        """Returns what makes the prompts of the pattern."""
        return None

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the cross entropy of labels; in training (1 - alpha) of it, and alpha of that of hidden words.

        arXiv 2001.07676, section 3.1, with rows of the training table in place of unlabelled ones.
        """
        found = super().losses(batch, outputs, step)
        if HIDDEN not in batch:
            return found
        alpha, weight = self.config.model.mlm_alpha, batch["example_weight"]
        words = tf.reduce_sum(tf.reduce_sum(batch["hidden_weights"], axis=1) * weight)
        labels = found["loss"]
        return {
            "loss": Loss((1 - alpha) * labels.sum, labels.weight),
            "mlm_loss": Loss(alpha * tf.reduce_sum(outputs["hidden_nll"] * weight), words),
        }


class PTuning(Pet):
    """The same with trainable prompts in the pattern."""

    config: PTuningConfig

    def _prompts(self, backbone: EncoderBackbone) -> PromptEncoder:
        settings, width = self.config.model, backbone.config.word_width
        return PromptEncoder(self.texts.pattern.prompts, width, settings.prompt_encoder, self.config.runtime.seed)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder, head and prompts; with `train_encoder=false` the first two stay as they are."""
        network = super().build_network(assets)
        if not self.config.model.train_encoder:
            mark_base([*network.backbone.weights, *network.head.weights])
        return network


VARIANTS = {"pet": Pet, "p_tuning": PTuning}
