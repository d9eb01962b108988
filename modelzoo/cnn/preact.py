"""Residual networks with the activation before each convolution: pre-activation and wide residual networks.

He et al. 2016, arXiv 1603.05027, figure 4e; Zagoruyko and Komodakis 2016, arXiv 1605.07146, section 2. Where the shape
changes, the activated input feeds both the branch and a 1x1 convolution; elsewhere the input itself is added.
"""

from __future__ import annotations

from typing import Any

from modelzoo.cnn.builder import Builder
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.stages import BlockSpec, places, stem


def features(b: Builder, x: Any, config: CnnConfig) -> Any:
    """Returns [batch, width]."""
    x = stem(b, x, config, norm=False, act=False)
    for place in places(config):
        x = _block(b, x, config, place)
    return b.global_mean(b.act(b.norm(x, "final_norm"), config.activation))


def _block(b: Builder, x: Any, config: CnnConfig, place: BlockSpec) -> Any:
    name, wide = place.name, (place.inner, 3, place.stride)
    layers = [wide, (place.width, 3, 1)]
    if config.block == "bottleneck":
        layers = [(place.inner, 1, 1), wide, (place.width, 1, 1)]
    changes = place.stride > 1 or b.channels(x) != place.width
    branch = x
    for i, (width, kernel, stride) in enumerate(layers, 1):
        branch = b.act(b.norm(branch, f"{name}norm{i}"), config.activation)
        if i == 1 and changes:
            x = b.conv(branch, place.width, 1, f"{name}shortcut_conv", stride=place.stride)
        if i == len(layers):
            branch = b.dropout(branch, config.block_dropout)
        branch = b.conv(branch, width, kernel, f"{name}conv{i}", stride=stride)
    return b.add(branch, x)
