"""Built image networks: counts equal to the analytic ones, PyTorch with the same weights, seeds, precision, names."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tiny_cnn import TINY

from easytransfer import keras
from easytransfer.errors import ModelError
from easytransfer.layers.dropout import dropout_seed
from easytransfer.optim import AdamW
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.profile import profile

torch = pytest.importorskip("torch", reason="PyTorch (extra test) is the reference")
SHARED = {}


def images(config, batch=3, seed=0):
    shape = [batch, config.image_size, config.image_size, config.channels]
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def built(name):
    """A network that several tests share; they leave its weights alone."""
    if name not in SHARED:
        SHARED[name] = CnnBackbone(TINY[name], classes=5, seed=0)
    return SHARED[name]


@pytest.mark.parametrize("name", TINY)
def test_layers_and_counts_are_those_of_the_profile(name):
    model, costs = built(name), profile(TINY[name], 5)
    by_layer = {}
    for key, variable in model.named_variables().items():
        by_layer[key.split("/")[0]] = by_layer.get(key.split("/")[0], 0) + int(np.prod(variable.shape))
    assert by_layer == {layer.name: layer.parameters + layer.statistics for layer in costs.layers}
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == costs.parameters
    outputs = {layer.name: layer.output.shape for layer in model.network.layers}
    for layer in costs.layers:
        expected = layer.output[2:] if layer.kind == "dense" else tuple(layer.output)
        assert tuple(outputs[layer.name][1:]) == expected, layer
    result = model(images(TINY[name]), training=False)
    assert result["logits"].shape == (3, 5) and result["features"].shape[0] == 3
    assert np.isfinite(result["logits"]).all()


def randomised(model, seed=0):
    """Fills all weights with numbers that leave nothing at its neutral start value."""
    generator = np.random.default_rng(seed)
    for key, variable in model.named_variables().items():
        value = 0.3 * generator.standard_normal(variable.shape)
        if key.endswith(("gamma", "moving_variance")):
            value = np.abs(value) + 0.5
        variable.assign(value.astype(np.float32))
    return model.export_weights()


class Reference:
    """Layers of PyTorch that take their weights from ours: kernels [h, w, in, out] become [out, in, h, w]."""

    def __init__(self, weights, config, training=False):
        self.weights = {key: torch.tensor(value) for key, value in weights.items()}
        self.config, self.training = config, training

    def conv(self, x, name, stride=1):
        kernel = self.weights[f"{name}/kernel"].permute(3, 2, 0, 1)
        return torch.nn.functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def norm(self, x, name):
        gamma, beta, mean, variance = (
            self.weights[f"{name}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return torch.nn.functional.batch_norm(x, mean, variance, gamma, beta, self.training, momentum=0.1, eps=1e-5)

    def logits(self, x):
        vector = x.mean(dim=(2, 3))
        return vector, vector @ self.weights["logits/kernel"] + self.weights["logits/bias"]


def torch_resnet(ref, x):
    """Basic blocks, activation after the addition (He et al. 2016, figure 2)."""
    x = torch.relu(ref.norm(ref.conv(x, "stem_conv"), "stem_norm"))
    for stage, (count, stride) in enumerate(zip(ref.config.blocks, ref.config.strides, strict=True), 1):
        for i in range(1, count + 1):
            name, step = f"stage{stage}_block{i}_", stride if i == 1 else 1
            y = torch.relu(ref.norm(ref.conv(x, name + "conv1", step), name + "norm1"))
            y = ref.norm(ref.conv(y, name + "conv2"), name + "norm2")
            if f"{name}shortcut_conv/kernel" in ref.weights:
                x = ref.norm(ref.conv(x, name + "shortcut_conv", step), name + "shortcut_norm")
            x = torch.relu(x + y)
    return ref.logits(x)


def torch_wide(ref, x):
    """Activation before each convolution; the activated input feeds the shortcut where the shape changes."""
    x = ref.conv(x, "stem_conv")
    for stage, (count, stride) in enumerate(zip(ref.config.blocks, ref.config.strides, strict=True), 1):
        for i in range(1, count + 1):
            name, step = f"stage{stage}_block{i}_", stride if i == 1 else 1
            a = torch.relu(ref.norm(x, name + "norm1"))
            if f"{name}shortcut_conv/kernel" in ref.weights:
                x = ref.conv(a, name + "shortcut_conv", step)
            y = ref.conv(a, name + "conv1", step)
            x = x + ref.conv(torch.relu(ref.norm(y, name + "norm2")), name + "conv2")
    return ref.logits(torch.relu(ref.norm(x, "final_norm")))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("name", "reference"), [("resnet", torch_resnet), ("wide", torch_wide)])
def test_equals_pytorch_with_the_same_weights(name, reference, training):
    config = TINY[name]
    model = CnnBackbone(config, classes=5, seed=1)
    ref = Reference(randomised(model), config, training)
    x = images(config)
    ours = model(x, training=training)
    vector, logits = reference(ref, torch.tensor(x).permute(0, 3, 1, 2))
    np.testing.assert_allclose(ours["features"], vector.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours["logits"], logits.numpy(), rtol=1e-4, atol=1e-4)
    # The moving statistics of one training step, momentum 0.9 here and 0.1 there, unbiased variance.
    for key, value in model.export_weights().items():
        np.testing.assert_allclose(value, ref.weights[key].numpy(), rtol=1e-4, atol=1e-5, err_msg=key)


def test_weights_depend_on_the_seed_and_the_name_only():
    first, again = built("resnet").export_weights(), CnnBackbone(TINY["resnet"], 5, 0).export_weights()
    other = CnnBackbone(TINY["resnet"], 5, 1).export_weights()
    assert all((first[key] == again[key]).all() for key in first)
    assert all((first[key] != other[key]).any() for key in first if key.endswith("kernel"))
    # A layer keeps its start values when another block is gone.
    config = TINY["resnet"].replace(blocks=(1, 1), inner_widths=(4, 6), block_ids=((1,), (2,)), strides=(1, 1))
    assert (
        CnnBackbone(config, 5, 0).export_weights()["stage2_block2_conv2/kernel"] == first["stage2_block2_conv2/kernel"]
    ).all()


def test_start_values_are_those_of_the_papers():
    wide = TINY["resnet"].replace(stage_widths=(96, 128), inner_widths=(96, 128), zero_last_gamma=True)
    weights = CnnBackbone(wide.replace(head_deviation=1e-3), 100, 0).export_weights()
    # He et al. 2015: variance 2 / fan; here 9 * 128 outputs.
    assert weights["stage2_block2_conv2/kernel"].std() == pytest.approx(np.sqrt(2 / (9 * 128)), rel=0.02)
    assert weights["logits/kernel"].std() == pytest.approx(1e-3, rel=0.03) and not weights["logits/bias"].any()
    assert not weights["stage2_block2_norm2/gamma"].any() and (weights["stage2_block2_norm1/gamma"] == 1).all()
    logits = CnnBackbone(wide, 100, 0).export_weights()["logits/kernel"]
    assert 0.95 < np.abs(logits).max() * np.sqrt(128) <= 1


def test_zero_gamma_makes_a_block_the_identity():
    config = TINY["resnet"].replace(zero_last_gamma=True)
    network = CnnBackbone(config, 5, 0).network
    layers = {layer.name: layer for layer in network.layers}
    before, after = layers["stage2_block2_conv1"].input, layers["logits"].input
    x, vector = keras.Model(network.input, [before, after])(images(config))
    np.testing.assert_allclose(vector, tf.reduce_mean(x, axis=(1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_trains_in_mixed_precision(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = CnnBackbone(TINY["pyramidnet"], 5, 0)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    before = model.export_weights()
    x, labels = images(TINY["pyramidnet"], 8), tf.range(8) % 5
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs["logits"]))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert outputs["logits"].dtype == outputs["features"].dtype == tf.float32
    assert all(np.isfinite(g).all() for g in gradients) and all(v.dtype == tf.float32 for v in model.variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        variable.assign_sub(0.1 * gradient)
    changed = [key for key, value in model.export_weights().items() if (value != before[key]).any()]
    assert {key.split("/")[1] for key in changed} == {
        "kernel",
        "bias",
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
    }


def test_dropout_repeats_with_the_step():
    model, x = built("preact"), images(TINY["preact"])
    run = tf.function(lambda seed: _logits(model, x, seed))
    first, again, other = run(tf.constant([1, 2])), run(tf.constant([1, 2])), run(tf.constant([1, 3]))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def _logits(model, x, seed):
    with dropout_seed(seed):
        return model(x, training=True)["logits"]


def test_images_of_another_shape_are_refused():
    with pytest.raises(ModelError, match=r"accepted: \[batch, 16, 16, 3\]"):
        built("resnet")(np.zeros([1, 16, 16, 1], np.float32))
    with pytest.raises(ModelError, match="raise image_size"):
        CnnBackbone(TINY["smallcnn"].replace(image_size=4), 5, 0)


_ODD_BATCH = """
import tensorflow as tf
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.names import named

model = CnnBackbone(named("resnet8_w4_cifar").replace(image_size=16, channels=1), 3, seed=0)
step = tf.function(lambda x: tf.gradients(model(x, training=True)["logits"], model.trainable_variables))
for _ in range(20):
    step(tf.ones([57, 16, 16, 1]))
"""


def test_odd_batches_of_narrow_networks_do_not_break_the_heap():
    """The gradient of a strided 1x1 convolution with few channels does, in TensorFlow 2.20 with oneDNN."""
    done = subprocess.run([sys.executable, "-c", _ODD_BATCH], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", TINY)
def test_biases_scales_and_offsets_are_not_decayed(name):
    """By name, in every family; moving statistics are not trained at all."""
    network = built(name)
    optimizer = AdamW(network.trainable_variables, weight_decay=0.1)
    decayed = {True: set(), False: set()}
    for variable, decay in zip(network.trainable_variables, optimizer.decays, strict=True):
        decayed[bool(decay)].add(variable.name.split(":")[0].rpartition("/")[2])
    assert {"kernel"} <= decayed[True] <= {"kernel", "depthwise_kernel"}
    assert {"bias"} <= decayed[False] <= {"bias", "gamma", "beta"}
