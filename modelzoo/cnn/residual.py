"""Residual networks with the activation after the addition: ResNet, ResNeXt, SE-ResNet and their wide forms.

He et al. 2016, arXiv 1512.03385, section 3; Xie et al. 2017, arXiv 1611.05431 (groups); Hu et al. 2018, arXiv
1709.01507 (squeeze and excitation). The stride of a bottleneck is on its 3x3 convolution.
"""

from __future__ import annotations

from typing import Any

from modelzoo.cnn.builder import Builder
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.stages import BlockSpec, places, stem


def features(b: Builder, x: Any, config: CnnConfig) -> Any:
    """Returns [batch, width]."""
    x = stem(b, x, config)
    for place in places(config):
        if config.shortcut == "stage":
            x, place = _transition(b, x, place)
        branch = _branch(b, x, config, place)
        if config.se_reduction:
            branch = excite(b, branch, b.channels(branch) // config.se_reduction, place.name)
        x = b.act(b.add(branch, _shortcut(b, x, config, place)), config.activation)
    return b.global_mean(x)


def _branch(b: Builder, x: Any, config: CnnConfig, place: BlockSpec) -> Any:
    name, wide = place.name, (place.inner, 3, place.stride)
    if config.block == "basic":
        layers = [(*wide, config.groups), (place.width, 3, 1, 1)]
    else:
        layers = [(place.inner, 1, 1, 1), (*wide, config.groups), (place.width, 1, 1, 1)]
    for i, (width, kernel, stride, groups) in enumerate(layers, 1):
        last = i == len(layers)
        x = b.conv(x, width, kernel, f"{name}conv{i}", stride=stride, groups=groups)
        x = b.norm(x, f"{name}norm{i}", last=last)
        x = x if last else b.act(x, config.activation)
    return x


def _transition(b: Builder, x: Any, place: BlockSpec) -> tuple[Any, BlockSpec]:
    """Changes the shape before a block, so that the block itself changes nothing."""
    if place.stride > 1 or b.channels(x) != place.width:
        name = f"stage{place.stage + 1}_transition_"
        x = b.norm(b.conv(x, place.width, 1, f"{name}conv", stride=place.stride), f"{name}norm")
    return x, place._replace(stride=1)


def _shortcut(b: Builder, x: Any, config: CnnConfig, place: BlockSpec) -> Any:
    if place.stride == 1 and b.channels(x) == place.width:
        return x
    stride = place.stride
    if config.shortcut == "pool" and stride > 1:
        x, stride = b.mean_pool(x), 1
    x = b.conv(x, place.width, 1, f"{place.name}shortcut_conv", stride=stride)
    return b.norm(x, f"{place.name}shortcut_norm")


def excite(b: Builder, x: Any, width: int, name: str, activation: str = "relu") -> Any:
    """Squeeze and excitation: scales channels by a gate made from their means (arXiv 1709.01507, section 3).

    Args:
        b: Builder.
        x: Features.
        width: Channels of the squeezed layer.
        name: Prefix of the layers.
        activation: Activation of the squeezed layer.
    """
    gate = b.act(b.conv(b.global_mean(x, keep=True), width, 1, f"{name}se_reduce", bias=True), activation)
    gate = b.conv(gate, b.channels(x), 1, f"{name}se_expand", bias=True)
    return b.scale(x, b.act(gate, "sigmoid"))
