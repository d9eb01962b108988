"""Repositories of timm on the Hugging Face hub, by what their config.json says: the network, its images, its classes.

`timm.json` has the networks that are known: the shape of each, and the layout of its weights. They are those of the
papers but for two things: timm pads on all sides, as PyTorch does, and keeps PyTorch's epsilon.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easytransfer.errors import ModelError
from easytransfer.presets.folder import read_json

CONFIG = "config.json"


@functools.cache
def architectures() -> dict[str, dict[str, Any]]:
    """Returns `network`, fields of `CnnConfig`, and `layout`, key of `layouts.LAYOUTS`, by timm's name."""
    return json.loads(Path(__file__).with_name("timm.json").read_text(encoding="utf-8"))


def stored_config(folder: str | Path) -> dict[str, Any]:
    """Returns the contents of the config.json of an image network, those of timm's in our words.

    Raises:
        ModelError: It is not readable, or of a network of timm that is not known.
    """
    path = Path(folder, CONFIG)
    data = read_json(path)
    if not is_timm(data):
        return data
    form = input_form(data, str(path))
    network = {**_known(data, str(path))["network"], "image_size": form["image_size"]}
    return {**network, "classes": _classes(data, str(path))}


def is_timm(data: Mapping[str, Any]) -> bool:
    """Returns whether a config.json is one of timm."""
    return "architecture" in data and "model_type" not in data and "family" not in data


def layout_of(data: Mapping[str, Any], source: str) -> str:
    """Returns the layout of the weights beside a config.json of timm."""
    return str(_known(data, source)["layout"])


def input_form(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns what `input` of a manifest has: size, channels, mean and deviation of the images, from 0 to 1.

    Args:
        data: Contents of a config.json of timm; older ones have no `pretrained_cfg` and its entries beside the rest.
        source: The file, for messages.

    Raises:
        ModelError: An entry is missing or of another form.
    """
    stated = _stated(data)
    size, mean, std = (stated.get(name) for name in ("input_size", "mean", "std"))
    if not _numbers(size, int, 1) or size[0] != 3:
        raise ModelError(f"{source}: input_size is no size of colour images", received=size, accepted="[3, 224, 224]")
    if not _numbers(mean, float, 0) or not _numbers(std, float, 0) or min(std) == 0:
        raise ModelError(
            f"{source}: mean and std are not those of colour images from 0 to 1",
            received=f"{mean}, {std}",
            accepted="three numbers each, those of std above 0",
        )
    _, rows, columns = size
    return {
        "image_size": rows if rows == columns else [rows, columns],
        "channels": 3,
        "channel_mean": [float(value) for value in mean],
        "channel_std": [float(value) for value in std],
        "resize_mode": "crop",
    }


def _stated(data: Mapping[str, Any]) -> Mapping[str, Any]:
    found = data.get("pretrained_cfg", data)
    return found if isinstance(found, Mapping) else {}


def _numbers(values: Any, kind: type, least: float) -> bool:
    """Whether a value is a list of three numbers, none below `least`."""
    kinds = (int,) if kind is int else (int, float)
    return isinstance(values, list) and len(values) == 3 and all(type(v) in kinds and v >= least for v in values)


def _known(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    name = data["architecture"]
    if not isinstance(name, str) or name not in architectures():
        raise ModelError(f"{source} is of a network that is not known", received=name, accepted=sorted(architectures()))
    changed = {key: data[key] for key in ("model_args",) if data.get(key)}
    if data.get("global_pool", "avg") != "avg":
        changed["global_pool"] = data["global_pool"]
    if changed:
        raise ModelError(f"{source} changes the network {name}", received=changed, accepted=f"{name} as it is")
    return architectures()[name]


def _classes(data: Mapping[str, Any], source: str) -> int | None:
    """Returns the number of classes; None where the repository has no classifier."""
    found = data.get("num_classes", _stated(data).get("num_classes"))
    if type(found) is not int or found < 0:
        raise ModelError(f"{source}: num_classes is no number of classes", received=found, accepted="0 or more")
    return found or None
