"""ImageBERT: a text and regions of an image to vectors, in one stream."""

from __future__ import annotations

from easytransfer import keras
from modelzoo.imagebert.convert import IMAGEBERT
from modelzoo.vision_language.backbone import SingleStreamBackbone


@keras.utils.register_keras_serializable(package="easytransfer")
class ImageBertBackbone(SingleStreamBackbone):
    """Turns a text and regions of an image into vectors (FashionBERT, Gao et al. 2020, arXiv 2005.09801, section 3).

    Regions are patches with positions, or detected objects with boxes; labels of regions may stand between words and
    regions (LAMP, Guo et al. 2020, arXiv 2012.04446). See `VisionLanguageBackbone` for what it takes and returns.

    Example:
        >>> backbone = ImageBertBackbone.from_preset("bert-tiny", feature_size=24, region_positions=False, box_size=7)
        >>> backbone(batch, label_visibility="regions_only")["region_output"]
    """

    family = IMAGEBERT


BACKBONE_CLASS = ImageBertBackbone
