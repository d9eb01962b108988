"""Densely connected networks, with or without bottlenecks and compression (Huang et al. 2017, arXiv 1608.06993)."""

from __future__ import annotations

from typing import Any

from modelzoo.cnn.builder import Builder
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.stages import stem


def features(b: Builder, x: Any, config: CnnConfig) -> Any:
    """Returns [batch, width]."""
    x = stem(b, x, config, norm=config.stem_norm, act=config.stem_norm)
    for stage in range(len(config.blocks)):
        if stage > 0:
            x = _transition(b, x, config, f"transition{stage}_")
        for label in config.ids(stage):
            x = b.concat([x, _layer(b, x, config, f"stage{stage + 1}_block{label}_")])
    return b.global_mean(b.act(b.norm(x, "final_norm"), config.activation))


def _layer(b: Builder, x: Any, config: CnnConfig, name: str) -> Any:
    layers = [(config.growth, 3)]
    if config.bottleneck_factor:
        layers.insert(0, (config.bottleneck_factor * config.growth, 1))
    for i, (width, kernel) in enumerate(layers, 1):
        x = b.act(b.norm(x, f"{name}norm{i}"), config.activation)
        x = b.dropout(b.conv(x, width, kernel, f"{name}conv{i}"), config.block_dropout)
    return x


def _transition(b: Builder, x: Any, config: CnnConfig, name: str) -> Any:
    x = b.act(b.norm(x, f"{name}norm"), config.activation)
    x = b.conv(x, int(b.channels(x) * config.compression), 1, f"{name}conv")
    return b.mean_pool(b.dropout(x, config.block_dropout), "valid")
