"""VideoBERT: a text and clips of a video to vectors, in one stream."""

from __future__ import annotations

from easytransfer import keras
from modelzoo.videobert.convert import VIDEOBERT
from modelzoo.vision_language.backbone import SingleStreamBackbone


@keras.utils.register_keras_serializable(package="easytransfer")
class VideoBertBackbone(SingleStreamBackbone):
    """Turns a text and clips of a video into vectors, as EasyTransfer's VideoBERT does.

    The network of ImageBERT with clips in the place of regions (after Sun et al. 2019, arXiv 1904.01766, whose clips
    are words of a vocabulary instead); see `VisionLanguageBackbone` for what it takes and returns.

    Example:
        >>> backbone = VideoBertBackbone.from_preset("bert-tiny", feature_size=24)
        >>> backbone(batch)["region_output"]
    """

    family = VIDEOBERT


BACKBONE_CLASS = VideoBertBackbone
