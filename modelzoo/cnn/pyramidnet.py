"""Pyramidal residual networks (Han et al. 2017, arXiv 1610.02915) with ShakeDrop (Yamada et al., arXiv 1802.02375).

Channels grow with every block, so `inner_widths` has one number for each; a bottleneck gives four times as many. The
shortcut is the input, averaged 2x2 at a stride, with zeros in the channels it lacks.
"""

from __future__ import annotations

from typing import Any

from modelzoo.cnn.builder import Builder
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.stages import BlockSpec, places, stem

EXPANSION = 4


def features(b: Builder, x: Any, config: CnnConfig) -> Any:
    """Returns [batch, width]."""
    x = stem(b, x, config, act=False)
    for place in places(config):
        branch = b.shake_drop(_branch(b, x, config, place), config.drop_path * place.number / place.total)
        short = b.mean_pool(x) if place.stride > 1 else x
        x = b.add(branch, b.pad_channels(short, b.channels(branch)))
    return b.global_mean(b.act(b.norm(x, "final_norm"), config.activation))


def _branch(b: Builder, x: Any, config: CnnConfig, place: BlockSpec) -> Any:
    name, wide = place.name, (place.inner, 3, place.stride)
    layers = [wide, (place.inner, 3, 1)]
    if config.block == "bottleneck":
        layers = [(place.inner, 1, 1), wide, (EXPANSION * place.inner, 1, 1)]
    for i, (width, kernel, stride) in enumerate(layers, 1):
        x = b.norm(x, f"{name}norm{i}")
        x = x if i == 1 else b.act(x, config.activation)
        x = b.conv(x, width, kernel, f"{name}conv{i}", stride=stride)
    return b.norm(x, f"{name}norm{len(layers) + 1}", last=True)


def pyramid_widths(blocks: int, increment: float, start: int = 16) -> tuple[tuple[int, ...], ...]:
    """Returns the inner widths of three stages that grow by `increment` per block (arXiv 1610.02915, equation 3).

    Args:
        blocks: Blocks of each stage.
        increment: Channels added by each block; each width is rounded by itself, half to even.
        start: Channels of the stem.
    """
    widths, width = [], float(start)
    for _ in range(3 * blocks):
        width += increment
        widths.append(round(width))
    return tuple(tuple(widths[blocks * stage : blocks * (stage + 1)]) for stage in range(3))
