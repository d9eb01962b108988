"""Our layers against `tf_keras.applications`: names of all weights, and equal outputs with equal weights."""

import numpy as np
import pytest

from easytransfer import keras
from modelzoo.cnn import library
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.layers import StochasticDepth
from modelzoo.cnn.names import named


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0_imagenet", "mobilenet_v2_imagenet", "densenet121_imagenet"])
def test_library_body_and_ours_are_one_network(name, monkeypatch):
    config = named(name).replace(image_size=64)
    assert library.offers(config)
    theirs = CnnBackbone(config, 5, seed=0)
    generator = np.random.default_rng(0)
    for variable in theirs.variables:
        if "norm" in variable.name:
            variable.assign(np.abs(generator.normal(1, 0.1, variable.shape)))
    monkeypatch.setattr(library, "offers", lambda config: False)
    ours = CnnBackbone(config, 5, seed=1)
    ours.import_weights(theirs.export_weights(), "library")
    assert ours.load_report.unexpected == []
    np.testing.assert_allclose(ours.example_outputs(), theirs.example_outputs(), rtol=1e-4, atol=1e-4)
    # Random layers of Keras would not repeat when a run is resumed.
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in theirs.network.layers)
    rates = [[x.rate for x in model.network.layers if isinstance(x, StochasticDepth)] for model in (theirs, ours)]
    np.testing.assert_allclose(*rates)


@pytest.mark.slow
def test_equal_seeds_give_equal_weights_in_both(monkeypatch):
    config = named("mobilenet_v2_imagenet").replace(image_size=32)
    theirs = CnnBackbone(config, 5, seed=3).export_weights()
    monkeypatch.setattr(library, "offers", lambda config: False)
    ours = CnnBackbone(config, 5, seed=3).export_weights()
    assert theirs.keys() == ours.keys()
    assert all((theirs[key] == ours[key]).all() for key in ours)


def test_changed_networks_are_ours():
    assert library.application(named("efficientnet_b3_imagenet").replace(drop_path=0.1)) == "EfficientNetB3"
    assert library.application(named("densenet169_imagenet")) == "DenseNet169"
    for name in ("efficientnet_b0_cifar", "densenet_bc100_k12_cifar", "resnet50_imagenet", "mobilenet_v2_w75_imagenet"):
        assert not library.offers(named(name))
    assert not library.offers(named("mobilenet_v2_imagenet").scaled(0.5))
    # The library's MobileNetV2 drops nothing, and its DenseNets have no dropout between their layers.
    assert not library.offers(named("mobilenet_v2_imagenet").replace(drop_path=0.2))
    assert not library.offers(named("densenet121_imagenet").replace(block_dropout=0.2))
    assert not library.offers(named("efficientnet_b0_imagenet").replace(channels=1))
