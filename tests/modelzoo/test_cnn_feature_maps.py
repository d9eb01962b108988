"""Feature maps of image networks: by stride, dilated with the same weights, equal to PyTorch, of any size."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_cnn import TINY

from easytransfer.errors import ConfigError, ModelError
from modelzoo import commands
from modelzoo.backbone import Backbone
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.names import named
from modelzoo.cnn.profile import profile

HEIGHT, WIDTH = 64, 97
ROUNDED_DOWN = ("densenet", "densenet_plain", "vgg", "vgg_plain")
WITH_MAPS = [name for name, config in TINY.items() if config.stage_strides()]


def images(channels=3, batch=2):
    return np.random.default_rng(5).standard_normal([batch, HEIGHT, WIDTH, channels]).astype(np.float32)


def narrow(depth: int) -> CnnConfig:
    """A ResNet for ImageNet with an eighth of its channels."""
    return named(f"resnet{depth}_imagenet").scaled(1 / 8)


def with_other_norms(model: CnnBackbone) -> dict[str, np.ndarray]:
    """Moves scales, offsets and statistics from their neutral start values; returns all weights."""
    generator = np.random.default_rng(1)
    for name, variable in model.named_variables().items():
        if not name.endswith("kernel"):
            variable.assign(variable + generator.uniform(0, 0.4, variable.shape))
    return model.export_weights()


def torch_maps(weights, config, replaced, x, strides=(1, 2, 2, 2)):
    """ResNet of torchvision from its published rule: a replaced stride multiplies the dilation of what follows.

    The first block of a stage keeps the dilation of the stage before; in a basic block both 3x3 convolutions are
    dilated, in a bottleneck the one 3x3. Returns the end of each stage.
    """
    torch = pytest.importorskip("torch", reason="PyTorch (extra test) is the reference")
    functional = torch.nn.functional
    weights = {name: torch.tensor(value) for name, value in weights.items()}

    def conv(x, name, stride=1, dilation=1):
        kernel = weights[f"{name}/kernel"].permute(3, 2, 0, 1)
        padding = dilation * (kernel.shape[-1] // 2)
        return functional.conv2d(x, kernel, stride=stride, padding=padding, dilation=dilation)

    def norm(x, name):
        parts = (weights[f"{name}/{part}"] for part in ("moving_mean", "moving_variance", "gamma", "beta"))
        return functional.batch_norm(x, *parts, eps=1e-5)

    def block(x, name, stride, dilation):
        if config.block == "basic":
            layers = [("conv1", stride, dilation), ("conv2", 1, dilation)]
        else:
            layers = [("conv1", 1, 1), ("conv2", stride, dilation), ("conv3", 1, 1)]
        y = x
        for i, (layer, *sizes) in enumerate(layers, 1):
            y = norm(conv(y, name + layer, *sizes), f"{name}norm{i}")
            y = y if i == len(layers) else torch.relu(y)
        if f"{name}shortcut_conv/kernel" in weights:
            x = norm(conv(x, name + "shortcut_conv", stride), name + "shortcut_norm")
        return torch.relu(x + y)

    x = torch.relu(norm(conv(torch.tensor(x).permute(0, 3, 1, 2), "stem_conv", 2), "stem_norm"))
    x, dilation, ends = functional.max_pool2d(x, 3, 2, 1), 1, []
    for stage, (count, stride) in enumerate(zip(config.blocks, strides, strict=True)):
        before = dilation
        if replaced[stage]:
            dilation, stride = dilation * stride, 1
        for i in range(count):
            sizes = (stride, before) if i == 0 else (1, dilation)
            x = block(x, f"stage{stage + 1}_block{i + 1}_", *sizes)
        ends.append(x.permute(0, 2, 3, 1).numpy())
    return ends


REPLACED = {None: (False,) * 4, 32: (False,) * 4, 16: (False, False, False, True), 8: (False, False, True, True)}


@pytest.mark.parametrize("output_stride", REPLACED)
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_maps_are_those_of_pytorch_with_the_same_weights(depth, output_stride):
    config = narrow(depth)
    body = CnnBackbone(config.replace(output_stride=output_stride))
    ends = torch_maps(with_other_norms(body), config, REPLACED[output_stride], images())
    # The deepest end of each stride, by its size.
    expected = {{16: 4, 8: 8, 4: 16, 2: 32}[end.shape[1]]: end for end in ends}
    maps = body.feature_maps(images())
    assert list(maps) == list(expected) == [s for s in (4, 8, 16, 32) if s <= (output_stride or 32)]
    for stride, end in expected.items():
        scale = np.abs(end).max()
        np.testing.assert_allclose(maps[stride] / scale, end / scale, atol=1e-5)
        assert maps[stride].shape[1:3] == (HEIGHT // stride, -(-WIDTH // stride))


def test_a_last_stage_of_stride_1_is_not_dilated():
    """As networks for re-identification have it: the last stride is 1, the weights are those of the usual network."""
    config = narrow(50)
    usual = CnnBackbone(config)
    weights = with_other_norms(usual)
    body = CnnBackbone(config.replace(strides=(1, 2, 2, 1)))
    body.import_weights(weights, "the usual network")
    expected = torch_maps(weights, config, (False,) * 4, images(), strides=(1, 2, 2, 1))[-1]
    maps, scale = body.feature_maps(images()), np.abs(expected).max()
    assert list(maps) == [4, 8, 16] and maps[16].shape[1:3] == (4, 7)
    np.testing.assert_allclose(maps[16] / scale, expected / scale, atol=1e-5)
    vector = body(images())["features"] / scale
    np.testing.assert_allclose(vector, expected.mean(axis=(1, 2)) / scale, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet", "resnet_imagenet", "deep_stem", "stage_shortcut", "se_resnet", "preact"])
def test_dilated_networks_have_the_same_weights(name):
    config = TINY[name].replace(channels=3)
    smallest = config.stage_strides()[0]
    usual, dilated = CnnBackbone(config), CnnBackbone(config.replace(output_stride=smallest))
    assert [(k, v.shape) for k, v in usual.weight_specs().items()] == [
        (k, v.shape) for k, v in dilated.weight_specs().items()
    ]
    for key, value in usual.export_weights().items():
        np.testing.assert_array_equal(value, dilated.export_weights()[key])
    assert list(usual.feature_maps(images())) == list(dict.fromkeys(config.stage_strides()))
    assert list(dilated.feature_maps(images())) == [smallest]


# Without a classifier; of the lane detector in the last row, without the last stage as well. They follow from the
# totals of RESA's networks less their other layers, and are those of torchvision less the classifier.
@pytest.mark.parametrize(
    ("depth", "stages", "parameters"),
    [(18, 4, 11_176_512), (34, 4, 21_284_672), (50, 4, 23_508_032), (34, 3, 8_170_304)],
)
def test_bodies_have_the_published_parameters(depth, stages, parameters):
    config = named(f"resnet{depth}_imagenet").replace(output_stride=8).first_stages(stages)
    assert profile(config, None).parameters == parameters
    assert config.stage_strides() == (4, 8, 8, 8)[:stages]


@pytest.mark.parametrize("name", WITH_MAPS)
def test_every_family_with_stages_has_maps_of_any_size(name):
    config = TINY[name]
    body, x = CnnBackbone(config, seed=3), images(config.channels)
    maps = body.feature_maps(x)
    assert list(maps) == list(dict.fromkeys(config.stage_strides()))
    for stride, found in maps.items():
        sides = [n // stride if name in ROUNDED_DOWN else -(-n // stride) for n in (HEIGHT, WIDTH)]
        assert found.shape[:3] == (2, *sides), (name, stride)
    features = body(x)["features"]
    if config.head_width == 0:
        np.testing.assert_allclose(tf.reduce_mean(found, (1, 2)), features, rtol=1e-5, atol=1e-6)
    # The same vector as the classifier's for images of its size.
    classifier = CnnBackbone(config, 5, seed=3)
    np.testing.assert_allclose(classifier.example_outputs(), body.example_outputs(), rtol=1e-5, atol=1e-6)


def test_a_traced_body_takes_every_size():
    body = CnnBackbone(narrow(18).replace(output_stride=8))
    traced = tf.function(body.feature_maps, input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)])
    for x in (images(), images()[:1, :33, :40]):
        for stride, expected in body.feature_maps(x).items():
            np.testing.assert_allclose(traced(tf.constant(x))[stride], expected, rtol=1e-4, atol=1e-5)
    assert traced.experimental_get_tracing_count() == 1
    with pytest.raises(ModelError, match=r"accepted: \[batch, any, any, 3\]"):
        body.feature_maps(images(1))


def test_gradients_and_statistics_of_a_dilated_body():
    body = CnnBackbone(narrow(18).replace(output_stride=8))
    before = body.export_weights()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(body.feature_maps(images(), training=True)[8] ** 2)
    gradients = tape.gradient(loss, body.trainable_variables)
    assert all(g is not None and np.isfinite(g).all() and np.abs(g).max() > 0 for g in gradients)
    moved = {key.rpartition("/")[2] for key, value in body.export_weights().items() if (value != before[key]).any()}
    assert moved == {"moving_mean", "moving_variance"}


@pytest.mark.parametrize(
    "name", ["densenet", "efficientnet", "mobilenet_v2", "vgg", "pyramidnet", "shake_shake", "mlp", "resnext"]
)
def test_what_cannot_be_dilated_is_refused(name):
    with pytest.raises(ConfigError, match="output_stride belongs to the families resnet, .* and this is") as caught:
        TINY[name].replace(output_stride=1)
    assert "\n" not in str(caught.value)


def test_strides_that_the_network_does_not_pass_are_refused():
    with pytest.raises(ConfigError, match="output_stride 6 is none of the network's, 4, 8, 16, 32"):
        named("resnet50_imagenet").replace(output_stride=6)


@pytest.mark.parametrize("name", ["smallcnn", "mlp"])
def test_networks_without_stages_have_no_maps(name):
    body = CnnBackbone(TINY[name])
    side = body.config.image_size
    assert body(np.zeros([1, side, side, 1], np.float32))["features"].shape[0] == 1
    with pytest.raises(ModelError, match=f"family {name} give no feature maps"):
        body.feature_maps(np.zeros([1, side, side, 1], np.float32))


def test_bodies_from_the_folder_of_a_classifier(tmp_path):
    classifier = CnnBackbone(narrow(18), 5, seed=2)
    weights = with_other_norms(classifier)
    classifier.save_to_preset(tmp_path / "classifier")
    with pytest.raises(ModelError, match="a classifier gives no feature maps; build the body alone"):
        classifier.feature_maps(classifier.network.input)
    body = Backbone.from_preset(tmp_path / "classifier", classifier=False, output_stride=8)
    assert body.load_report.ignored == ["logits/bias", "logits/kernel"]
    assert not (body.load_report.unexpected or body.load_report.missing)
    np.testing.assert_array_equal(body.example_outputs().shape, [2, 64])
    for name, value in body.export_weights().items():
        np.testing.assert_array_equal(value, weights[name])
    # Without the last stage, as some lane detectors: its weights are left out, and nothing else.
    short = Backbone.from_preset(tmp_path / "classifier", classifier=False, stages=3)
    assert list(short.feature_maps(images())) == [4, 8, 16]
    assert {name.split("_")[0] for name in short.load_report.ignored} == {"stage4", "logits/kernel", "logits/bias"}
    body.save_to_preset(tmp_path / "body")
    again = Backbone.from_preset(tmp_path / "body")
    assert again.classes is None and again.config.output_stride == 8
    np.testing.assert_array_equal(again.feature_maps(images())[8], body.feature_maps(images())[8])
    verified = commands.verify(str(tmp_path / "body"))
    assert commands.show(str(tmp_path / "body"))["parameters"] == verified["parameters"] == body.count_params()


def test_settings_that_contradict_are_refused(tmp_path):
    CnnBackbone(TINY["preact"], 5).save_to_preset(tmp_path / "net")
    with pytest.raises(ConfigError, match="a body without a classifier has no classes"):
        Backbone.from_preset(tmp_path / "net", classifier=False, classes=3)
    with pytest.raises(ConfigError, match="stages cannot be left out"):
        Backbone.from_preset(tmp_path / "net", stages=1)
    with pytest.raises(ConfigError, match="there are not so many stages"):
        TINY["resnet"].first_stages(3)
    with pytest.raises(ModelError, match="has no word embeddings"):
        CnnBackbone(TINY["mlp"]).input_embeddings  # noqa: B018


@pytest.mark.parametrize("name", TINY)
def test_layer_groups_hold_every_trained_variable_once_and_go_by_depth(name):
    model = CnnBackbone(TINY[name], 5)
    groups = model.layer_groups()
    assert len(groups) == len(TINY[name].blocks) + 2
    assert sorted(id(v) for group in groups for v in group) == sorted(id(v) for v in model.trainable_variables)
    assert all(group for group in groups[1:]) and any("logits" in v.name for v in groups[-1])
    for stage, group in enumerate(groups[1:-1], 1):
        assert all(v.name.startswith((f"stage{stage}_", f"transition{stage - 1}_")) for v in group)
    assert all(v.name.startswith("stem") for v in groups[0])
