"""A network by name, with what belongs to its published weights: how images become its input, and the weights.

A name is one of `names.py`, a model of the ModelZoo (name, alias or folder), or a SavedModel. A folder that is called
like one of `names.py` is given by a path, such as `./resnet8_cifar`. TensorFlow is imported to build a network only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from easytransfer.errors import ConfigError, ModelError, closest
from easytransfer.presets import Preset, catalogue, resolve
from easytransfer.presets.folder import read_json
from modelzoo.cnn import timm
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.names import is_address, named
from modelzoo.loading import family_of

if TYPE_CHECKING:
    from modelzoo.cnn.backbone import CnnBackbone

Weights = Literal["pretrained", "random"]
FAMILY = "cnn"
# Settings of the images that a network takes, in `input` of `presets.json` and `zoo.json`.
INPUT = ("image_size", "channels", "resize_mode", "channel_mean", "channel_std")


def is_model(name: str, zoo: str | Path | None = None) -> bool:
    """Returns whether a name is that of an image model with weights: known by the ModelZoo, or present as a folder."""
    return _known(name) is not None or _present(name, zoo) is not None


def network_shape(name: str, zoo: str | Path | None = None) -> CnnConfig:
    """Returns the shape of the network that a name, model or folder stands for; a known model need not be present.

    Args:
        name: See the module.
        zoo: Root of the ModelZoo.

    Raises:
        ModelError: Nothing of that name is known or present.
    """
    if (known := _known(name)) is not None:
        return named(known["network"])
    if (preset := _present(name, zoo)) is not None:
        return CnnConfig.from_folder(preset.folder)
    if looks_like_path(name) and not os.path.isfile(Path(name, "saved_model.pb")):
        resolve(name, zoo)  # says what is wrong with the path
    return named(name)


def input_form(name: str, zoo: str | Path | None = None) -> dict[str, Any]:
    """Returns the settings of images that a model's weights were trained with, of `INPUT`; {} where none are known.

    Mean and deviation of the channels are on the scale from 0 to 1.

    Raises:
        ModelError: The manifest of a folder has other entries.
    """
    known = _known(name)
    preset = _from_hub(known, zoo) if known else _present(name, zoo)
    facts = preset.facts if preset else known or {}
    if preset and timm.is_timm(data := read_json(preset.folder / timm.CONFIG)):
        return timm.input_form(data, str(preset.folder / timm.CONFIG))
    form = facts.get("input") or {}
    if not isinstance(form, dict) or not set(form) <= set(INPUT):
        raise ModelError(f"the input of {name} is not described as one", received=sorted(form), accepted=INPUT)
    return dict(form)


def start_network(
    name: str, shape: CnnConfig, classes: int | None, seed: int, *, weights: Weights, zoo: str | Path | None = None
) -> CnnBackbone:
    """Builds a network with its start values. The classifier always starts from random values.

    Args:
        name: See the module.
        shape: Its shape, maybe with other images or strides than `network_shape` has.
        classes: Number of classes; None for the body alone.
        seed: Of random values.
        weights: `pretrained` takes those of the model. A SavedModel brings its own in either case.
        zoo: Root of the ModelZoo.

    Raises:
        ModelError: The model is not present (the message names the line that gets it), or its weights do not fit.
        ConfigError: The name stands for a shape without weights.
    """
    from modelzoo.cnn.backbone import CnnBackbone
    from modelzoo.cnn.layouts import stored_weights

    network = CnnBackbone(shape, classes, seed)
    if weights == "random" or shape.family == "saved_model":
        return network
    if not is_model(name, zoo):
        known = [entry for entry, facts in catalogue.entries().items() if facts["family"] == FAMILY]
        raise ConfigError(
            f"no pre-trained weights are known for {name}",
            accepted=f"{', '.join(closest(name, known) or known[:1])}, another model of `zoo list --type cnn`, or a "
            "model folder",
            fix="set weights=random to train it from random ones",
        )
    preset = resolve(name, zoo)
    values = {key: value for key, value in stored_weights(preset.folder).items() if not _of_classifier(key)}
    network.import_weights(values, str(preset.folder), allow_missing="^logits/" if classes is not None else None)
    return network


def looks_like_path(name: str) -> bool:
    """Returns whether a name is meant as the path of a folder; a SavedModel's address is none."""
    return not is_address(name) and (name.startswith((".", "~")) or os.sep in name)


def _is_shape(name: str) -> bool:
    try:
        named(name)
    except ModelError:
        return False
    return True


def _of_classifier(key: str) -> bool:
    return key.startswith("logits/")


def _known(name: str) -> dict[str, Any] | None:
    facts = catalogue.find(name)
    return facts if facts is not None and facts["family"] == FAMILY else None


def _from_hub(known: dict[str, Any], zoo: str | Path | None) -> Preset | None:
    """Returns the snapshot of a known model of the hub, whose own config.json counts; None where it has none."""
    if known["origin"]["kind"] != "hub":
        return None
    try:
        return resolve(known["name"], zoo)
    except ModelError:
        return None


def _present(name: str, zoo: str | Path | None) -> Preset | None:
    """Returns the image model of a folder or of the zoo, None where there is none of that name."""
    if not looks_like_path(name) and _is_shape(name):
        return None
    try:
        preset = resolve(name, zoo)
    except ModelError:
        return None
    return preset if family_of(preset) == FAMILY else None
