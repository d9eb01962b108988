"""The weight names of an ImageBERT. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path

from modelzoo.imagebert.config import ImageBertConfig
from modelzoo.vision_language.weights import single_stream_family

IMAGEBERT = single_stream_family("imagebert", ImageBertConfig, "image_bert_pre_trained_model/")


def parameters_in(folder: str | Path) -> int:
    """Returns the number of parameters of a model folder without heads, from its configuration."""
    return IMAGEBERT.parameter_count(ImageBertConfig.from_folder(folder))
