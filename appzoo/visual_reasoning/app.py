"""Sentences that are true or false of one image, or of two.

Suhr et al. 2017 (NLVR) and 2019 (NLVR2, arXiv 1811.00491); two images are read one by one with the sentence, as in
LXMERT (Tan and Bansal 2019, arXiv 1908.07490).
"""

from __future__ import annotations

import tensorflow as tf

from appzoo.vision_language_app import VisionLanguageApp, VisionLanguageEncoder
from appzoo.vision_language_head import TaskHead
from appzoo.visual_reasoning.config import ReasoningConfig
from appzoo.visual_reasoning.target import Truth
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.inputs.base import Input
from easytransfer.app.inputs.regions import ARRAYS
from easytransfer.app.targets.labels import label_target
from easytransfer.errors import ConfigError
from modelzoo.vision_language.backbone import VisionLanguageBackbone

# Behind the names of the arrays of the second image.
SECOND = "_2"


class VisualReasoning(VisionLanguageApp):
    """A head on the pooled outputs, side by side of two images, decides between two labels."""

    config: ReasoningConfig
    target: Truth

    @property
    def is_paired(self) -> bool:
        """Whether a row has two images."""
        return self.config.data.image_column_2 is not None

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the sentence and the regions of the images; requests call those of two `left_` and `right_`."""
        self.encoder, data = VisionLanguageEncoder(self.config, assets.folder), self.config.data
        words = self.encoder.tokens(str(data.first_sequence))
        if not self.is_paired:
            return [words, self.encoder.regions()]
        second = self.encoder.regions(
            data.image_column_2, box_column=data.box_column_2, suffix=SECOND, raw_prefix="right_"
        )
        return [words, self.encoder.regions(raw_prefix="left_"), second]

    def build_target(self, assets: Assets) -> Truth:
        """Returns the two labels.

        Raises:
            ConfigError: There are not two.
        """
        identifier = self.config.data.identifier_name
        target = label_target(self.config, assets, lambda labels: Truth(labels, identifier), numbers=False)
        if target.num_outputs != 2:
            raise ConfigError(
                "a sentence is true or false: there must be two labels",
                received=self.config.data.label_enumerate_values,
                accepted="two names with a comma between, such as false,true",
                fix="set data.label_enumerate_values",
            )
        return target

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder and head; from the ModelZoo, or the shape stored in a run."""
        backbone = self.encoder.backbone(assets.folder, self.workers)
        network = ReasoningNetwork(backbone, self.is_paired, self.config.model.dropout_rate)
        network(self.smallest_batch())
        return network


class ReasoningNetwork(keras.Model):
    """Encoder, and a head of twice its width on the pooled outputs.

    Args:
        backbone: Encoder of words and regions.
        is_paired: Whether rows have two images; the sentence is then read with each of them.
        dropout_rate: Dropout before the head.

    Call arguments:
        batch: The arrays of the encoder; those of the regions of a second image with `_2` behind their names.

    Returns:
        `logits` float32 [batch, 2].
    """

    def __init__(self, backbone: VisionLanguageBackbone, is_paired: bool, dropout_rate: float) -> None:
        super().__init__(name="visual_reasoning")
        self.backbone, self.is_paired = backbone, is_paired
        self.head = TaskHead(2 * backbone.config.hidden_size, 2, dropout_rate)

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        sides = [batch]
        if self.is_paired:
            sides.append({**batch, **{name: batch[f"{name}{SECOND}"] for name in ARRAYS}})
        pooled = [self.backbone(side, training=training, pooled_only=True)["pooled_output"] for side in sides]
        return {"logits": self.head(tf.concat(pooled, axis=-1), training=training)}

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with head."""
        *encoder, pooler = self.backbone.layer_groups()
        return [*encoder, [*pooler, *self.head.trainable_variables]]


VARIANTS = {"": VisualReasoning}
