"""Which region of an image does an expression mean?

Yu et al. 2016 (RefCOCO), arXiv 1608.00272; the head on each region is that of UNITER (Chen et al. 2020, arXiv
1909.11740).
"""

from __future__ import annotations

import tensorflow as tf

from appzoo.referring_expression.config import ReferringConfig
from appzoo.referring_expression.target import RegionTarget, masked
from appzoo.vision_language_app import VisionLanguageApp, VisionLanguageEncoder
from appzoo.vision_language_head import TaskHead
from easytransfer import keras
from easytransfer.app.contract import Assets
from easytransfer.app.inputs.base import Input
from easytransfer.errors import ConfigError
from modelzoo.vision_language.backbone import VisionLanguageBackbone


class ReferringExpression(VisionLanguageApp):
    """A head gives every region a score; the highest one is meant."""

    config: ReferringConfig
    target: RegionTarget

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the expression and the regions of the image, with boxes even where the network does not read them.

        Raises:
            ConfigError: Regions of the table have no boxes, or the box that is meant is in pixels.
        """
        if self.config.model.region_source == "table":
            self._check_table()
        self.encoder = VisionLanguageEncoder(self.config, assets.folder)
        words = self.encoder.tokens(str(self.config.data.first_sequence))
        return [words, self.encoder.regions(needs_boxes=True)]

    def _check_table(self) -> None:
        if self.config.data.box_column is None:
            raise ConfigError(
                "regions are told apart by their boxes, and the table has none",
                fix="name their column in data.box_column, or take another model.region_source",
            )
        if self.config.model.target_box_form == "xywh":
            raise ConfigError(
                "model.target_box_form=xywh is in pixels, and of regions of the table the image size is not known",
                fix="set it to shares, or take another model.region_source",
            )

    def build_target(self, assets: Assets) -> RegionTarget:
        """Returns the box that is meant."""
        return RegionTarget(str(self.config.data.label_name), self.config.model.target_box_form)

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds encoder and head; from the ModelZoo, or the shape stored in a run."""
        network = ReferringNetwork(self.encoder.backbone(assets.folder, self.workers), self.config.model.dropout_rate)
        network(self.smallest_batch())
        return network


class ReferringNetwork(keras.Model):
    """Encoder, and a head of its width on each region.

    Args:
        backbone: Encoder of words and regions.
        dropout_rate: Dropout before the head.

    Call arguments:
        batch: The arrays of the encoder, `boxes` among them.

    Returns:
        `region_logits` float32 [batch, regions], those of no region far below all others, and `box` float32 [batch, 4],
        that of the highest one, as a share of the image.
    """

    def __init__(self, backbone: VisionLanguageBackbone, dropout_rate: float) -> None:
        super().__init__(name="referring_expression")
        self.backbone = backbone
        self.head = TaskHead(backbone.config.hidden_size, 1, dropout_rate)

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        regions = self.backbone(batch, training=training)["region_output"]
        logits = masked(self.head(regions, training=training)[..., 0], batch["region_mask"])
        box = tf.gather(batch["boxes"], tf.argmax(logits, axis=-1), batch_dims=1)
        return {"region_logits": logits, "box": box}

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with head; of the pooler nothing is used or trained."""
        *encoder, pooler = self.backbone.layer_groups()
        return [*encoder, [*pooler, *self.head.trainable_variables]]


VARIANTS = {"": ReferringExpression}
