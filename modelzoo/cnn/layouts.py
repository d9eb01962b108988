"""Weight files of other programs: their names and layouts against ours, checked in both directions.

A layout is a table of rows for one configuration. Every row's weight must be in the file, and every weight of the file
in a row, counters of training steps excepted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from easytransfer.errors import ModelError
from easytransfer.presets.folder import read_json
from easytransfer.presets.load_report import LoadReport
from easytransfer.presets.safetensors_file import read_safetensors_folder
from modelzoo.cnn import timm
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.networks import BlockSpec, block_specs

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


def _timm_resnet(config: CnnConfig) -> Iterator[Row]:
    """Names of timm's residual networks, which are also torchvision's."""
    yield Row("stem_conv/kernel", "conv1.weight", "kernel")
    yield from _norm("stem_norm", "bn1")
    before = config.stem_widths[0]
    for spec, position in _with_positions(config):
        block = f"layer{spec.stage + 1}.{position}."
        for i in range(1, 3 if config.block == "basic" else 4):
            yield Row(f"{spec.name}conv{i}/kernel", f"{block}conv{i}.weight", "kernel")
            yield from _norm(f"{spec.name}norm{i}", f"{block}bn{i}")
        if spec.stride > 1 or before != spec.width:
            yield Row(f"{spec.name}shortcut_conv/kernel", f"{block}downsample.0.weight", "kernel")
            yield from _norm(f"{spec.name}shortcut_norm", f"{block}downsample.1")
        before = spec.width
    yield Row("logits/kernel", "fc.weight", "dense_kernel")
    yield Row("logits/bias", "fc.bias")


def _timm_inverted(config: CnnConfig) -> Iterator[Row]:
    """Names of timm's MobileNetV2 and EfficientNet, whose first block has one convolution and one name less."""
    yield Row("stem_conv/kernel", "conv_stem.weight", "kernel")
    yield from _norm("stem_norm", "bn1")
    for spec, position in _with_positions(config):
        block, expands = f"blocks.{spec.stage}.{position}.", config.expansions[spec.stage] > 1
        if expands:
            yield Row(f"{spec.name}expand_conv/kernel", f"{block}conv_pw.weight", "kernel")
            yield from _norm(f"{spec.name}expand_norm", f"{block}bn1")
        yield Row(f"{spec.name}depthwise/depthwise_kernel", f"{block}conv_dw.weight", "depthwise_kernel")
        yield from _norm(f"{spec.name}depthwise_norm", f"{block}bn{1 + expands}")
        gates = (("se_reduce", "conv_reduce"), ("se_expand", "conv_expand"))
        for ours, theirs in gates if config.family == "efficientnet" and config.se_ratio else ():
            yield Row(f"{spec.name}{ours}/kernel", f"{block}se.{theirs}.weight", "kernel")
            yield Row(f"{spec.name}{ours}/bias", f"{block}se.{theirs}.bias")
        yield Row(f"{spec.name}project_conv/kernel", f"{block}conv_pw{'l' if expands else ''}.weight", "kernel")
        yield from _norm(f"{spec.name}project_norm", f"{block}bn{2 + expands}")
    yield Row("head_conv/kernel", "conv_head.weight", "kernel")
    yield from _norm("head_norm", "bn2")
    yield Row("logits/kernel", "classifier.weight", "dense_kernel")
    yield Row("logits/bias", "classifier.bias")


def _with_positions(config: CnnConfig) -> Iterator[tuple[BlockSpec, int]]:
    """Yields the blocks with their number in their stage, from 0."""
    for _, blocks in itertools.groupby(block_specs(config), key=lambda spec: spec.stage):
        yield from ((spec, position) for position, spec in enumerate(blocks))


LAYOUTS: dict[str, Callable[[CnnConfig], Iterator[Row]]] = {
    "efficientnet_pytorch": _efficientnet_pytorch,
    "timm_resnet": _timm_resnet,
    "timm_inverted": _timm_inverted,
}


def stored_weights(folder: str | Path) -> dict[str, np.ndarray]:
    """Returns the weights of a model folder, ours or one of timm, by our names.

    Raises:
        ModelError: A file is missing or damaged, or its weights are not those of its network.
    """
    values, path = read_safetensors_folder(folder), Path(folder, timm.CONFIG)
    if not timm.is_timm(data := read_json(path)):
        return values
    layout, has_classifier = timm.layout_of(data, str(path)), timm.stored_config(folder)["classes"] is not None
    return from_layout(values, CnnConfig.from_folder(folder), layout, str(folder), has_classifier=has_classifier)


def from_layout(
    values: Mapping[str, np.ndarray], config: CnnConfig, layout: str, source: str, *, has_classifier: bool = True
) -> dict[str, np.ndarray]:
    """Returns weights by our names, in our order of axes.

    Args:
        values: Arrays of a file by its names, in PyTorch's order of axes.
        config: The network.
        layout: Key of `LAYOUTS`.
        source: The file, for messages.
        has_classifier: Whether the file has the weights of a classifier.

    Raises:
        ModelError: A weight is missing, or the file has one that has no place; the message lists them.
    """
    rows = [row for row in LAYOUTS[layout](config) if has_classifier or not row.ours.startswith("logits/")]
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
