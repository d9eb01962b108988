"""Our networks against those of `tf_keras.applications`: names of all weights, equal outputs with equal weights."""

import re

import numpy as np
import pytest

from easytransfer import keras
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.keras_builder import StochasticDepth
from modelzoo.cnn.names import named

THEIRS = {
    "efficientnet_b0_imagenet": "EfficientNetB0",
    "mobilenet_v2_imagenet": "MobileNetV2",
    "densenet121_imagenet": "DenseNet121",
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
EFFICIENTNET = {
    "expand_conv": "expand_conv",
    "expand_bn": "expand_norm",
    "dwconv": "depthwise",
    "bn": "depthwise_norm",
    "se_reduce": "se_reduce",
    "se_expand": "se_expand",
    "project_conv": "project_conv",
    "project_bn": "project_norm",
}
MOBILENET = {
    "expand": "expand_conv",
    "expand_BN": "expand_norm",
    "depthwise": "depthwise",
    "depthwise_BN": "depthwise_norm",
    "project": "project_conv",
    "project_BN": "project_norm",
}
DENSENET = {"0_bn": "norm1", "1_conv": "conv1", "1_bn": "norm2", "2_conv": "conv2"}
SINGLE = {
    **{"stem_conv": "stem_conv", "stem_bn": "stem_norm", "top_conv": "head_conv", "top_bn": "head_norm"},
    **{"Conv1": "stem_conv", "bn_Conv1": "stem_norm", "Conv_1": "head_conv", "Conv_1_bn": "head_norm"},
    **{"conv1/conv": "stem_conv", "conv1/bn": "stem_norm", "bn": "final_norm"},
}


def our_name(theirs: str) -> str:
    """Returns our name of one of their layers with weights."""
    if theirs in SINGLE:
        return SINGLE[theirs]
    if match := re.fullmatch(r"block(\d)([a-z])_(\w+)", theirs):  # EfficientNet
        return f"stage{match[1]}_block{LETTERS.index(match[2]) + 1}_{EFFICIENTNET[match[3]]}"
    if match := re.fullmatch(r"(?:expanded_conv|block_(\d+))_(\w+)", theirs):  # MobileNetV2
        return f"{mobilenet_block(int(match[1] or 0))}_{MOBILENET[match[2]]}"
    if match := re.fullmatch(r"conv(\d)_block(\d+)_(\w+)", theirs):  # DenseNet
        return f"stage{int(match[1]) - 1}_block{match[2]}_{DENSENET[match[3]]}"
    match = re.fullmatch(r"pool(\d)_(bn|conv)", theirs)
    return f"transition{int(match[1]) - 1}_{'norm' if match[2] == 'bn' else 'conv'}"


def mobilenet_block(number: int) -> str:
    """Returns `stage1_block1` for 0, and so on: theirs are numbered throughout."""
    for stage, count in enumerate(named("mobilenet_v2_imagenet").blocks, 1):
        if number < count:
            return f"stage{stage}_block{number + 1}"
        number -= count
    raise ValueError("MobileNetV2 has 17 blocks")


def body_of(name: str, size: int) -> keras.Model:
    """Returns their body for normalised images."""
    body = getattr(keras.applications, THEIRS[name])(include_top=False, weights=None, input_shape=(size, size, 3))
    if name.startswith("efficientnet"):
        # Cut off the division by 255 and the normalisation.
        return keras.Model(body.get_layer("stem_conv_pad").input, body.output)
    return body


@pytest.mark.slow
@pytest.mark.parametrize("name", THEIRS)
def test_library_body_and_ours_are_one_network(name):
    config, theirs = named(name).replace(image_size=64), body_of(name, 64)
    generator, weights = np.random.default_rng(0), {}
    for layer in theirs.layers:
        for variable in layer.weights:
            part = variable.name.split(":")[0].rpartition("/")[2]
            if part in ("gamma", "beta", "moving_mean", "moving_variance"):
                variable.assign(np.abs(generator.normal(1, 0.1, variable.shape)))
            weights[f"{our_name(layer.name)}/{part}"] = variable.numpy()
    ours = CnnBackbone(config, seed=1)
    ours.import_weights(weights, "library")
    assert ours.load_report.unexpected == [] and len(weights) == len(ours.named_variables())
    images = generator.standard_normal([2, 64, 64, 3]).astype(np.float32)
    expected = theirs(images, training=False).numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(ours(images)["features"], expected, rtol=1e-4, atol=1e-4)
    # Theirs are dropout layers that draw one number per image; those of Keras would not repeat when a run is resumed.
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in ours.network.layers)
    rates = [layer.rate for layer in theirs.layers if isinstance(layer, keras.layers.Dropout)]
    np.testing.assert_allclose([x.rate for x in ours.network.layers if isinstance(x, StochasticDepth)], rates)
