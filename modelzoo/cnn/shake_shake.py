"""Shake-shake networks: two residual branches, mixed at random in training (Gastaldi 2017, arXiv 1705.07485)."""

from __future__ import annotations

from typing import Any

from modelzoo.cnn.builder import Builder
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.stages import BlockSpec, places, stem


def features(b: Builder, x: Any, config: CnnConfig) -> Any:
    """Returns [batch, width]."""
    x = stem(b, x, config, act=False, bias=True)
    for place in places(config):
        branches = [_branch(b, x, config, place, label) for label in "ab"]
        x = b.add(b.shake_shake(*branches), _shortcut(b, x, config, place))
    return b.global_mean(b.act(x, config.activation))


def _branch(b: Builder, x: Any, config: CnnConfig, place: BlockSpec, label: str) -> Any:
    name = f"{place.name}{label}_"
    x = b.conv(b.act(x, config.activation), place.inner, 3, f"{name}conv1", stride=place.stride)
    x = b.act(b.norm(x, f"{name}norm1"), config.activation)
    return b.norm(b.conv(x, place.width, 3, f"{name}conv2"), f"{name}norm2", last=True)


def _shortcut(b: Builder, x: Any, config: CnnConfig, place: BlockSpec) -> Any:
    """Two views of the strided image, one moved by a pixel, each with a 1x1 convolution to half of the channels."""
    if place.stride == 1 and b.channels(x) == place.width:
        return x
    x = b.act(x, config.activation)
    half, halves = place.width // 2, []
    for shift, width in enumerate((half, place.width - half)):
        view = b.shifted(x, shift, place.stride)
        halves.append(b.conv(view, width, 1, f"{place.name}shortcut_conv{shift + 1}"))
    return b.norm(b.concat(halves), f"{place.name}shortcut_norm")
