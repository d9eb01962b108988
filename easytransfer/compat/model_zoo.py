"""Pre-trained models for the four-hook Python API, under the original's names."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import tensorflow as tf

from easytransfer import keras
from easytransfer.errors import ModelError
from easytransfer.installing import install_line
from easytransfer.layers.created_once import created_once

# The package that holds the models registers itself in this entry-point group: the core names no model package.
ENTRY_POINTS = "easytransfer.modelzoo"


def loading() -> Any:
    """Returns the loading module of the installed model zoo.

    Raises:
        ModelError: None is installed.
    """
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        return entry.load()
    raise ModelError("no model zoo is installed", fix=f"type {install_line()}")


# Root of the ModelZoo for models named by the running `base_model`; None is the usual place.
_root: str | None = None


def set_model_root(path: str | None) -> None:
    """Sets the root of the ModelZoo that names are looked up in, for the whole process."""
    global _root  # noqa: PLW0603 - as the original's modelZooBasePath, one for the process
    _root = path


def model_root() -> str | None:
    """Returns the root of the ModelZoo that names are looked up in; None is the usual place."""
    return _root


class PretrainedModel(keras.layers.Layer):
    """A text encoder called as in the original: `model([input_ids, input_mask, segment_ids], mode=mode)`.

    Args:
        backbone: Encoder of the model zoo.
    """

    def __init__(self, backbone: keras.Model) -> None:
        super().__init__(name="pretrained_model")
        self.backbone = backbone

    @property
    def config(self) -> Any:
        """Configuration of the encoder, such as its `hidden_size`."""
        return self.backbone.config

    def call(self, inputs: list[tf.Tensor], mode: str | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the sequence output [batch, time, hidden] and the pooled output [batch, hidden].

        Args:
            inputs: Token ids, mask and segment ids, each int [batch, time].
            mode: Dropout is active in `train` only; the one of the model function.
        """
        names = ("input_ids", "input_mask", "segment_ids")
        batch = {name: tf.cast(value, tf.int32) for name, value in zip(names, inputs, strict=True)}
        outputs = self.backbone(batch, training=mode == "train")
        return outputs["sequence_output"], outputs["pooled_output"]


def get_pretrained_model(pretrain_model_name_or_path: str, **overrides: Any) -> PretrainedModel:
    """Returns a pre-trained encoder; inside `build_logits` it is loaded once and used again.

    Args:
        pretrain_model_name_or_path: ModelZoo name or folder.
        **overrides: Changed configuration values, such as `hidden_dropout_prob`.

    Raises:
        ModelError: It is not found, or its weights do not fit.
    """
    make = lambda: PretrainedModel(loading().load_backbone(pretrain_model_name_or_path, zoo=_root, **overrides))  # noqa: E731
    return created_once("PretrainedModel", pretrain_model_name_or_path, make)
