"""What the residual families share: the first layers, and the walk over the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from modelzoo.cnn.builder import Builder
from modelzoo.cnn.config import CnnConfig


class BlockSpec(NamedTuple):
    """One block of a network.

    Attributes:
        name: Prefix of its layers, such as `stage1_block2_`.
        stage: Number of its stage, from 0.
        width: Channels it gives; 0 for families without stage widths.
        inner: Channels inside; 0 for families without inner widths.
        stride: Of its strided convolution.
        number: Of the block in the whole network, from 1.
        total: Blocks of the whole network.
    """

    name: str
    stage: int
    width: int
    inner: int
    stride: int
    number: int
    total: int


def places(config: CnnConfig) -> Iterator[BlockSpec]:
    """Yields the blocks from the first to the last."""
    total, number = sum(config.blocks), 0
    for stage, count in enumerate(config.blocks):
        inner = config.inner(stage) if config.inner_widths else (0,) * count
        for position, label in enumerate(config.ids(stage)):
            number += 1
            yield BlockSpec(
                f"stage{stage + 1}_block{label}_",
                stage,
                config.stage_widths[stage] if config.stage_widths else 0,
                inner[position],
                config.strides[stage] if position == 0 else 1,
                number,
                total,
            )


def stem(b: Builder, x: Any, config: CnnConfig, *, norm: bool = True, act: bool = True, bias: bool = False) -> Any:
    """First layers: a 3x3 convolution, or 7x7 (or three 3x3, where `stem_widths` has three) and a maximum.

    Args:
        b: Builder.
        x: Images.
        config: Configuration.
        norm: Whether the last convolution is normalised.
        act: Whether it is activated.
        bias: Whether it has a bias.
    """
    imagenet, count = config.stem == "imagenet", len(config.stem_widths)
    for i, width in enumerate(config.stem_widths):
        last, number = i == count - 1, "" if count == 1 else str(i + 1)
        kernel = 7 if imagenet and count == 1 else 3
        x = b.conv(x, width, kernel, f"stem_conv{number}", stride=2 if imagenet and i == 0 else 1, bias=bias)
        if norm or not last:
            x = b.norm(x, f"stem_norm{number}")
        if act or not last:
            x = b.act(x, config.activation)
    if imagenet:
        # Only after a ReLU may the maximum see zeros that were padded.
        x = b.max_pool(x, 3, "symmetric" if act and not config.se_stem_pool else "same")
    return x
