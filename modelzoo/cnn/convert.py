"""Counts the parameters of a model folder."""

from __future__ import annotations

from pathlib import Path

from easytransfer.errors import ModelError
from easytransfer.presets.safetensors_file import WEIGHTS, count_numbers
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.profile import profile
from modelzoo.cnn.timm import stored_config


def parameters_in(folder: str | Path) -> int | None:
    """Returns the number of weights of a model folder, moving statistics included; None for a SavedModel.

    Raises:
        ModelError: Its configuration is not valid, or lacks the number of classes.
    """
    config, stored = CnnConfig.from_folder(folder), stored_config(folder)
    if config.family == "saved_model":
        return None
    if config.family == "keras":
        return count_numbers(Path(folder, WEIGHTS))
    classes = stored.get("classes")
    # null is a body without a classifier.
    if "classes" not in stored or not isinstance(classes, int | None):
        raise ModelError(f"{folder}/config.json does not say the number of classes", received=classes)
    found = profile(config, classes)
    return found.parameters + found.statistics
