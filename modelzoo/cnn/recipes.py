"""Published networks as configurations: one function per family, with the numbers of its paper.

Small images are 32x32 colour, ImageNet's 224x224; both can be replaced.
"""

from __future__ import annotations

import math
from typing import Any

from modelzoo.cnn.config import CnnConfig

# Blocks per stage of the ImageNet networks by depth; from 50 on they are bottlenecks (arXiv 1512.03385, table 1).
IMAGENET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
BOTTLENECK_EXPANSION = 4
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
# EfficientNet-Lite0 to Lite4 (Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite"), the same.
_EFFICIENTNET_LITE_FACTORS = {
    0: (1.0, 1.0, 224, 0.2),
    1: (1.0, 1.1, 240, 0.2),
    2: (1.1, 1.2, 260, 0.3),
    3: (1.2, 1.4, 280, 0.3),
    4: (1.4, 1.8, 300, 0.3),
}


def blocks_per_stage(depth: int, rest: int, per_block: int) -> tuple[int, int, int]:
    """Returns the blocks of three equal stages of a network of `depth` layers, `rest` of them outside the blocks."""
    count, left = divmod(depth - rest, 3 * per_block)
    if count < 1 or left:
        raise ValueError(f"depth {depth} is not {rest} + {3 * per_block} n with n >= 1")
    return (count,) * 3


def _staged(family: str, first: int, widths: tuple[int, ...], inner: tuple[int, ...], **more: Any) -> CnnConfig:
    """Returns a network whose first stage keeps the size and whose others halve it."""
    strides = (1, *[2] * (len(widths) - 1))
    return CnnConfig(
        **{
            "family": family,
            "stem_widths": (first,),
            "stage_widths": widths,
            "inner_widths": inner,
            "strides": strides,
            **more,
        }
    )


def cifar_resnet(depth: int, base: int = 16) -> CnnConfig:
    """ResNet for small images (arXiv 1512.03385, section 4.2), with 1x1 convolutions where the shape changes."""
    widths = (base, 2 * base, 4 * base)
    return _staged("resnet", base, widths, widths, blocks=blocks_per_stage(depth, 2, 2))


def cifar_prunable(depth: int, base: int = 16) -> CnnConfig:
    """ResNet for small images whose stages begin with a 1x1 convolution of their own, so that any block can go."""
    return cifar_resnet(depth, base).replace(shortcut="stage")


def cifar_resnet_x4(depth: int) -> CnnConfig:
    """The same with four times the channels behind a stem of 32, a usual teacher in distillation."""
    widths = (64, 128, 256)
    return _staged("resnet", 32, widths, widths, blocks=blocks_per_stage(depth, 2, 2))


def imagenet_stages(
    family: str, depth: int, *, base: int = 64, inner: int | None = None, stem: tuple[int, ...] = (64,), **more: Any
) -> CnnConfig:
    """Four stages for images of 224 pixels.

    Args:
        family: Family.
        depth: One of `IMAGENET_BLOCKS`.
        base: Width of the first stage before expansion.
        inner: Width inside the blocks of the first stage; `base` when None.
        stem: Widths of the first convolutions.
        **more: Further fields.
    """
    if depth not in IMAGENET_BLOCKS:
        raise ValueError(f"depth {depth} is not one of {', '.join(map(str, IMAGENET_BLOCKS))}")
    bottleneck = depth >= 50
    outer = base * (BOTTLENECK_EXPANSION if bottleneck else 1)
    return _staged(
        family,
        stem[0],
        tuple(outer * 2**stage for stage in range(4)),
        tuple((inner or base) * 2**stage for stage in range(4)),
        **{
            "blocks": IMAGENET_BLOCKS[depth],
            "block": "bottleneck" if bottleneck else "basic",
            "stem": "imagenet",
            "stem_widths": stem,
            "image_size": 224,
            **more,
        },
    )


def resnet(depth: int) -> CnnConfig:
    """ResNet for ImageNet, the stride of a bottleneck on its 3x3 convolution."""
    return imagenet_stages("resnet", depth)


def preact_resnet(depth: int) -> CnnConfig:
    """Pre-activation ResNet for ImageNet."""
    return imagenet_stages("preact_resnet", depth, pre_activation=True)


def cifar_preact(depth: int) -> CnnConfig:
    """Pre-activation ResNet for small images (arXiv 1603.05027): bottlenecks from a depth of 164 on."""
    bottleneck = depth >= 164
    inner = (16, 32, 64)
    outer = tuple(width * (BOTTLENECK_EXPANSION if bottleneck else 1) for width in inner)
    blocks = blocks_per_stage(depth, 2, 3 if bottleneck else 2)
    block = "bottleneck" if bottleneck else "basic"
    return _staged("preact_resnet", 16, outer, inner, blocks=blocks, block=block, pre_activation=True)


def cifar_wrn(depth: int, widening: int) -> CnnConfig:
    """Wide residual network (arXiv 1605.07146, table 1)."""
    widths = tuple(widening * width for width in (16, 32, 64))
    return _staged("wide_resnet", 16, widths, widths, blocks=blocks_per_stage(depth, 4, 2), pre_activation=True)


def wrn(depth: int, widening: int) -> CnnConfig:
    """Bottleneck network for ImageNet whose inner layers are wider."""
    if depth < 50:
        raise ValueError("wide networks for ImageNet have bottlenecks, so at least 50 layers")
    return imagenet_stages("wide_resnet", depth, inner=64 * widening)


def se_resnet(depth: int) -> CnnConfig:
    """ResNet for ImageNet with squeeze and excitation."""
    return imagenet_stages("se_resnet", depth, se_reduction=16)


def cifar_se_resnet(depth: int) -> CnnConfig:
    """Bottleneck ResNet for small images with squeeze and excitation, as in Divide and Co-training."""
    blocks = blocks_per_stage(depth, 2, 3)
    more = {"block": "bottleneck", "shortcut": "pool", "se_reduction": 4}
    return _staged("se_resnet", 16, (64, 128, 256), (16, 32, 64), blocks=blocks, **more)


def cifar_resnext(depth: int, groups: int, width: int) -> CnnConfig:
    """ResNeXt for small images (arXiv 1611.05431, section 5.2): outer widths 256, 512, 1024."""
    inner = tuple(groups * width * 2**stage for stage in range(3))
    blocks = blocks_per_stage(depth, 2, 3)
    return _staged("resnext", 64, (256, 512, 1024), inner, blocks=blocks, block="bottleneck", groups=groups)


def resnext(depth: int, groups: int, width: int) -> CnnConfig:
    """ResNeXt for ImageNet (arXiv 1611.05431, table 1)."""
    if depth < 50:
        raise ValueError("ResNeXt has bottlenecks, so at least 50 layers")
    return imagenet_stages("resnext", depth, inner=groups * width, groups=groups)


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


def pyramidnet(depth: int, alpha: int) -> CnnConfig:
    """PyramidNet that widens by `alpha` channels in all, with ShakeDrop: bottlenecks from a depth of 164 on."""
    bottleneck = depth >= 164
    blocks = blocks_per_stage(depth, 2, 3 if bottleneck else 2)
    return CnnConfig(
        family="pyramidnet",
        block="bottleneck" if bottleneck else "basic",
        blocks=blocks,
        inner_widths=pyramid_widths(blocks[0], alpha / sum(blocks)),
        strides=(1, 2, 2),
        drop_path=0.5,
    )


def shake_shake(width: int) -> CnnConfig:
    """Shake-shake with 26 layers and two branches (arXiv 1705.07485, table 1)."""
    widths = (width, 2 * width, 4 * width)
    return _staged("shake_shake", 16, widths, widths, blocks=(4, 4, 4))


def cifar_densenet(depth: int, growth: int) -> CnnConfig:
    """DenseNet for small images without bottlenecks and compression (arXiv 1608.06993, section 3)."""
    blocks = blocks_per_stage(depth, 4, 1)
    more = {"bottleneck_factor": 0, "compression": 1.0, "stem_norm": False, "conv_init": "he_fan_in"}
    return CnnConfig(family="densenet", stem_widths=(16,), blocks=blocks, growth=growth, **more)


def cifar_densenet_bc(depth: int, growth: int) -> CnnConfig:
    """DenseNet-BC for small images: bottlenecks, compression by half, a stem of two growths."""
    blocks = blocks_per_stage(depth, 4, 2)
    more = {"stem_norm": False, "conv_init": "he_fan_in"}
    return CnnConfig(family="densenet", stem_widths=(2 * growth,), blocks=blocks, growth=growth, **more)


def densenet(depth: int) -> CnnConfig:
    """DenseNet for ImageNet (arXiv 1608.06993, table 1)."""
    known = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}
    if depth not in known:
        raise ValueError(f"depth {depth} is not one of {', '.join(map(str, known))}")
    more = {"stem": "imagenet", "stem_widths": (64,), "image_size": 224, "conv_init": "he_fan_in"}
    return CnnConfig(family="densenet", blocks=known[depth], growth=32, norm_epsilon=1.001e-5, **more)


def vgg(depth: int) -> CnnConfig:
    """VGG for small images with batch normalisation; 8 layers keep 4x4 pixels in their last two stages."""
    counts = {8: 1, 11: (1, 1, 2, 2, 2), 13: 2, 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
    if depth not in counts:
        raise ValueError(f"depth {depth} is not one of {', '.join(map(str, counts))}")
    blocks = counts[depth]
    return CnnConfig(
        family="vgg",
        blocks=blocks if isinstance(blocks, tuple) else (blocks,) * 5,
        stage_widths=(64, 128, 256, 512, 512),
        strides=(1, 2, 2, 2, 1),
        head_deviation=0.01,
    )


def plain_vgg(depth: int) -> CnnConfig:
    """The same without batch normalisation."""
    return vgg(depth).replace(batch_norm=False)


def smallcnn() -> CnnConfig:
    """Small network for 28x28 digits (arXiv 1901.08573), its classifier starting at zero."""
    more = {"head_width": 200, "block_dropout": 0.5, "head_deviation": 0.0, "conv_init": "he_fan_in"}
    return CnnConfig(family="smallcnn", image_size=28, channels=1, blocks=(2, 2), stage_widths=(32, 64), **more)


def mlp(width: int, layers: int) -> CnnConfig:
    """Dense layers on 8x8 digits."""
    return CnnConfig(family="mlp", image_size=8, channels=1, stage_widths=(width,) * layers)


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


def efficientnet_lite(variant: int) -> CnnConfig:
    """EfficientNet-Lite0 to Lite4: ReLU6, no squeeze and excitation; stem, head, first and last stage are not scaled.

    Args:
        variant: 0 to 4.
    """
    width, depth, size, dropout = _EFFICIENTNET_LITE_FACTORS[variant]
    stem, stages, head = EFFICIENTNET_WIDTHS
    blocks = (1, *(math.ceil(count * depth) for count in (2, 2, 3, 3, 4)), 1)
    return efficientnet(0).replace(
        image_size=size,
        stem_widths=(stem,),
        blocks=blocks,
        stage_widths=tuple(rounded(w * width) for w in stages),
        head_width=head,
        activation="relu6",
        se_ratio=0.0,
        dropout=dropout,
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
