"""Weight files of other programs: their names and layouts against ours, checked in both directions.

A layout is a table of rows for one configuration. Every row's weight must be in the file, and every weight of the file
in a row, counters of training steps excepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from easytransfer.errors import ModelError
from easytransfer.presets.load_report import LoadReport
from easytransfer.presets.safetensors_file import read_safetensors
from easytransfer.presets.torch_file import read_torch
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.names import named
from modelzoo.cnn.networks import block_specs

# What PyTorch counts beside the statistics of batch normalisation, for averages that no network here has.
_COUNTER = ".num_batches_tracked"
# Axes of PyTorch's arrays in the order of TensorFlow's: [out, in, height, width] and so on.
_AXES = {"kernel": (2, 3, 1, 0), "depthwise_kernel": (2, 3, 0, 1), "dense_kernel": (1, 0)}
_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


class Row(NamedTuple):
    """One weight.

    Attributes:
        ours: Its name here, such as `stem_conv/kernel`.
        theirs: Its name in the file.
        kind: Key of the order of its axes; None where it has one axis.
    """

    ours: str
    theirs: str
    kind: str | None = None


def _norm(ours: str, theirs: str) -> Iterator[Row]:
    for part, name in _NORM.items():
        yield Row(f"{ours}/{part}", f"{theirs}.{name}")


def _efficientnet_pytorch(config: CnnConfig) -> Iterator[Row]:
    """Names of the PyTorch package `efficientnet_pytorch` and of those made from it."""
    yield Row("stem_conv/kernel", "_conv_stem.weight", "kernel")
    yield from _norm("stem_norm", "_bn0")
    for spec in block_specs(config):
        block = f"_blocks.{spec.number - 1}."
        if config.expansions[spec.stage] > 1:
            yield Row(f"{spec.name}expand_conv/kernel", f"{block}_expand_conv.weight", "kernel")
            yield from _norm(f"{spec.name}expand_norm", f"{block}_bn0")
        yield Row(f"{spec.name}depthwise/depthwise_kernel", f"{block}_depthwise_conv.weight", "depthwise_kernel")
        yield from _norm(f"{spec.name}depthwise_norm", f"{block}_bn1")
        for part in ("se_reduce", "se_expand") if config.se_ratio else ():
            yield Row(f"{spec.name}{part}/kernel", f"{block}_{part}.weight", "kernel")
            yield Row(f"{spec.name}{part}/bias", f"{block}_{part}.bias")
        yield Row(f"{spec.name}project_conv/kernel", f"{block}_project_conv.weight", "kernel")
        yield from _norm(f"{spec.name}project_norm", f"{block}_bn2")
    yield Row("head_conv/kernel", "_conv_head.weight", "kernel")
    yield from _norm("head_norm", "_bn1")
    yield Row("logits/kernel", "_fc.weight", "dense_kernel")
    yield Row("logits/bias", "_fc.bias")


LAYOUTS: dict[str, Callable[[CnnConfig], Iterator[Row]]] = {"efficientnet_pytorch": _efficientnet_pytorch}


def from_layout(values: Mapping[str, np.ndarray], config: CnnConfig, layout: str, source: str) -> dict[str, np.ndarray]:
    """Returns weights by our names, in our order of axes.

    Args:
        values: Arrays of a file by its names, in PyTorch's order of axes.
        config: The network.
        layout: Key of `LAYOUTS`.
        source: The file, for messages.

    Raises:
        ModelError: A weight is missing, or the file has one that has no place; the message lists them.
    """
    rows = list(LAYOUTS[layout](config))
    report = LoadReport(source, remedy="use the network that the file belongs to")
    report.missing = [row.ours for row in rows if row.theirs not in values]
    known = {row.theirs for row in rows}
    report.unexpected = [name for name in values if name not in known and not name.endswith(_COUNTER)]
    report.check()
    if report.unexpected:
        raise ModelError(
            f"{source} has {len(report.unexpected)} weights that the network has no place for",
            received=", ".join(report.unexpected[:5]),
            fix=report.remedy,
        )
    found = {}
    for ours, theirs, kind in rows:
        axes = _AXES[kind] if kind else (0,)
        if values[theirs].ndim != len(axes):
            raise ModelError(
                f"{source}: weight {theirs} has the shape {list(values[theirs].shape)}", accepted=f"{len(axes)} axes"
            )
        found[ours] = np.ascontiguousarray(values[theirs].transpose(axes))
    return found


def write_published(
    path: Path, target: Path, layout: str, network: str, classes: int, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes a published file of weights as a model folder.

    Args:
        path: `.pth` or `.safetensors` file.
        target: New folder.
        layout: Key of `LAYOUTS`.
        network: Name of the network.
        classes: Number of its classes.
        facts: Entries of the manifest.

    Returns:
        What is told of it: folder, source, numbers of weights and files.

    Raises:
        ModelError: The file is not readable or does not fit; its numbers are not finite; the folder exists.
    """
    from modelzoo.cnn.backbone import CnnBackbone

    values = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    model = CnnBackbone(named(network), classes)
    model.import_weights(from_layout(values, model.config, layout, path.name), path.name)
    if not np.isfinite(model.example_outputs()).all():
        raise ModelError(f"{path.name} gives values that are not finite", fix="its weights are damaged")
    model.save_to_preset(target, facts=facts)
    return {
        "folder": str(target),
        "from": layout,
        "to": "ez",
        "weights": len(model.load_report.matched),
        "files": sorted(file.name for file in target.iterdir()),
    }
