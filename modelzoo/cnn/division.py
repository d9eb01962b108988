"""How Divide and Co-training divides a network into several small ones (arXiv 2011.14660, section 3).

Depth stays; the rules below change width, and divide dropout as well. All start the classifier at N(0, 0.001) and, but
for SE nets, every residual branch at zero. Where the shape changes the shortcut is a 2x2 mean and a 1x1 convolution.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from easytransfer.errors import ModelError, closest
from modelzoo.cnn import recipes
from modelzoo.cnn.config import CnnConfig

_CIFAR_BASE = {1: 16, 2: 12, 4: 8, 8: 6, 16: 4}
_IMAGENET_BASE = {1: 64, 2: 44, 4: 32, 8: 24}
_SHAKE_BASE = {1: 96, 2: 64, 4: 48}
_EFFICIENTNET = {
    1: (recipes.EFFICIENTNET_WIDTHS, 8),
    2: ((24, (12, 16, 24, 56, 80, 136, 224), 920), 4),
    4: ((16, (12, 16, 20, 40, 56, 96, 160), 640), 4),
}
_START = {"zero_last_gamma": True, "head_deviation": 1e-3, "shortcut": "pool"}
_SE_START = {**_START, "zero_last_gamma": False}
_WRN_STEM = 16
_WRN_DROPOUT = {(40, 10): 0.1}


def wrn_widening(widening: int, factor: int) -> int:
    """Returns the widening of each of `factor` wide residual networks: int(max(k / sqrt(S) + 0.4, 1))."""
    return int(max(widening / math.sqrt(factor) + 0.4, 1.0))


def _wrn(depth: int, widening: int, factor: int, base: int = _WRN_STEM, **more: Any) -> CnnConfig:
    widths = tuple(wrn_widening(widening, factor) * base * 2**stage for stage in range(3))
    return CnnConfig(
        family="wide_resnet",
        stem_widths=(base,),
        blocks=recipes.blocks_per_stage(depth, 4, 2),
        stage_widths=widths,
        inner_widths=widths,
        strides=(1, 2, 2),
        dropout=_WRN_DROPOUT.get((depth, widening), 0.0) / factor,
        **_START,
        **more,
    )


def _tiny_wrn(depth: int, widening: int, base: int, factor: int) -> CnnConfig:
    return _wrn(depth, widening, factor, base, image_size=8, channels=1)


def _bottlenecks(family: str, depth: int, factor: int, start: dict[str, Any], **more: Any) -> CnnConfig:
    base = _of_factor(_CIFAR_BASE, factor)
    inner = (base, 2 * base, 4 * base)
    return CnnConfig(
        family=family,
        stem_widths=(base,),
        blocks=recipes.blocks_per_stage(depth, 2, 3),
        block="bottleneck",
        stage_widths=tuple(recipes.BOTTLENECK_EXPANSION * width for width in inner),
        inner_widths=inner,
        strides=(1, 2, 2),
        **start,
        **more,
    )


def _resnet(depth: int, factor: int) -> CnnConfig:
    return _bottlenecks("resnet", depth, factor, _START)


def _se_resnet(depth: int, factor: int) -> CnnConfig:
    return _bottlenecks("se_resnet", depth, factor, _SE_START, se_reduction=4)


def _resnext(depth: int, groups: int, width: int, factor: int) -> CnnConfig:
    return recipes.cifar_resnext(depth, _groups(groups, factor), width).replace(**_START)


def _deep_stem(base: int) -> tuple[int, int, int]:
    return (base, base, 2 * base)


def _imagenet_resnet(depth: int, factor: int) -> CnnConfig:
    base = _of_factor(_IMAGENET_BASE, factor)
    dropout = 0.1 / factor if depth == 101 else 0.0
    return recipes.imagenet_stages("resnet", depth, base=base, stem=_deep_stem(base), dropout=dropout, **_START)


def _imagenet_se_resnet(depth: int, factor: int) -> CnnConfig:
    base = _of_factor(_IMAGENET_BASE, factor)
    return recipes.imagenet_stages("se_resnet", depth, base=base, stem=(base, base, base), **_imagenet_se(factor))


def _imagenet_se(factor: int) -> dict[str, Any]:
    return {"se_reduction": 16, "se_stem_pool": True, "dropout": 0.2 / math.sqrt(factor), **_SE_START}


def _imagenet_wrn(depth: int, widening: int, factor: int) -> CnnConfig:
    # (width before expansion, inner width) of the first stage, from a table: two ResNet-50s make a WRN-50-2.
    table = {(2, 1): (64, 128), (2, 2): (64, 64), (2, 4): (32, 64), (3, 1): (64, 192), (3, 2): (64, 128)}
    table[3, 4] = (32, 96)
    base, inner = _of_factor(table, (widening, factor))
    family = "resnet" if inner == base else "wide_resnet"
    return recipes.imagenet_stages(family, depth, base=base, inner=inner, stem=_deep_stem(base), **_START)


def _imagenet_resnext(depth: int, groups: int, width: int, factor: int) -> CnnConfig:
    groups = _groups(groups, factor)
    more = {"inner": groups * width, "groups": groups, "stem": _deep_stem(64), **_START}
    return recipes.imagenet_stages("resnext", depth, **more)


def _imagenet_se_resnext(depth: int, groups: int, width: int, factor: int, stem: int = 64) -> CnnConfig:
    groups = _groups(groups, factor)
    more = {"inner": groups * width, "groups": groups, "stem": (64, 64, stem), **_imagenet_se(factor)}
    return recipes.imagenet_stages("se_resnet", depth, **more)


def _imagenet_se_resnext_b(depth: int, groups: int, width: int, factor: int) -> CnnConfig:
    return _imagenet_se_resnext(depth, groups, width, factor, stem=128)


def _densenet(depth: int, growth: int, factor: int) -> CnnConfig:
    config = recipes.cifar_densenet_bc(depth, int(growth / math.sqrt(factor) * 2) // 2)
    return config.replace(stem_norm=True, conv_init="he_fan_out", head_deviation=1e-3)


def _pyramidnet(depth: int, alpha: int, factor: int) -> CnnConfig:
    config, root = recipes.pyramidnet(depth, alpha), math.sqrt(factor)
    widths = recipes.pyramid_widths(config.blocks[0], alpha / (sum(config.blocks) * root))
    return config.replace(inner_widths=widths, drop_path=0.5 / root, head_deviation=1e-3)


def _shake_shake(width: int, factor: int) -> CnnConfig:
    if width != _SHAKE_BASE[1]:
        raise ModelError("the division of shake-shake is known for 2x96d only", received=f"2x{width}d")
    return recipes.shake_shake(_of_factor(_SHAKE_BASE, factor)).replace(head_deviation=1e-3)


def _efficientnet(variant: int, factor: int, cifar: bool = False) -> CnnConfig:
    widths, divisor = _of_factor(_EFFICIENTNET, factor)
    make = recipes.cifar_efficientnet if cifar else recipes.efficientnet
    config, root = make(variant, widths=widths, divisor=divisor), math.sqrt(factor)
    return config.replace(dropout=config.dropout / root, drop_path=config.drop_path / root, head_deviation=1e-3)


def _cifar_efficientnet(variant: int, factor: int) -> CnnConfig:
    return _efficientnet(variant, factor, cifar=True)


# Pattern of the whole network, function of its numbers and the factor, members with a published table.
_RULES: list[tuple[str, Callable[..., CnnConfig], list[str]]] = [
    (r"resnet(\d+)_cifar", _resnet, ["resnet110_cifar", "resnet164_cifar"]),
    (r"se_resnet(\d+)_cifar", _se_resnet, ["se_resnet110_cifar", "se_resnet164_cifar"]),
    (r"wrn(\d+)_(\d+)_cifar", _wrn, ["wrn16_8_cifar", "wrn28_10_cifar", "wrn40_10_cifar"]),
    (r"wrn(\d+)_(\d+)_b(\d+)_digits", _tiny_wrn, ["wrn10_4_b4_digits"]),
    (r"resnext(\d+)_(\d+)x(\d+)d_cifar", _resnext, ["resnext29_8x64d_cifar"]),
    (r"densenet_bc(\d+)_k(\d+)_cifar", _densenet, ["densenet_bc190_k40_cifar"]),
    (r"pyramidnet(\d+)_a(\d+)_cifar", _pyramidnet, ["pyramidnet272_a200_cifar"]),
    (r"shakeshake26_2x(\d+)d_cifar", _shake_shake, ["shakeshake26_2x96d_cifar"]),
    (r"efficientnet_b([0-7])_cifar", _cifar_efficientnet, ["efficientnet_b0_cifar", "efficientnet_b3_cifar"]),
    (r"efficientnet_b([0-7])_imagenet", _efficientnet, ["efficientnet_b7_imagenet"]),
    (r"resnet(\d+)_imagenet", _imagenet_resnet, ["resnet50_imagenet"]),
    (r"se_resnet(\d+)_imagenet", _imagenet_se_resnet, ["se_resnet50_imagenet"]),
    (r"wrn(\d+)_(\d+)_imagenet", _imagenet_wrn, ["wrn50_2_imagenet", "wrn50_3_imagenet"]),
    (r"resnext(\d+)_(\d+)x(\d+)d_imagenet", _imagenet_resnext, ["resnext101_64x4d_imagenet"]),
    (r"se_resnext(\d+)_(\d+)x(\d+)d_imagenet", _imagenet_se_resnext, ["se_resnext101_64x4d_imagenet"]),
    (r"se_resnext(\d+)_(\d+)x(\d+)d_b_imagenet", _imagenet_se_resnext_b, ["se_resnext101_64x4d_b_imagenet"]),
]


def divided(name: str, factor: int) -> CnnConfig:
    """Returns one of the `factor` equal networks that replace a large one; 1 is the large one itself.

    Args:
        name: The large network, such as `wrn28_10_cifar`. Wide networks are post-activation ones here.
        factor: Number of networks, S.

    Raises:
        ModelError: No rule divides this network so often.
    """
    for pattern, make, _ in _RULES:
        if match := re.fullmatch(pattern, name.lower().replace("-", "_")):
            try:
                return make(*map(int, match.groups()), factor)
            except ValueError as error:
                raise ModelError(f"there is no split{factor}_{name}: {error}") from None
    near = closest(name, known())
    raise ModelError(f"no rule divides {name}", fix=f"did you mean {' or '.join(near)}?" if near else None)


def has_rule(name: str) -> bool:
    """Returns whether a name is that of a network that can be divided."""
    return any(re.fullmatch(pattern, name) for pattern, _, _ in _RULES)


def known() -> dict[str, tuple[int, ...]]:
    """Returns the networks of the published tables with their factors."""
    return {name: (1, 2, 4) for _, _, members in _RULES for name in members}


def _of_factor(table: dict[Any, Any], factor: Any) -> Any:
    if factor not in table:
        raise ModelError("no rule divides this network so", received=factor, accepted=", ".join(map(str, table)))
    return table[factor]


def _groups(groups: int, factor: int) -> int:
    if groups % factor:
        raise ModelError("the groups are not a multiple of the factor", received=f"{groups} groups by {factor}")
    return groups // factor
