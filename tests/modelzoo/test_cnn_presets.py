"""Image networks as model folders: strict loading, the zoo commands, SavedModels as backbones."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tiny_cnn import TINY

from easytransfer import keras
from easytransfer.errors import ConfigError, ModelError
from modelzoo import commands
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.names import named
from modelzoo.loading import load_backbone, load_config


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network with batch statistics of its own, and its folder."""
    model = CnnBackbone(TINY["resnet"], 5, seed=4)
    model(np.random.default_rng(0).standard_normal([8, 16, 16, 3]).astype(np.float32), training=True)
    folder = tmp_path_factory.mktemp("zoo") / "net"
    model.save_to_preset(folder, facts={"licence": "Apache-2.0"})
    return model, folder


def test_folder_gives_the_same_network(saved):
    model, folder = saved
    loaded = load_backbone(folder, seed=9)
    np.testing.assert_array_equal(loaded.example_outputs(), model.example_outputs())
    assert load_config(folder) == TINY["resnet"] and loaded.classes == 5
    assert json.loads((folder / "zoo.json").read_text())["licence"] == "Apache-2.0"
    scratch = load_backbone(folder, from_scratch=True, seed=9)
    assert not np.array_equal(scratch.example_outputs(), model.example_outputs())


def test_missing_and_unmatched_weights_are_errors(saved):
    model, folder = saved
    with pytest.raises(ModelError, match="2 with another shape"):
        load_backbone(folder, classes=7)
    loaded = load_backbone(folder, classes=7, allow_missing="^logits/")
    np.testing.assert_array_equal(loaded.example_outputs(), model.example_outputs())
    assert loaded.load_report.allowed == ["logits/kernel", "logits/bias"]
    with pytest.raises(ModelError, match="stage1_block1_conv1/kernel"):
        load_backbone(folder, inner_widths=(6, (4, 6)))
    with pytest.raises(ModelError, match="weights missing"):
        CnnBackbone(TINY["resnet"], 5).import_weights({}, "nothing")
    with pytest.raises(ConfigError, match="split"):
        load_backbone(folder, tensor=object())


def test_zoo_commands_work_for_images(saved, tmp_path):
    model, folder = saved
    verified = commands.verify(str(folder))
    assert verified["checksums"] == "2 files agree" and verified["forward"] == "finite"
    assert commands.show(str(folder))["parameters"] == verified["parameters"] == model.count_params()
    with pytest.raises(ModelError, match="one form only"):
        commands.import_model(folder, tmp_path / "copy")
    made = commands.make_tiny(tmp_path / "tiny", family="cnn", seed=1)
    assert made["parameters"] == load_backbone(tmp_path / "tiny").count_params()
    commands.make_tiny(tmp_path / "same", family="cnn", seed=1)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("tiny", "same")]
    assert weights[0] == weights[1]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A SavedModel of a tiny network as a user may have it: images to feature maps."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(6, 3, activation="relu"), keras.layers.BatchNormalization()]
    body = keras.Sequential([keras.Input([16, 16, 3]), *layers])
    folder = tmp_path_factory.mktemp("exported") / "body"
    tf.saved_model.save(body, str(folder))
    return body, folder


@pytest.mark.parametrize("trainable", [True, False])
def test_saved_model_is_a_backbone(exported, trainable):
    body, folder = exported
    config = named(str(folder)).replace(image_size=16, trainable=trainable)
    assert config.family == "saved_model"
    model = CnnBackbone(config, 5, seed=0)
    x = np.random.default_rng(0).standard_normal([2, 16, 16, 3]).astype(np.float32)
    expected = body(x, training=False).numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(model(x)["features"], expected, rtol=1e-5, atol=1e-6)
    assert len(model.trainable_variables) == (6 if trainable else 2)  # kernel, bias, gamma, beta; the classifier's two
    before = model.export_weights()
    model(x, training=True)
    moved = [key for key, value in model.export_weights().items() if (value != before[key]).any()]
    assert len(moved) == (2 if trainable else 0)


def test_saved_model_is_copied_into_its_folder(exported, tmp_path):
    _, source = exported
    model = CnnBackbone(named(str(source)).replace(image_size=16), 5, seed=0)
    for variable in model.trainable_variables:
        variable.assign_add(tf.ones_like(variable) * 0.01)
    model.save_to_preset(tmp_path / "net")
    assert json.loads((tmp_path / "net" / "config.json").read_text())["handle"] == "saved_model"
    moved = (tmp_path / "net").rename(tmp_path / "moved")
    np.testing.assert_array_equal(load_backbone(moved).example_outputs(), model.example_outputs())
    assert commands.show(str(moved))["parameters"] is None


def test_saved_models_that_do_not_fit_are_refused(exported, tmp_path):
    _, folder = exported
    with pytest.raises(ModelError, match="does not take images .*set image_size"):
        CnnBackbone(named(str(folder)), 5, seed=0)
    with pytest.raises(ModelError, match="is not a SavedModel"):
        CnnBackbone(CnnConfig(family="saved_model", handle=str(tmp_path)), 5, seed=0)
    with pytest.raises(ConfigError, match="handle belongs to the family saved_model"):
        TINY["resnet"].replace(handle="x")


def test_address_that_cannot_be_reached_is_an_error():
    """Port 9 of this machine answers nobody, so no network is used."""
    with pytest.raises(ModelError, match=r"http://127\.0\.0\.1:9/net cannot be downloaded.*check the address"):
        CnnBackbone(named("http://127.0.0.1:9/net"), 5, seed=0)
