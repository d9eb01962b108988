"""Networks by name. A name is a pattern such as `wrn{depth}_{widening}_cifar`, so any depth and width has one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from easytransfer.errors import ModelError, closest
from easytransfer.presets import catalogue
from modelzoo.cnn import division, recipes, timm
from modelzoo.cnn.config import CnnConfig

# The deepest published network has 1001 layers; a configuration of millions would take all memory.
MOST_DIGITS = 4
# Begins the names of networks of tf_keras.applications.
KERAS = "keras_"
# Begins the names of networks as timm has them.
TIMM = "timm_"
# Pattern, function of its numbers, well-known members. Numbers reach the function as integers, in order.
_PATTERNS: list[tuple[str, Callable[..., CnnConfig], list[str]]] = [
    (
        r"resnet(\d+)_cifar",
        recipes.cifar_resnet,
        [f"resnet{depth}_cifar" for depth in (8, 14, 20, 32, 44, 56, 110)],
    ),
    (r"resnet(\d+)x4_cifar", recipes.cifar_resnet_x4, ["resnet8x4_cifar", "resnet32x4_cifar"]),
    (r"resnet(\d+)_w(\d+)_cifar", recipes.cifar_resnet, ["resnet20_w8_cifar"]),
    (r"prunable_resnet(\d+)_w(\d+)_cifar", recipes.cifar_prunable, ["prunable_resnet20_w8_cifar"]),
    (r"resnet(\d+)_imagenet", recipes.resnet, [f"resnet{depth}_imagenet" for depth in (18, 34, 50, 101, 152)]),
    (
        r"preact_resnet(\d+)_cifar",
        recipes.cifar_preact,
        [f"preact_resnet{depth}_cifar" for depth in (20, 56, 110, 164, 1001)],
    ),
    (r"preact_resnet(\d+)_imagenet", recipes.preact_resnet, ["preact_resnet18_imagenet", "preact_resnet50_imagenet"]),
    (
        r"wrn(\d+)_(\d+)_cifar",
        recipes.cifar_wrn,
        [f"wrn{d}_{k}_cifar" for d, k in ((10, 1), (16, 1), (16, 2), (16, 4), (16, 8), (28, 10), (34, 10), (40, 2))],
    ),
    (r"wrn(\d+)_(\d+)_imagenet", recipes.wrn, ["wrn50_2_imagenet", "wrn101_2_imagenet"]),
    (r"se_resnet(\d+)_imagenet", recipes.se_resnet, ["se_resnet50_imagenet", "se_resnet101_imagenet"]),
    (r"se_resnet(\d+)_cifar", recipes.cifar_se_resnet, ["se_resnet110_cifar", "se_resnet164_cifar"]),
    (r"resnext(\d+)_(\d+)x(\d+)d_cifar", recipes.cifar_resnext, ["resnext29_8x64d_cifar", "resnext29_16x64d_cifar"]),
    (
        r"resnext(\d+)_(\d+)x(\d+)d_imagenet",
        recipes.resnext,
        ["resnext50_32x4d_imagenet", "resnext101_32x8d_imagenet", "resnext101_64x4d_imagenet"],
    ),
    (
        r"pyramidnet(\d+)_a(\d+)_cifar",
        recipes.pyramidnet,
        ["pyramidnet110_a48_cifar", "pyramidnet110_a270_cifar", "pyramidnet272_a200_cifar"],
    ),
    (r"shakeshake26_2x(\d+)d_cifar", recipes.shake_shake, ["shakeshake26_2x32d_cifar", "shakeshake26_2x96d_cifar"]),
    (r"densenet(\d+)_k(\d+)_cifar", recipes.cifar_densenet, ["densenet40_k12_cifar", "densenet100_k12_cifar"]),
    (
        r"densenet_bc(\d+)_k(\d+)_cifar",
        recipes.cifar_densenet_bc,
        ["densenet_bc100_k12_cifar", "densenet_bc190_k40_cifar"],
    ),
    (r"densenet(\d+)_imagenet", recipes.densenet, [f"densenet{depth}_imagenet" for depth in (121, 169, 201)]),
    (r"efficientnet_b([0-7])_imagenet", recipes.efficientnet, [f"efficientnet_b{i}_imagenet" for i in range(8)]),
    (
        r"efficientnet_lite([0-4])_imagenet",
        recipes.efficientnet_lite,
        [f"efficientnet_lite{i}_imagenet" for i in range(5)],
    ),
    (
        r"efficientnet_b([0-7])_cifar",
        recipes.cifar_efficientnet,
        ["efficientnet_b0_cifar", "efficientnet_b3_cifar"],
    ),
    (r"mobilenet_v2_imagenet", recipes.mobilenet_v2, ["mobilenet_v2_imagenet"]),
    (
        r"mobilenet_v2_w(\d+)_imagenet",
        recipes.mobilenet_v2,
        ["mobilenet_v2_w75_imagenet", "mobilenet_v2_w140_imagenet"],
    ),
    (r"mobilenet_v2_cifar", recipes.cifar_mobilenet_v2, ["mobilenet_v2_cifar"]),
    (r"vgg(\d+)_cifar", recipes.vgg, ["vgg8_cifar", "vgg13_cifar", "vgg16_cifar"]),
    (r"vgg(\d+)_plain_cifar", recipes.plain_vgg, ["vgg8_plain_cifar", "vgg13_plain_cifar"]),
    (r"smallcnn_mnist", recipes.smallcnn, ["smallcnn_mnist"]),
    (r"mlp(\d+)x(\d+)_digits", recipes.mlp, ["mlp16x1_digits", "mlp64x2_digits", "mlp512x3_digits"]),
]


def named(name: str) -> CnnConfig:
    """Returns the configuration of a name in any case; a folder or address of a SavedModel is one too.

    Raises:
        ModelError: The name is unknown, or its numbers make no network.
    """
    text = name.strip()
    if is_address(text) or os.path.isfile(Path(text, "saved_model.pb")):
        return CnnConfig(family="saved_model", stem="imagenet", image_size=224, handle=text)
    key = text.lower().replace("-", "_")
    if match := re.fullmatch(r"split(\d{1,4})_(\w+)", key):
        return division.divided(match[2], int(match[1]))
    if key in _applications():
        size, application = _applications()[key], key.removeprefix(KERAS)
        return CnnConfig(family="keras", stem="imagenet", image_size=size, application=application)
    if key.startswith(TIMM) and key.removeprefix(TIMM) in timm.architectures():
        return CnnConfig.from_dict(timm.architectures()[key.removeprefix(TIMM)]["network"], source=text)
    for pattern, make, _ in _PATTERNS:
        if match := re.fullmatch(pattern, key):
            return _checked(text, make, match.groups())
    if division.has_rule(key):
        # Known from its division only: the whole network.
        return division.divided(key, 1)
    near = closest(key, names())
    hint = f"did you mean {' or '.join(near)}?" if near else "some names: " + ", ".join(names()[::6])
    raise ModelError(f"unknown image network {name}", fix=hint)


def is_address(name: str) -> bool:
    """Returns whether a name is the address of a SavedModel."""
    return name.startswith(("http://", "https://"))


@cache
def _applications() -> dict[str, int]:
    """Returns the names of the networks of Keras in the list of models, `keras_resnet50` and so on, and their sizes."""
    known = [facts for facts in catalogue.entries().values() if str(facts.get("network")).startswith(KERAS)]
    return {facts["network"]: facts["input"]["image_size"] for facts in known}


def names() -> list[str]:
    """Returns the well-known names in a fixed order."""
    known = [name for _, _, members in _PATTERNS for name in members]
    return known + [f"split{factor}_{name}" for name, factors in division.known().items() for factor in factors]


def _checked(name: str, make: Callable[..., CnnConfig], numbers: Sequence[str]) -> CnnConfig:
    """Makes a configuration, with the name in front of whatever is wrong with its numbers."""
    try:
        if any(len(number) > MOST_DIGITS for number in numbers):
            raise ValueError(f"its numbers have at most {MOST_DIGITS} digits")
        return make(*map(int, numbers))
    except ValidationError as error:
        raise ModelError(f"there is no {name}: {error.errors()[0]['msg']}") from None
    except ValueError as error:
        raise ModelError(f"there is no {name}: {error}") from None
