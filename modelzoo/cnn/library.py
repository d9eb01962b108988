"""Bodies from `tf_keras.applications` where they are the published network: EfficientNet, MobileNetV2, DenseNet.

Their layers get our names, seeds, dropout and start values, so the weights of a published network and of one with
other widths, which `plan` makes, have the same names. Preprocessing layers are left out: images come normalised.
"""

from __future__ import annotations

import re
from typing import Any

from easytransfer import keras
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.keras_builder import KerasBuilder, conv_start
from modelzoo.cnn.layers import StochasticDepth
from modelzoo.cnn.names import named

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_APPLICATIONS = {
    "efficientnet": {f"efficientnet_b{i}_imagenet": f"EfficientNetB{i}" for i in range(8)},
    "mobilenet_v2": {"mobilenet_v2_imagenet": "MobileNetV2"},
    "densenet": {f"densenet{depth}_imagenet": f"DenseNet{depth}" for depth in (121, 169, 201)},
}
# What a configuration may change and still be the published body.
_FREE = dict.fromkeys(_APPLICATIONS, ("image_size", "dropout", "head_deviation"))
_FREE["efficientnet"] = (*_FREE["efficientnet"], "drop_path")
_MINIMUM_SIZE = 32
_LIBRARY_DROP_PATH = 0.2
_EFFICIENTNET = {
    "expand_conv": "expand_conv",
    "expand_bn": "expand_norm",
    "dwconv": "depthwise",
    "bn": "depthwise_norm",
    "se_reduce": "se_reduce",
    "se_expand": "se_expand",
    "project_conv": "project_conv",
    "project_bn": "project_norm",
}
_MOBILENET = {
    "expand": "expand_conv",
    "expand_BN": "expand_norm",
    "depthwise": "depthwise",
    "depthwise_BN": "depthwise_norm",
    "project": "project_conv",
    "project_BN": "project_norm",
}
_DENSENET = {"0_bn": "norm1", "1_conv": "conv1", "1_bn": "norm2", "2_conv": "conv2"}
_SINGLE = {
    **{"stem_conv": "stem_conv", "stem_bn": "stem_norm", "top_conv": "head_conv", "top_bn": "head_norm"},
    **{"Conv1": "stem_conv", "bn_Conv1": "stem_norm", "Conv_1": "head_conv", "Conv_1_bn": "head_norm"},
    **{"conv1/conv": "stem_conv", "conv1/bn": "stem_norm", "bn": "final_norm"},
}


def application(config: CnnConfig) -> str | None:
    """Returns the name in `tf_keras.applications` of the network with exactly these layers, or None."""
    for name, found in _APPLICATIONS.get(config.family, {}).items():
        published = named(name)
        if published.replace(**{field: getattr(config, field) for field in _FREE[config.family]}) == config:
            return found
    return None


def offers(config: CnnConfig) -> bool:
    """Returns whether the library has this network for these images."""
    return config.channels == 3 and min(config.image_shape[:2]) >= _MINIMUM_SIZE and application(config) is not None


def features(b: KerasBuilder, images: Any, config: CnnConfig) -> Any:
    """Adds the library's body with our names, start values and dropout: images to [batch, width].

    Args:
        b: Builder, for the start values.
        images: Symbolic images.
        config: Configuration of which `offers` is true.
    """
    make = getattr(keras.applications, str(application(config)))
    body = make(include_top=False, weights=None, input_shape=images.shape[1:])
    if config.family == "efficientnet":
        # Cut off the division by 255 and the normalisation.
        body = keras.Model(body.get_layer("stem_conv_pad").input, body.output)

    def adapted(layer: keras.layers.Layer) -> keras.layers.Layer:
        return _adapted(layer, b)

    body = keras.models.clone_model(body, input_tensors=images, clone_function=adapted)
    return b.global_mean(body.output)


def _adapted(layer: keras.layers.Layer, b: KerasBuilder) -> keras.layers.Layer:
    """Returns a new layer that does the same under our name."""
    if isinstance(layer, keras.layers.Dropout):
        # All its dropout layers drop whole images, at rates that rise to 0.2.
        rate = layer.rate * b.config.drop_path / _LIBRARY_DROP_PATH
        return StochasticDepth(rate)
    config = layer.get_config()
    config["name"] = name = our_name(layer.name) or layer.name
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        config["depthwise_initializer"] = conv_start(b.config, b.seed, name)
    elif isinstance(layer, keras.layers.Conv2D):
        config["kernel_initializer"] = conv_start(b.config, b.seed, name)
    elif isinstance(layer, keras.layers.BatchNormalization):
        config["momentum"] = b.config.norm_momentum
    return type(layer).from_config(config)


def our_name(theirs: str) -> str | None:
    """Returns our name of a layer with weights, None for other layers."""
    if theirs in _SINGLE:
        return _SINGLE[theirs]
    if match := re.fullmatch(r"block(\d)([a-z])_(\w+)", theirs):  # EfficientNet
        part = _EFFICIENTNET.get(match[3])
        return part and f"stage{match[1]}_block{_LETTERS.index(match[2]) + 1}_{part}"
    if match := re.fullmatch(r"(?:expanded_conv|block_(\d+))_(\w+)", theirs):  # MobileNetV2
        part, number = _MOBILENET.get(match[2]), int(match[1] or 0)
        return part and f"{_mobilenet_block(number)}_{part}"
    if match := re.fullmatch(r"conv(\d)_block(\d+)_(\w+)", theirs):  # DenseNet
        part = _DENSENET.get(match[3])
        return part and f"stage{int(match[1]) - 1}_block{match[2]}_{part}"
    if match := re.fullmatch(r"pool(\d)_(bn|conv)", theirs):
        return f"transition{int(match[1]) - 1}_{'norm' if match[2] == 'bn' else 'conv'}"
    return None


def _mobilenet_block(number: int) -> str:
    """Returns `stage1_block1` for 0, and so on: MobileNetV2 numbers its blocks throughout."""
    for stage, count in enumerate(named("mobilenet_v2_imagenet").blocks, 1):
        if number < count:
            return f"stage{stage}_block{number + 1}"
        number -= count
    raise ValueError("MobileNetV2 has 17 blocks")
