"""Sizes and settings of an ImageBERT. Imports no TensorFlow."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from modelzoo.vision_language.config import SingleStreamConfig


class ImageBertConfig(SingleStreamConfig):
    """Configuration of an ImageBERT: BERT on words and patches or detected regions of an image.

    Files say `patch_feature_size`, `max_patch_position_embeddings` and `patch_type_vocab_size` for what all networks on
    regions have.

    Example:
        >>> ImageBertConfig.from_dict({"vocab_size": 100, "hidden_size": 32, "num_attention_heads": 4})
    """

    FAMILY: ClassVar[str] = "an ImageBERT"
    FILE_NAMES: ClassVar[dict[str, str]] = {
        "patch_feature_size": "feature_size",
        "max_patch_position_embeddings": "max_regions",
        "patch_type_vocab_size": "region_types",
    }
    REGIONS: ClassVar[dict[str, str]] = {
        "scope": "image_embeddings",
        "projector": "image_projector",
        "positions": "patch_position_embeddings",
        "types": "patch_type_embeddings",
        "norm": "ImageEmbLayerNorm",
        "head": "img_predictions",
    }

    model_type: str = Field("imagebert", description="Architecture; always imagebert.")


CONFIG_CLASS = ImageBertConfig
