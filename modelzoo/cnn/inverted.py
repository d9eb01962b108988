"""Inverted residual networks: MobileNetV2 and EfficientNet.

Sandler et al. 2018, arXiv 1801.04381, section 3; Tan and Le 2019, arXiv 1905.11946, section 4, which adds squeeze and
excitation, other kernels and stochastic depth.
"""

from __future__ import annotations

from typing import Any

from modelzoo.cnn.builder import Builder
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.residual import excite
from modelzoo.cnn.stages import BlockSpec, places


def features(b: Builder, x: Any, config: CnnConfig) -> Any:
    """Returns [batch, width]."""
    stride = 2 if config.stem == "imagenet" else 1
    x = b.conv(x, config.stem_widths[0], 3, "stem_conv", stride=stride, padding="same")
    x = b.act(b.norm(x, "stem_norm"), config.activation)
    for place in places(config):
        x = _block(b, x, config, place)
    x = b.norm(b.conv(x, config.head_width, 1, "head_conv"), "head_norm")
    return b.global_mean(b.act(x, config.activation))


def _block(b: Builder, x: Any, config: CnnConfig, place: BlockSpec) -> Any:
    name, before = place.name, b.channels(x)
    inner = place.inner or before * config.expansions[place.stage]
    branch = x
    if config.expansions[place.stage] > 1:
        branch = b.norm(b.conv(branch, inner, 1, f"{name}expand_conv"), f"{name}expand_norm")
        branch = b.act(branch, config.activation)
    branch = b.depthwise(branch, config.kernels[place.stage], f"{name}depthwise", stride=place.stride)
    branch = b.act(b.norm(branch, f"{name}depthwise_norm"), config.activation)
    if config.family == "efficientnet" and config.se_ratio:
        # The squeezed width follows the channels of the block's input, not the expanded ones.
        branch = excite(b, branch, max(1, int(before * config.se_ratio)), name, config.activation)
    branch = b.norm(b.conv(branch, place.width, 1, f"{name}project_conv"), f"{name}project_norm", last=True)
    if place.stride > 1 or before != place.width:
        return branch
    return b.add(b.drop_path(branch, config.drop_path * (place.number - 1) / place.total), x)
