"""The network of lane detection: sizes to the last parameter, PyTorch with the same weights, how far RESA reaches."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from appzoo.lane_detection.config import BaselineConfig, LaneSettings, ResaConfig, ResaSettings
from appzoo.lane_detection.decoders import BusdDecoder, ChannelDropout, ExistHead, PlainDecoder
from appzoo.lane_detection.network import LaneNetwork, backbone, normalised
from appzoo.lane_detection.resa import Resa, start_bound, strides
from easytransfer.layers.dropout import dropout_seed
from easytransfer.train.precision import compute_precision
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.names import named

RANDOM = np.random.default_rng(3)
TINY = {
    **{"network": "tiny", "channels": 32, "exist_units": 64, "slots": 4, "image_size": [64, 160]},
    **{"original_size": [64, 160], "cut_height": 0, "row_step": 4, "row_count": 14},
}
TINY_RESA = {**TINY, "iterations": 3, "kernel_width": 5, "alpha": 1.0}


def features(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def built(settings: LaneSettings, seed: int = 0) -> LaneNetwork:
    network = LaneNetwork(settings, backbone(settings, seed), seed)
    network({"image": tf.zeros([1, *settings.image_size, 3], tf.uint8)})
    return network


def trained_parameters(network: tf.Module) -> int:
    return int(sum(np.prod(variable.shape) for variable in network.trainable_variables))


def with_other_norms(network) -> None:
    """Moves scales, offsets and statistics from their neutral start values."""
    for variable in network.variables:
        if any(name in variable.name for name in ("gamma", "beta", "moving")):
            variable.assign(variable + RANDOM.uniform(0, 0.4, variable.shape))


# Sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "kind", "decoder", "parameters"),
    [
        (TINY_RESA, ResaSettings, "busd", 107_205),
        (TINY_RESA, ResaSettings, "plain", 87_006),
        (TINY, LaneSettings, "busd", 45_765),
        (TINY, LaneSettings, "plain", 25_566),
    ],
)
def test_tiny_networks_have_the_parameters_of_the_sheet(model, kind, decoder, parameters):
    network = built(kind(**model, decoder=decoder))
    assert network.count_params() == parameters  # of these networks it counts the statistics, too
    outputs = network({"image": tf.zeros([2, 64, 160, 3])})
    assert outputs["logits"].shape == (2, 64, 160, 5) and outputs["exist_logits"].shape == (2, 4)


CULANE = {"image_size": [288, 800], "original_size": [590, 1640], "cut_height": 240, "slots": 4, "iterations": 4}
CULANE |= {"decoder": "plain", "benchmark": "culane", "row_step": 20, "row_count": 18}


@pytest.mark.slow  # builds networks of 25 million weights
@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ({**CULANE, "network": "resnet50_imagenet"}, 26_707_406),
        ({**CULANE, "network": "resnet34_imagenet"}, 24_287_438),
        ({**CULANE, "network": "resnet34_imagenet", "backbone_stages": 3}, 11_140_302),
        ({"network": "resnet34_imagenet"}, 25_364_461),
        ({"network": "resnet18_imagenet"}, 15_256_301),
    ],
)
def test_released_networks_have_the_parameters_of_the_sheet(model, parameters):
    assert trained_parameters(built(ResaSettings(**model))) == parameters


def test_parts_have_the_parameters_of_the_sheet():
    for iterations, parameters in ((4, 2_359_296), (5, 2_949_120)):
        layer = Resa(iterations)
        layer.build(tf.TensorShape([None, 46, 80, 128]))
        assert layer.count_params() == parameters
    decoder, plain = BusdDecoder(128, 7, 0), PlainDecoder(128, 5, 0.1, 8, 0)
    decoder(features(1, 2, 2, 128)), plain(features(1, 2, 2, 128))
    assert (trained_parameters(decoder), trained_parameters(plain)) == (239_008, 645)
    heads = [ExistHead(128, size, classes, 128, 0.1, 0) for size, classes in (((36, 100), 5), ((46, 80), 7))]
    assert [head.flat for head in heads] == [4_500, 6_440]


# Against PyTorch ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peer():
    pytest.importorskip("torch", reason="PyTorch (extra test) is the reference")
    return __import__("lane_torch")


def assert_close(found, expected, tolerance: float = 1e-5) -> None:
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(np.asarray(found) / scale, expected / scale, atol=tolerance)


@pytest.mark.parametrize(
    ("size", "order", "init"), [((36, 20), "durl", "torch"), ((23, 17), "lrud", "scnn"), ((16, 31), "rd", "scnn")]
)
def test_resa_is_that_of_pytorch(peer, size, order, init):
    layer = Resa(iterations=4, kernel_width=9, alpha=2.0, directions=order, init=init, seed=1)
    x = features(2, *size, 12)
    found = layer(x)
    kernels = {name: value.numpy() for name, value in layer.kernels.items()}
    assert len(kernels) == 4 * len(order)
    assert_close(found, peer.back(peer.resa(peer.images(x), kernels, 4, 2.0, order)))


def test_resa_takes_any_size_in_one_graph(peer):
    layer = Resa(iterations=2, kernel_width=3, alpha=1.5)
    x = features(1, 9, 14, 4)
    whole = layer(x)
    traced = tf.function(layer, input_signature=[tf.TensorSpec([None, None, None, 4], tf.float32)])
    np.testing.assert_allclose(traced(x), whole, rtol=1e-5, atol=1e-6)
    assert traced(features(2, 5, 8, 4)).shape == (2, 5, 8, 4)


def test_decoders_and_existence_are_those_of_pytorch(peer):
    x = features(2, 6, 10, 32)
    decoder, plain, head = BusdDecoder(32, 7, 1), PlainDecoder(32, 5, 0.1, 8, 1), ExistHead(32, (6, 10), 7, 16, 0.1, 1)
    for layer in (decoder, plain, head):
        layer(x)
        with_other_norms(layer)
    assert_close(decoder(x), peer.back(peer.busd(peer.images(x), decoder)))
    assert_close(decoder.blocks[0](x), peer.back(peer.busd_block(peer.images(x), decoder.blocks[0])))
    assert_close(plain(x), peer.back(peer.plain(peer.images(x), plain)))
    assert_close(head(x), peer.exist(peer.images(x), head).numpy())


def test_the_whole_network_is_that_of_pytorch(peer):
    network = built(ResaSettings(**TINY_RESA), seed=2)
    with_other_norms(network)
    pixels = RANDOM.integers(0, 256, (2, 64, 160, 3)).astype(np.uint8)
    outputs = network({"image": pixels})
    logits, exist = peer.network(pixels, network)
    assert_close(outputs["logits"], logits, 1e-4)
    assert_close(outputs["exist_logits"], exist, 1e-4)


# How far RESA reaches ----------------------------------------------------------------------------------------


def reached(height: int, width: int, iterations: int, directions: str) -> tuple[int, int]:
    """Rows and columns with a value after one pass over a map with one row, or column, of ones."""
    layer = Resa(iterations, kernel_width=1, alpha=1.0, directions=directions)
    x = np.zeros([1, height, width, 1], np.float32)
    if directions[0] in "du":
        x[:, height // 3] = 1
    else:
        x[:, :, width // 3] = 1
    layer.build(tf.TensorShape(x.shape))
    for kernel in layer.kernels.values():
        kernel.assign(tf.ones_like(kernel))
    found = layer(x).numpy()[0, ..., 0] > 0
    return int(found.any(axis=1).sum()), int(found.any(axis=0).sum())


@pytest.mark.parametrize(("size", "iterations"), [(8, 3), (16, 4), (32, 5), (64, 6)])
def test_powers_of_two_are_reached_whole(size, iterations):
    assert reached(size, 1 << iterations, iterations, "d")[0] == size
    assert reached(1 << iterations, size, iterations, "l")[1] == size


@pytest.mark.parametrize(("iterations", "one", "both"), [(4, 16, 28), (5, 32, 36)])
def test_36_rows_are_reached_by_both_directions(iterations, one, both):
    assert reached(36, 64, iterations, "d")[0] == reached(36, 64, iterations, "u")[0] == one
    assert reached(36, 64, iterations, "du")[0] == both


def test_80_columns_are_reached_by_half():
    assert (reached(32, 80, 5, "r")[1], reached(32, 80, 5, "rl")[1]) == (32, 48)


def test_strides_are_those_of_the_released_configurations():
    assert strides(36, 4) == [2, 4, 9, 18] and strides(100, 4) == [6, 12, 25, 50]
    assert strides(46, 5) == [1, 2, 5, 11, 23] and strides(80, 5) == [2, 5, 10, 20, 40]
    with pytest.raises(ValueError, match="4 iterations need 16 slices, there are 9: at most 3"):
        strides(9, 4)
    with pytest.raises(ValueError, match="at most 3 iterations"):
        Resa(4)(features(1, 9, 40, 2))


def test_start_values_and_growth_are_those_of_the_sheet():
    """Standard deviation of the output for normal noise of 36 x 100 x 128, K = 4: 455 by one rule, 28 by the other."""
    assert start_bound(128, 9, "torch") == pytest.approx(1 / np.sqrt(9 * 128))
    x = features(1, 36, 100, 128)
    for init, deviation in (("torch", 455), ("scnn", 28)):
        layer = Resa(4, init=init, seed=5)
        assert np.std(layer(x)) == pytest.approx(deviation, rel=0.4)  # of one draw
        bound = start_bound(128, 9, init)
        assert max(float(tf.reduce_max(abs(k))) for k in layer.kernels.values()) == pytest.approx(bound, rel=1e-3)


# The rest ----------------------------------------------------------------------------------------------------


def test_images_are_normalised_as_backbones_expect():
    pixels = RANDOM.integers(0, 256, (1, 2, 3, 3)).astype(np.uint8)
    red, green, blue = np.moveaxis(pixels.astype(np.float64), -1, 0)
    caffe = np.stack([blue - 103.939, green - 116.779, red - 123.68], -1)
    np.testing.assert_allclose(normalised(pixels, "bgr_mean"), caffe, atol=1e-4)
    scaled = np.stack([(red / 255 - 0.485) / 0.229, (green / 255 - 0.456) / 0.224, (blue / 255 - 0.406) / 0.225], -1)
    np.testing.assert_allclose(normalised(pixels, "imagenet"), scaled, atol=1e-5)


def test_dropout_leaves_out_whole_channels_and_keeps_the_mean():
    layer, x = ChannelDropout(0.25), tf.ones([64, 3, 5, 40])
    with dropout_seed(tf.constant([1, 2])):
        first, second = layer(x, training=True).numpy(), layer(x, training=True).numpy()
    with dropout_seed(tf.constant([1, 2])):
        again = layer(x, training=True).numpy()
    assert (first == again).all() and (first != second).any()
    assert (first == first[:, :1, :1]).all() and set(np.unique(first)) == {0.0, np.float32(1 / 0.75)}
    assert first.mean() == pytest.approx(1, abs=0.05) and (layer(x).numpy() == 1).all()


def test_start_values_follow_the_seed():
    one, same, other = (built(ResaSettings(**TINY_RESA), seed) for seed in (1, 1, 2))
    for a, b, c in zip(one.trainable_variables, same.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)
        assert "gamma" in a.name or "beta" in a.name or (a.numpy() != c.numpy()).any(), a.name


def narrow() -> CnnConfig:
    return named("resnet18_imagenet").scaled(1 / 8)


def test_a_backbone_of_weights_is_taken_dilated(tmp_path):
    classifier = CnnBackbone(narrow(), 5, seed=2)
    classifier.save_to_preset(tmp_path / "net")
    settings = ResaSettings(**{**TINY_RESA, "backbone_path": str(tmp_path / "net")})
    body = backbone(settings, 0)
    assert list(body.feature_maps(tf.zeros([1, 64, 160, 3]))) == [4, 8]
    for name, value in body.export_weights().items():
        np.testing.assert_array_equal(value, classifier.export_weights()[name])
    network = LaneNetwork(settings, body, 0)
    assert network({"image": tf.zeros([1, 64, 160, 3])})["logits"].shape == (1, 64, 160, 5)
    short = backbone(settings.model_copy(update={"backbone_stages": 3}), 0)
    assert short.count_params() < body.count_params()


def test_layers_are_grouped_by_depth(tmp_path):
    CnnBackbone(narrow(), 5, seed=2).save_to_preset(tmp_path / "net")
    for model, count in (({}, 2), ({"backbone_path": str(tmp_path / "net")}, 6)):
        network = built(ResaSettings(**{**TINY_RESA, **model}))
        groups = network.layer_groups()
        assert len(groups) == count and all(groups)
        assert sorted(id(v) for g in groups for v in g) == sorted(id(v) for v in network.trainable_variables)
        heads = {variable.name.split("/")[1] for variable in groups[-1]}
        assert heads == {"reduced", "resa", "decoder", "exist"}


@pytest.mark.parametrize("decoder", ["busd", "plain"])
def test_in_half_precision_sums_stay_in_float32(decoder):
    settings, pixels = ResaSettings(**TINY_RESA, decoder=decoder), RANDOM.integers(0, 256, (1, 64, 160, 3))
    batch = {"image": pixels.astype(np.uint8)}
    with compute_precision("bfloat16"):
        half = built(settings, 3)(batch)
    whole = built(settings, 3)(batch)
    for name, value in whole.items():
        assert half[name].dtype == tf.float32
        assert_close(half[name], value.numpy(), 0.05)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"image_size": [72, 160]}, r"model.image_size=\[72, 160\]: both must be multiples of 16"),
        ({"slots": 5}, "model.slots=5 must be even"),
        ({"original_size": [160, 320], "cut_height": 159}, "model.cut_height=159 leaves nothing"),
        ({"row_count": 80}, "model.row_count=80 at model.row_step=10 reaches row -80, and model.cut_height=160"),
        ({"network": "resnet34_imagnet"}, "model.network=resnet34_imagnet: unknown image network"),
        ({"network": "densenet121_imagenet"}, "output_stride belongs to the families"),
        ({"backbone_stages": 5}, "there are not so many stages"),
        ({"directions": "duu"}, "model.directions=duu must be some of d, u, r, l"),
        ({"kernel_width": 4}, "model.kernel_width=4 must be odd"),
        ({"iterations": 6}, r"model.iterations=6 needs feature maps of 64 .* gives \[46, 80\]: at most 5"),
    ],
)
def test_settings_that_make_no_network_are_refused(model, message):
    kind = ResaConfig if set(model) & {"directions", "kernel_width", "iterations"} else BaselineConfig
    with pytest.raises(ValueError, match=message):
        kind(model=model)
