"""LXMERT: a text and regions of an image to vectors, in two streams."""

from __future__ import annotations

from easytransfer import keras
from easytransfer.distributed.collectives import Group
from easytransfer.distributed.pipeline import Stage
from modelzoo.encoder_weights import Weight
from modelzoo.lxmert.config import LxmertConfig
from modelzoo.lxmert.convert import LXMERT
from modelzoo.lxmert.network import TwoStreams
from modelzoo.vision_language.backbone import VisionLanguageBackbone


@keras.utils.register_keras_serializable(package="easytransfer")
class LxmertBackbone(VisionLanguageBackbone):
    """Turns a text and regions of an image into vectors (Tan and Bansal 2019, arXiv 1908.07490, section 2).

    See `VisionLanguageBackbone` for what it takes and returns. Labels of regions stand behind the words, in the stream
    of texts. `attentions` has the upper layers only, see `TwoStreams`.

    Example:
        >>> backbone = LxmertBackbone(LxmertConfig(vocab_size=100, hidden_size=32, num_attention_heads=4))
        >>> backbone(batch)["region_output"]
    """

    family = LXMERT
    config: LxmertConfig

    def _network(self, tensor: Group | None, stage: Stage | None) -> TwoStreams:
        return TwoStreams(self.config)

    def _depth(self, row: Weight) -> int:
        """Returns how far up a weight is: both streams end together below the layers of both."""
        part, number, *_ = row.path.split(".") + [""]
        config = self.config
        below = max(config.l_layers, config.r_layers)
        if part == "pooler":
            return below + config.x_layers + 1
        first = {"layers": below - config.l_layers, "region_layers": below - config.r_layers, "cross_layers": below}
        return first[part] + int(number) + 1 if part in first else 0


BACKBONE_CLASS = LxmertBackbone
