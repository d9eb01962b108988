"""MobileNetV2 and EfficientNet as configurations, with the numbers of their papers."""

from __future__ import annotations

import math
from typing import Any

from modelzoo.cnn.config import CnnConfig

# EfficientNet (arXiv 1905.11946, table 1): stem, seven stages, head; factors of width and depth, pixels, dropout.
EFFICIENTNET_WIDTHS = (32, (16, 24, 40, 80, 112, 192, 320), 1280)
_EFFICIENTNET_FACTORS = {
    0: (1.0, 1.0, 224, 0.2),
    1: (1.0, 1.1, 240, 0.2),
    2: (1.1, 1.2, 260, 0.3),
    3: (1.2, 1.4, 300, 0.3),
    4: (1.4, 1.8, 380, 0.4),
    5: (1.6, 2.2, 456, 0.4),
    6: (1.8, 2.6, 528, 0.5),
    7: (2.0, 3.1, 600, 0.5),
}


def rounded(width: float, divisor: int = 8) -> int:
    """Returns the nearest multiple of `divisor` that is not more than 10% below `width`."""
    found = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return found if found >= 0.9 * width else found + divisor


def efficientnet(
    variant: int, widths: tuple[int, tuple[int, ...], int] = EFFICIENTNET_WIDTHS, divisor: int = 8
) -> CnnConfig:
    """EfficientNet-B0 to B7.

    Args:
        variant: 0 to 7.
        widths: Stem, stages and head before scaling.
        divisor: Widths are rounded to multiples of this.
    """
    width, depth, size, dropout = _EFFICIENTNET_FACTORS[variant]
    stem, stages, head = widths
    return CnnConfig(
        family="efficientnet",
        stem="imagenet",
        image_size=size,
        stem_widths=(rounded(stem * width, divisor),),
        blocks=tuple(math.ceil(count * depth) for count in (1, 2, 2, 3, 3, 4, 1)),
        stage_widths=tuple(rounded(w * width, divisor) for w in stages),
        strides=(1, 2, 2, 2, 1, 2, 1),
        expansions=(1, 6, 6, 6, 6, 6, 6),
        kernels=(3, 3, 5, 3, 5, 5, 3),
        head_width=rounded(head * width, divisor),
        activation="swish",
        dropout=dropout,
        drop_path=0.2,
        norm_momentum=0.99,
        norm_epsilon=1e-3,
    )


def cifar_efficientnet(variant: int, **settings: Any) -> CnnConfig:
    """EfficientNet for small images as in Divide and Co-training: three of its strides are 1."""
    config = efficientnet(variant, **settings)
    return config.replace(stem="cifar", image_size=32, strides=(1, 2, 1, 2, 1, 1, 1))


def mobilenet_v2(percent: int = 100) -> CnnConfig:
    """MobileNetV2 (arXiv 1801.04381, table 2) with all widths multiplied; the last one never becomes smaller."""
    alpha = percent / 100
    return CnnConfig(
        family="mobilenet_v2",
        stem="imagenet",
        image_size=224,
        stem_widths=(rounded(32 * alpha),),
        blocks=(1, 2, 3, 4, 3, 3, 1),
        stage_widths=tuple(rounded(int(w * alpha)) for w in (16, 24, 32, 64, 96, 160, 320)),
        strides=(1, 2, 2, 2, 1, 2, 1),
        expansions=(1, 6, 6, 6, 6, 6, 6),
        kernels=(3,) * 7,
        head_width=rounded(1280 * alpha) if alpha > 1 else 1280,
        activation="relu6",
        norm_momentum=0.999,
        norm_epsilon=1e-3,
    )


def cifar_mobilenet_v2() -> CnnConfig:
    """MobileNetV2 for small images: the first two of its strides are 1."""
    return mobilenet_v2().replace(stem="cifar", image_size=32, strides=(1, 1, 2, 2, 1, 2, 1))
