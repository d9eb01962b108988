"""Makes residual networks smaller: fewer filters, fewer blocks. What is left keeps its weights and its names.

Which channels belong together is read off the network's own description: tensors that are added have the same channels,
so one list of kept filters is used for all layers that write them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from easytransfer.errors import ModelError
from modelzoo.cnn import networks
from modelzoo.cnn.builder import Padding
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.networks import block_specs

Weights = dict[str, np.ndarray]
FAMILIES = ("resnet", "preact_resnet", "wide_resnet")
# Fewer filters than this are never left.
LEAST_FILTERS = 2
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


@dataclass(eq=False)
class Channels:
    """The channels of a tensor.

    Attributes:
        size: How many.
        same_as: The channels they were added to, whose filters are kept and removed together with these.
    """

    size: int
    same_as: Channels | None = None

    def root(self) -> Channels:
        """Returns the one that stands for all that were added to each other."""
        return self if self.same_as is None else self.same_as.root()


@dataclass
class _Layer:
    kind: str
    inputs: Channels
    outputs: Channels


@dataclass
class ChannelBuilder:
    """Builder (see `builder.py`) whose tensors are their channels; `layers` says what each layer reads and writes."""

    layers: dict[str, _Layer] = field(default_factory=dict)

    def conv(
        self,
        x: Channels,
        filters: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding: Padding = "symmetric",
        dilation: int = 1,
    ) -> Channels:
        """See `Builder`."""
        self.layers[name] = _Layer("conv", x, Channels(filters))
        return self.layers[name].outputs

    def norm(self, x: Channels, name: str, *, last: bool = False) -> Channels:
        """See `Builder`."""
        self.layers[name] = _Layer("norm", x, x)
        return x

    def dense(self, x: Channels, units: int, name: str) -> Channels:
        """See `Builder`."""
        self.layers[name] = _Layer("dense", x, Channels(units))
        return self.layers[name].outputs

    def add(self, x: Channels, y: Channels) -> Channels:
        """See `Builder`."""
        if x.root() is not y.root():
            y.root().same_as = x.root()
        return x

    def act(self, x: Channels, kind: str) -> Channels:
        """See `Builder`."""
        return x

    def max_pool(self, x: Channels, size: int, padding: Padding) -> Channels:
        """See `Builder`."""
        return x

    def mean_pool(self, x: Channels, padding: Padding = "same") -> Channels:
        """See `Builder`."""
        return x

    def global_mean(self, x: Channels, keep: bool = False) -> Channels:
        """See `Builder`."""
        return x

    def dropout(self, x: Channels, rate: float) -> Channels:
        """See `Builder`."""
        return x

    def channels(self, x: Channels) -> int:
        """See `Builder`."""
        return x.size


def check_prunable(config: CnnConfig) -> None:
    """Checks that filters and blocks of this network can be removed.

    Raises:
        ModelError: They cannot.
    """
    if config.family not in FAMILIES or config.groups > 1 or config.se_reduction:
        raise ModelError(
            "filters and blocks of this network cannot be removed",
            received=config.family,
            accepted=", ".join(FAMILIES),
            fix="take a residual network such as prunable_resnet20_w8_cifar",
        )


def _layers(config: CnnConfig) -> tuple[Channels, dict[str, _Layer]]:
    """Returns the channels of the images, and all layers."""
    check_prunable(config)
    b = ChannelBuilder()
    images = Channels(config.channels)
    vector = networks.body(b, images, config).vector
    # The number of classes decides nothing here.
    networks.head(b, vector, config, 1)
    return images, b.layers


# Width -------------------------------------------------------------------------------------------------------


def thinned_config(config: CnnConfig, share: float, multiple: int = 1) -> CnnConfig:
    """Returns the network with `share` of the filters of every layer, rounded to multiples, the least two."""

    def kept(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(kept, value))
        return min(value, max(LEAST_FILTERS, multiple, round(share * value / multiple) * multiple))

    names = ("stem_widths", "stage_widths", "inner_widths")
    return config.replace(**{name: kept(getattr(config, name)) for name in names})


def thin(config: CnnConfig, weights: Mapping[str, np.ndarray], smaller: CnnConfig) -> Weights:
    """Removes the filters of least L1 norm (Li et al. 2017, arXiv 1608.08710).

    Where several layers write the same channels, as all blocks of a stage do, their norms are added.

    Args:
        config: The network.
        weights: Its weights by name, see `CnnBackbone.export_weights`.
        smaller: The network wanted, with the same layers; see `thinned_config`.

    Returns:
        The weights that are left.

    Raises:
        ModelError: The network is of another family.
    """
    images, layers = _layers(config)
    wanted = {name: layer.outputs.size for name, layer in _layers(smaller)[1].items()}
    norms: dict[int, np.ndarray] = {}
    sizes: dict[int, int] = {}
    for name, layer in layers.items():
        if layer.kind == "conv":
            group = id(layer.outputs.root())
            norms[group] = norms.get(group, 0.0) + np.abs(weights[f"{name}/kernel"].astype(np.float64)).sum((0, 1, 2))
            sizes[group] = wanted[name]
    kept = {group: np.sort(np.argsort(-norm, kind="stable")[: sizes[group]]) for group, norm in norms.items()}
    kept[id(images)] = np.arange(images.size)
    return {name: value for layer in layers.items() for name, value in _sliced(*layer, weights, kept)}


def _sliced(
    name: str, layer: _Layer, weights: Mapping[str, np.ndarray], kept: dict[int, np.ndarray]
) -> list[tuple[str, np.ndarray]]:
    """Returns the weights of one layer that are left."""
    inputs, outputs = kept[id(layer.inputs.root())], kept.get(id(layer.outputs.root()))
    if layer.kind == "conv":
        return [(f"{name}/kernel", weights[f"{name}/kernel"][:, :, inputs][..., outputs])]
    if layer.kind == "norm":
        return [(f"{name}/{part}", weights[f"{name}/{part}"][inputs]) for part in _NORM]
    return [(f"{name}/kernel", weights[f"{name}/kernel"][inputs]), (f"{name}/bias", weights[f"{name}/bias"])]


# Depth -------------------------------------------------------------------------------------------------------


def block_names(config: CnnConfig) -> list[str]:
    """Returns the prefixes of the layers of all blocks, first to last, such as `stage1_block2_`."""
    return [spec.name for spec in block_specs(config)]


def removable_blocks(config: CnnConfig) -> list[str]:
    """Returns the blocks that put out the shape they take in, as prefixes of their layers."""
    check_prunable(config)
    found, width = [], config.stem_widths[-1]
    for spec in block_specs(config):
        if config.shortcut == "stage" or (spec.stride == 1 and spec.width == width):
            found.append(spec.name)
        width = spec.width
    return found


def without_blocks(
    config: CnnConfig, weights: Mapping[str, np.ndarray], removed: Sequence[str]
) -> tuple[CnnConfig, Weights]:
    """Removes blocks.

    Args:
        config: The network.
        weights: Its weights by name.
        removed: Prefixes from `removable_blocks`.

    Returns:
        The shallower network and its weights.

    Raises:
        ModelError: A block cannot be removed, or a stage would have none left.
    """
    if unknown := sorted(set(removed) - set(removable_blocks(config))):
        raise ModelError("blocks that cannot be removed", received=", ".join(unknown))
    stages = range(len(config.blocks))
    left = [[p for p in enumerate(config.ids(s)) if f"stage{s + 1}_block{p[1]}_" not in removed] for s in stages]
    if not all(left):
        raise ModelError("a stage would have no block left", received=", ".join(removed))
    smaller = config.replace(
        blocks=tuple(map(len, left)),
        block_ids=tuple(tuple(label for _, label in stage) for stage in left),
        inner_widths=tuple(tuple(config.inner(s)[position] for position, _ in left[s]) for s in stages),
    )
    names = _layers(smaller)[1]
    return smaller, {name: value for name, value in weights.items() if name.split("/")[0] in names}
