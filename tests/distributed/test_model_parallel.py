"""A network whose layers are split over workers trains like the same network on one, and each holds only its parts."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from easytransfer.distributed.layout import Layout
from easytransfer.errors import ConfigError

pytestmark = pytest.mark.xdist_group("programs")

# Workers, and how many of them split each dense block; the rest are replicas, which share the table and the head.
LAYOUTS = [(2, 1), (2, 2), (4, 2)]


def weights(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [arrays[name] for name in sorted(arrays) if name.startswith("weight_")]


@pytest.mark.parametrize(("workers", "shards"), LAYOUTS)
def test_fifty_steps_of_the_split_network_equal_one_worker(run_program, workers, shards):
    (alone,), several = run_program("model_parallel", 1), run_program("model_parallel", workers, shards)
    for rank in several:
        np.testing.assert_allclose(rank["losses"], alone["losses"], atol=1e-5)
        for found, expected in zip(weights(rank), weights(alone), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("workers", "shards"), LAYOUTS)
def test_each_rank_holds_only_its_parts(run_program, workers, shards):
    (alone,), several = run_program("model_parallel", 1), run_program("model_parallel", workers, shards)
    replicas = workers // shards
    # embedding; wide kernel and bias; narrow kernel, narrow bias (whole); head kernel and bias.
    parts = np.array([replicas, shards, shards, shards, 1, replicas, replicas])
    for rank in several:
        np.testing.assert_array_equal(rank["sizes"] * parts, alone["sizes"])


@pytest.mark.parametrize(("workers", "shards"), LAYOUTS)
def test_checkpoints_are_whole(run_program, workers, shards):
    whole = run_program("model_parallel", 1)[0]
    several = run_program("model_parallel", workers, shards)
    folder = next(path for path in several.folder.glob("run/model.ckpt-*"))
    saved = load_file(folder / "weights.safetensors")
    assert sorted(array.shape for array in saved.values()) == sorted(array.shape for array in weights(whole))


def test_places_and_ranks_are_inverse():
    layout = Layout(12, tensor_parallel=2, pipeline_stages=3)
    assert layout.data_parallel == 2
    assert [layout.rank(*layout.place(rank)) for rank in range(12)] == list(range(12))
    assert layout.groups("tensor")[0] == (0, 1) and layout.groups("data")[0] == (0, 2)
    assert layout.groups("pipeline")[0] == (0, 4, 8) and (4, 8) in layout.groups("link")


def test_a_layout_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="3 workers cannot be split into 1 stages of 2 shards"):
        Layout(3, tensor_parallel=2)
