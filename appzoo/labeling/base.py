"""Applications that give every word or character of a text of any length a tag."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appzoo.encoder import Encoder, token_batch
from appzoo.labeling.inputs import WordWindows
from appzoo.labeling.settings import LabelingConfig
from appzoo.labeling.target import TagTarget, known_tags
from easytransfer import keras
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.deferred import tf

if TYPE_CHECKING:
    from appzoo.labeling.model import LabelingModel


class LabelingApp(App):
    """An encoder with a dense layer on every token; long texts are read in overlapping windows.

    Attributes:
        encoder_type: Makes tokenizer and encoder of the settings.
    """

    encoder_type: type[Encoder] = Encoder

    config: LabelingConfig
    encoder: Encoder
    target: TagTarget
    model: LabelingModel

    @property
    def use_crf(self) -> bool:
        """Whether neighbouring tags are scored."""
        return False

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the words of the text; the tokenizer comes from the ModelZoo or from a trained run."""
        data, self.encoder = self.config.data, self.encoder_type(self.config, assets.folder)
        return [WordWindows(self.encoder, data.first_sequence, data.label_name, self.config.model.unit)]

    def build_target(self, assets: Assets) -> TagTarget:
        """Returns the tags, from the label option or from a trained run."""
        (words,) = self.inputs
        return TagTarget(known_tags(self.config, assets), words, self.config)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder and head; from the ModelZoo, or the shape stored in a run."""
        from appzoo.labeling.model import LabelingModel

        settings, backbone = self.config.model, self.encoder.backbone(assets.folder, self.workers)
        seed = self.config.runtime.seed
        (words,) = self.inputs
        network = LabelingModel(
            backbone, len(self.labels), settings.dropout_rate, self.use_crf, seed, before=words.before
        )
        network({**token_batch(), "word_starts": tf.zeros([1, 1], tf.int32)})
        return network
