"""A BERT whose layers or depth workers share trains like the same BERT on one, and its checkpoints are whole."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from easytransfer.distributed.collectives import Group
from easytransfer.errors import ConfigError

# Workers, those that split every layer, and stages; the rest are replicas.
TENSOR, PIPELINE = (2, 2, 1), (2, 1, 2)
# `test_model_parallel.py` has replicas of a split network at every commit.
HYBRID = pytest.param((4, 2, 1), marks=pytest.mark.slow)
LAYOUTS = [TENSOR, PIPELINE, HYBRID]
PROGRAM = "bert_classifier"
# Positions of the weights of the two layers among all 41.
LAYERS_FROM, LAYERS_TO = 5, 37


def weights(arrays: dict[str, np.ndarray], scenario: str) -> list[np.ndarray]:
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{scenario}/weight_")]


def assert_equal(rank: dict[str, np.ndarray], alone: dict[str, np.ndarray], scenario: str) -> None:
    np.testing.assert_allclose(rank[f"{scenario}/losses"], alone[f"{scenario}/losses"], atol=1e-5)
    np.testing.assert_allclose(rank[f"{scenario}/evaluations"], alone[f"{scenario}/evaluations"], atol=1e-5)
    found, expected = weights(rank, scenario), weights(alone, scenario)
    assert len(found) == len(expected) == 41
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fifty_steps_equal_one_worker(run_program, layout):
    (alone,), several = run_program(PROGRAM, 1), run_program(PROGRAM, *layout)
    assert len(alone["plain/losses"]) == 50
    for rank in several:
        assert_equal(rank, alone, "plain")


@pytest.mark.parametrize("scenario", ["dropout", "lamb"])
def test_dropout_outside_split_parts_and_trust_ratios_equal_one_worker(run_program, scenario):
    (alone,), several = run_program(PROGRAM, 1), run_program(PROGRAM, *TENSOR)
    for rank in several:
        assert_equal(rank, alone, scenario)
    assert not np.allclose(alone["plain/losses"][:10], alone[f"{scenario}/losses"][:10], atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_roberta_equals_one_worker(run_program, layout):
    (alone,), several = run_program(PROGRAM, 1), run_program(PROGRAM, *layout)
    for rank in several:
        assert_equal(rank, alone, "roberta")
    assert not np.allclose(alone["roberta/losses"], alone["plain/losses"][:10], atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gathered_weights_have_one_hash(run_program, layout):
    assert len({str(rank["plain/hash"]) for rank in run_program(PROGRAM, *layout)}) == 1


@pytest.mark.parametrize("layout", [TENSOR, HYBRID])
def test_each_rank_holds_half_of_every_split_weight(run_program, layout):
    (alone,), several = run_program(PROGRAM, 1), run_program(PROGRAM, *layout)
    whole = alone["plain/sizes"]
    for rank in several:
        parts = whole // rank["plain/sizes"]
        # Per layer: kernel and bias of query, key, value; kernel of the output (its bias is whole); a LayerNorm; kernel
        # and bias of the first dense layer, kernel of the second; its bias and a LayerNorm.
        layer = [2] * 7 + [1] * 3 + [2] * 3 + [1] * 3
        np.testing.assert_array_equal(parts, [1] * LAYERS_FROM + layer * 2 + [1] * (41 - LAYERS_TO))


def test_each_stage_holds_its_layers(run_program):
    (alone,), (first, last) = run_program(PROGRAM, 1), run_program(PROGRAM, *PIPELINE)
    whole, middle = alone["plain/sizes"], LAYERS_FROM + 16
    np.testing.assert_array_equal(first["plain/sizes"], whole[:middle])
    np.testing.assert_array_equal(last["plain/sizes"], whole[middle:])


def test_masks_differ_inside_split_parts_only(run_program):
    first, second = run_program(PROGRAM, *TENSOR)
    assert not np.array_equal(first["masks/probabilities"], second["masks/probabilities"])
    np.testing.assert_array_equal(first["masks/output"], second["masks/output"])
    assert 0.3 < np.mean(first["masks/output"] == 0) < 0.7


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_sum_or_micro_batch_is_noticed(run_program, layout):
    (alone,), several = run_program(PROGRAM, 1), run_program(PROGRAM, *layout)
    broken = several[0]["broken/losses"]
    assert np.abs(broken - alone["plain/losses"][: len(broken)]).max() > 1e-3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpoints_are_those_of_one_worker(run_program, layout):
    alone, several = run_program(PROGRAM, 1), run_program(PROGRAM, *layout)
    for name in ("weights.safetensors", "optimizer.safetensors"):
        expected, found = (load_file(results.folder / "run" / "model.ckpt-50" / name) for results in (alone, several))
        assert found.keys() == expected.keys()
        for key, array in found.items():
            np.testing.assert_allclose(array, expected[key], atol=1e-5, err_msg=key)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_goes_on_in_another_layout_and_back(run_program, layout):
    (alone,), several = run_program(PROGRAM, 1), run_program(PROGRAM, *layout)
    losses = several[0]["changing/losses"]
    np.testing.assert_allclose(losses, alone["plain/losses"][: len(losses)], atol=1e-5)


def test_what_cannot_be_split_is_refused():
    from easytransfer.distributed.pipeline import Stage
    from modelzoo.bert.backbone import BertBackbone
    from modelzoo.bert.config import BertConfig

    config = BertConfig(vocab_size=9, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    with pytest.raises(ConfigError, match="4 attention heads cannot be split over 3 workers"):
        BertBackbone(config, tensor=Group("tensor", (0, 1, 2), 0))
    with pytest.raises(ConfigError, match="2 encoder layers cannot be cut into 3 stages"):
        BertBackbone(config, stage=Stage(0, 3, None, Group("link0", (0, 1), 0), 1))
