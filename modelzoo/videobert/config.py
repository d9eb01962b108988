"""Sizes and settings of a VideoBERT. Imports no TensorFlow."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from modelzoo.vision_language.config import SingleStreamConfig


class VideoBertConfig(SingleStreamConfig):
    """Configuration of a VideoBERT: BERT on words and clips of a video, which have positions and no boxes.

    Files say `clip_feature_size`, `max_clip_position_embeddings` and `clip_size` for what all networks on regions have.

    Example:
        >>> VideoBertConfig.from_dict({"vocab_size": 100, "hidden_size": 32, "num_attention_heads": 4})
    """

    FAMILY: ClassVar[str] = "a VideoBERT"
    FILE_NAMES: ClassVar[dict[str, str]] = {
        "clip_feature_size": "feature_size",
        "max_clip_position_embeddings": "max_regions",
        # EasyTransfer's name; it is no length of clips, but the rows of the table of their types.
        "clip_size": "region_types",
    }
    REGIONS: ClassVar[dict[str, str]] = {
        "scope": "video_embeddings",
        "projector": "video_embeddings",
        "positions": "clip_position_embeddings",
        "types": "clip_type_embeddings",
        "norm": "LayerNorm",
        "head": "video_predictions",
    }

    model_type: str = Field("videobert", description="Architecture; always videobert.")
    feature_size: int = Field(1536, description="Numbers that describe a clip.", ge=1)
    max_regions: int = Field(10, description="Most clips of a video.", ge=1)
    region_types: int = Field(10, description="Rows of the table of clip types, of which the second is used.", ge=2)
    region_positions: Literal[True] = Field(True, description="Clips have an order.")
    box_size: Literal[0] = Field(0, description="Clips have no boxes.")


CONFIG_CLASS = VideoBertConfig
