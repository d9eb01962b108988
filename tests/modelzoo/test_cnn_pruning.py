"""Removal of filters and blocks: what is left computes what it should, and nothing else is touched."""

import numpy as np
import pytest

from easytransfer.errors import ModelError
from modelzoo.cnn import pruning
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.names import named
from modelzoo.cnn.profile import profile

NETWORKS = ["prunable_resnet20_w8_cifar", "resnet14_cifar", "wrn10_1_cifar", "bottlenecks"]
IMAGES = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)


def network(name):
    if name == "bottlenecks":
        return named("preact_resnet164_cifar").replace(image_size=16, blocks=(2, 1, 2))
    return named(name).replace(image_size=16)


def thin(config, weights, share):
    smaller = pruning.thinned_config(config, share)
    return smaller, pruning.thin(config, weights, smaller)


def random_weights(model):
    """Weights with norms that are not 1 and 0, so that a wrong slice shows."""
    random = np.random.default_rng(1)
    weights = model.export_weights()
    for name, value in weights.items():
        if name.endswith(("gamma", "moving_variance")):
            weights[name] = random.uniform(0.5, 1.5, value.shape).astype(np.float32)
        elif name.endswith(("beta", "moving_mean", "bias")):
            weights[name] = random.normal(0, 0.2, value.shape).astype(np.float32)
    return weights


def without_branch(config, weights, block):
    """Weights under which a block adds nothing; behind a ReLU that is what a removed block does."""
    last = f"{block}conv{2 if config.block == 'basic' else 3}"
    if config.pre_activation:
        return {**weights, f"{last}/kernel": np.zeros_like(weights[f"{last}/kernel"])}
    norm = last.replace("conv", "norm")
    return {**weights, **{f"{norm}/{part}": np.zeros_like(weights[f"{norm}/{part}"]) for part in ("gamma", "beta")}}


def logits(config, weights):
    model = CnnBackbone(config, 5, seed=7)
    model.import_weights(weights, "the test")
    return model(IMAGES)["logits"].numpy()


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request):
    config = network(request.param)
    return config, random_weights(CnnBackbone(config, 5, seed=3))


def test_nothing_removed_is_the_same_network(trained):
    config, weights = trained
    assert thin(config, weights, 1.0)[0] == config
    for smaller, left in (thin(config, weights, 1.0), pruning.without_blocks(config, weights, [])):
        assert left.keys() == weights.keys()
        np.testing.assert_array_equal(logits(smaller, left), logits(config, weights))


def test_filters_that_nothing_reads_change_no_logit(trained):
    """Half of each layer's filters are made smallest and silent; those are the ones that go."""
    config, weights = trained
    _, layers = pruning._layers(config)
    random, silent = np.random.default_rng(2), {}
    for layer in layers.values():
        if layer.kind == "conv":
            size = layer.outputs.size
            silent.setdefault(id(layer.outputs.root()), random.permutation(size)[: size // 2])
    weights = {name: value.copy() for name, value in weights.items()}
    for name, layer in layers.items():
        writes, reads = (silent.get(id(x.root())) for x in (layer.outputs, layer.inputs))
        if layer.kind == "norm":
            weights[f"{name}/gamma"][reads] = weights[f"{name}/beta"][reads] = 0
        elif layer.kind == "conv":
            weights[f"{name}/kernel"][..., writes] *= 1e-6
            if reads is not None:
                weights[f"{name}/kernel"][:, :, reads] = 0
    smaller, left = thin(config, weights, 0.5)
    assert profile(smaller, 5).macs < 0.35 * profile(config, 5).macs
    np.testing.assert_allclose(logits(smaller, left), logits(config, weights), atol=1e-5)


def test_the_filters_of_least_l1_norm_go():
    config = network("prunable_resnet20_w8_cifar")
    weights = random_weights(CnnBackbone(config, 5, seed=3))
    smaller, left = thin(config, weights, 0.5)
    # A layer inside a block stands alone.
    kernel = weights["stage2_block1_conv1/kernel"]
    kept = np.sort(np.argsort(-np.abs(kernel).sum((0, 1, 2)))[:8])
    np.testing.assert_array_equal(left["stage2_block1_norm1/beta"], weights["stage2_block1_norm1/beta"][kept])
    # All that write into the stream of a stage are judged together.
    names = ["stage2_transition_conv", *(f"stage2_block{i}_conv2" for i in (1, 2, 3))]
    stream = np.sort(np.argsort(-sum(np.abs(weights[f"{name}/kernel"]).sum((0, 1, 2)) for name in names))[:8])
    np.testing.assert_array_equal(left["stage2_block1_conv1/kernel"], kernel[:, :, stream][..., kept])
    np.testing.assert_array_equal(left["logits/kernel"].shape, (16, 5))
    assert smaller.stage_widths == (4, 8, 16) and smaller.stem_widths == (4,) and smaller.inner_widths == (4, 8, 16)


def test_numbers_of_filters_are_rounded_and_never_below_two():
    config = named("prunable_resnet20_w8_cifar")
    assert pruning.thinned_config(config, 0.7, 4).stage_widths == (4, 12, 24)
    assert pruning.thinned_config(config, 0.01).stage_widths == (2, 2, 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_removed_block_is_a_silent_branch(name):
    config = network(name)
    weights = random_weights(CnnBackbone(config, 5, seed=3))
    blocks = pruning.removable_blocks(config)
    expected = len(pruning.block_names(config)) - (0 if config.shortcut == "stage" else 2)
    # The first block keeps its input's shape unless it widens it, as bottlenecks do.
    assert len(blocks) == expected - (config.block == "bottleneck")
    for block in [blocks[0], blocks[-1]] if sum(config.blocks) > 3 else []:
        smaller, left = pruning.without_blocks(config, weights, [block])
        assert not any(key.startswith(block) for key in left)
        silent = without_branch(config, weights, block)
        if block.startswith("stage1_block1_") or config.shortcut != "stage" or not block.endswith("block1_"):
            np.testing.assert_allclose(logits(smaller, left), logits(config, silent), atol=1e-4)


def test_several_blocks_then_filters_then_more_blocks():
    config = network("prunable_resnet20_w8_cifar")
    weights = random_weights(CnnBackbone(config, 5, seed=3))
    smaller, left = pruning.without_blocks(config, weights, ["stage1_block2_", "stage3_block1_"])
    assert smaller.block_ids == ((1, 3), (1, 2, 3), (2, 3)) and smaller.blocks == (2, 3, 2)
    smaller, left = thin(smaller, left, 0.6)
    smaller, left = pruning.without_blocks(smaller, left, ["stage1_block3_"])
    model = CnnBackbone(smaller, 5, seed=0)
    model.import_weights(left, "the test")
    assert sum(v.size for v in left.values()) == profile(smaller, 5).parameters + profile(smaller, 5).statistics
    assert type(config).from_dict(smaller.to_dict()) == smaller


def test_what_cannot_be_removed_is_refused():
    config = network("resnet14_cifar")
    weights = random_weights(CnnBackbone(config, 5, seed=3))
    with pytest.raises(ModelError, match="stage2_block1_"):
        pruning.without_blocks(config, weights, ["stage2_block1_"])
    with pytest.raises(ModelError, match="no block left"):
        pruning.without_blocks(config, weights, ["stage1_block1_", "stage1_block2_"])
    for name in ("cifar_densenet", "se_resnet110_cifar", "resnext29_8x64d_cifar", "mobilenet_v2"):
        try:
            other = named(name)
        except ModelError:
            continue
        with pytest.raises(ModelError, match="cannot be removed"):
            pruning.thin(other, {}, other)
