"""The weight names of a VideoBERT. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path

from modelzoo.videobert.config import VideoBertConfig
from modelzoo.vision_language.weights import single_stream_family

VIDEOBERT = single_stream_family("videobert", VideoBertConfig, "video_bert_pre_trained_model/")


def parameters_in(folder: str | Path) -> int:
    """Returns the number of parameters of a model folder without heads, from its configuration."""
    return VIDEOBERT.parameter_count(VideoBertConfig.from_folder(folder))
