"""An elastic training whose workers are killed ends with the weights of one that nothing happened to."""

import sys
from pathlib import Path

import numpy as np
import pytest

from easytransfer.distributed import launch as module
from easytransfer.distributed.launch import Elastic, Hosts, launch

PROGRAM = Path(__file__).with_name("elastic_program.py")


def weights(folder: Path) -> list[np.ndarray]:
    with np.load(folder / "weights.npz") as arrays:
        return [arrays[name] for name in sorted(arrays)]


def steps(folder: Path, restart: int) -> list[int]:
    """Steps that rank 0 made after a restart."""
    return [int(line.split()[0]) for line in (folder / f"steps-{restart}-0.txt").read_text().splitlines()]


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    def run(kills: dict[int, tuple[int, int]], hosts: Hosts | None = None) -> Path:
        folder = tmp_path_factory.mktemp("elastic")
        pointer = folder / "run" / "checkpoint.json"
        elastic = Elastic(1, 2, lambda: pointer.read_bytes() if pointer.is_file() else None)
        environment = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(PROGRAM), str(folder), repr(kills)]
        assert launch(command, hosts or Hosts("localhost:2"), environment, elastic) == 0
        return folder

    return run


@pytest.fixture(scope="module")
def unbroken(train) -> Path:
    return train({})


@pytest.mark.parametrize("kills", [{0: (1, 23), 1: (0, 38)}], ids=["the follower, then the chief"])
def test_killed_workers_are_replaced(train, unbroken, kills):
    folder = train(kills)
    for a, b in zip(weights(unbroken), weights(folder), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    # Every start goes on right after the last checkpoint: no step is left out, none counts twice in the weights.
    assert steps(folder, 0)[:20] == list(range(1, 21))
    assert steps(folder, 1)[0] in (16, 21) and steps(folder, 2)[0] in (31, 36) and steps(folder, 2)[-1] == 50


@pytest.mark.slow  # at every commit: `test_launch.py` loses a host, `test_int8_wire.py` goes on with one worker
def test_the_rest_goes_on_alone(train, unbroken, tmp_path, monkeypatch):
    """The killed worker's place disappears with it; the global batches stay what they were."""
    look = tmp_path / "look"
    look.write_text(
        f"#!/bin/sh\n[ -e {tmp_path}/asked ] && echo localhost:1 || echo localhost:2\ntouch {tmp_path}/asked\n"
    )
    look.chmod(0o755)
    monkeypatch.setattr(module, "LOOK_S", 1000)
    folder = train({0: (1, 23)}, Hosts("", str(look)))
    assert not (folder / "steps-1-1.txt").exists() and steps(folder, 1)[-1] == 50
    for a, b in zip(weights(unbroken), weights(folder), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
