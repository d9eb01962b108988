"""Every family to its greatest depth: the network builds, trains a step and is exported."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from easytransfer import keras
from easytransfer.export.saved_model import export_saved_model
from easytransfer.savedmodel.signature import Signature
from modelzoo.cnn import names
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.names import named

# Small images: depth is what is tried, and no network needs larger ones.
SIDE = 32


def deepest() -> list[str]:
    """The deepest well-known network of every pattern of names, counted in layers; the widest of equal ones."""
    from modelzoo.cnn.profile import profile

    def size(name: str) -> tuple[int, int]:
        costs = profile(named(name), 10)
        return len(costs.layers), costs.parameters

    return [max(members, key=size) for _, _, members in names._PATTERNS]


def small(name: str):
    config = named(name)
    return config.replace(image_size=min(config.image_size, SIDE))


def trained_step(model: keras.Model) -> float:
    config = model.config
    shape = [2, config.image_size, config.image_size, config.channels]
    images = tf.random.stateless_normal(shape, (1, 2))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = model(images, training=True)["logits"]
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1], logits))
        gradients = tape.gradient(loss, model.trainable_variables)
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            variable.assign_sub(1e-4 * tf.math.l2_normalize(gradient))
        return loss

    return float(step())


def test_a_network_deeper_than_the_limit_of_python_builds():
    limit = sys.getrecursionlimit()
    config = named("preact_resnet1001_cifar").replace(image_size=8, stage_widths=(8, 8, 8))
    model = CnnBackbone(config.replace(stem_widths=(8,)), 3, seed=0)
    assert len(model.network.layers) > 3 * limit
    assert sys.getrecursionlimit() == limit
    weights = [layer for layer in model.network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(weights) > 999


@pytest.mark.slow
@pytest.mark.every_check
@pytest.mark.parametrize("name", deepest())
def test_the_deepest_of_every_family_trains_and_exports(name, tmp_path):
    model = CnnBackbone(small(name), 10, seed=0)
    config = model.config
    assert np.isfinite(trained_step(model))
    shape = [config.image_size, config.image_size, config.channels]
    samples = np.asarray(tf.random.stateless_uniform([3, *shape], (3, 4)))

    def serve(image):
        rows = tf.shape(image)[0]
        some = tf.pad(image, [[0, tf.maximum(1 - rows, 0)], [0, 0], [0, 0], [0, 0]])
        # Images are normalised in between, as in applications: TensorFlow would merge the padding with a convolution.
        return {"logits": model((some - 0.5) / 0.3)["logits"][:rows]}

    signature = Signature(serve, {"image": tf.TensorSpec([None, *shape])}, {"image": samples})
    report = export_saved_model(
        {"serving_default": signature}, module=model, base=tmp_path, name="deep", assets={}, manifest={},
        max_batch_size=2,
    )  # fmt: skip
    assert report.version == 1
