"""Networks without shortcuts: VGG, a small network for digits, and dense layers on pixels."""

from __future__ import annotations

from typing import Any

from modelzoo.cnn.builder import Builder
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.stages import places


def vgg(b: Builder, x: Any, config: CnnConfig) -> Any:
    """VGG (Simonyan and Zisserman 2015, arXiv 1409.1556) in its form for small images; returns [batch, width].

    A stage whose entry in `strides` is 2 begins with a maximum over 2x2 windows.
    """
    for place in places(config):
        if place.stride > 1:
            x = b.max_pool(x, 2, "valid")
        x = b.conv(x, place.width, 3, f"{place.name}conv", bias=True)
        if config.batch_norm:
            x = b.norm(x, f"{place.name}norm")
        x = b.act(x, config.activation)
    return b.global_mean(x)


def smallcnn(b: Builder, x: Any, config: CnnConfig) -> Any:
    """Small network for digits of TRADES (Zhang et al. 2019, arXiv 1901.08573): returns [batch, head_width].

    Unpadded 3x3 convolutions, each stage followed by a maximum over 2x2 windows, then two dense layers with dropout.
    """
    for stage, (count, width) in enumerate(zip(config.blocks, config.stage_widths, strict=True), 1):
        for i in range(count):
            x = b.conv(x, width, 3, f"stage{stage}_block{i + 1}_conv", bias=True, padding="valid")
            x = b.act(x, config.activation)
        x = b.max_pool(x, 2, "valid")
    x = b.act(b.dense(b.flatten(x), config.head_width, "dense1"), config.activation)
    x = b.dropout(x, config.block_dropout)
    return b.act(b.dense(x, config.head_width, "dense2"), config.activation)


def mlp(b: Builder, x: Any, config: CnnConfig) -> Any:
    """Dense layers of the widths `stage_widths` on the pixels; returns [batch, last width]."""
    x = b.flatten(x)
    for i, width in enumerate(config.stage_widths, 1):
        x = b.act(b.dense(x, width, f"dense{i}"), config.activation)
    return x
