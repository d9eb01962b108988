"""Sequence labelling: a tag for every word or character of a text of any length."""

from __future__ import annotations

from appzoo.encoder import Encoder, token_batch
from appzoo.sequence_labeling.config import BertLabelingConfig
from appzoo.sequence_labeling.inputs import WordWindows
from appzoo.sequence_labeling.model import LabelingModel
from appzoo.sequence_labeling.target import TagTarget, known_tags
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.deferred import tf
from easytransfer.train.step import Losses, Step
from easytransfer.train.task import Batch, Outputs


class BertLabeling(App):
    """A pre-trained encoder with a dense layer on every token; long texts are read in overlapping windows."""

    config: BertLabelingConfig
    encoder: Encoder
    target: TagTarget
    model: LabelingModel
    splits = ("tensor",)

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the words of the text; the tokenizer comes from the ModelZoo or from a trained run."""
        data, self.encoder = self.config.data, Encoder(self.config, assets.folder)
        return [WordWindows(self.encoder, data.first_sequence, data.label_name, self.config.model.unit)]

    def build_target(self, assets: Assets) -> TagTarget:
        """Returns the tags, from the label option or from a trained run."""
        (words,) = self.inputs
        return TagTarget(known_tags(self.config, assets), words, self.config)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder and head; from the ModelZoo, or the shape stored in a run."""
        settings, backbone = self.config.model, self.encoder.backbone(assets.folder, self.workers)
        seed = self.config.runtime.seed
        (words,) = self.inputs
        network = LabelingModel(
            backbone, len(self.labels), settings.dropout_rate, settings.use_crf, seed, before=words.before
        )
        network({**token_batch(), "word_starts": tf.zeros([1, 1], tf.int32)})
        return network

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the cross entropy of labelled tokens, or with a CRF the negative log likelihood of the tags."""
        if self.model.crf is None:
            return super().losses(batch, outputs, step)
        return self.target.sequence_losses(batch, outputs, self.model.crf)


VARIANTS = {"bert": BertLabeling}
