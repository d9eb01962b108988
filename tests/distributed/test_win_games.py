"""Win prediction trained by two workers equals that by one: weights, optimizer and metrics."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.xdist_group("programs")


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors"])
def test_checkpoints_of_two_workers_equal_those_of_one(file, run_program):
    def arrays(results) -> dict[str, np.ndarray]:
        last = json.loads((results.folder / "run" / "checkpoint.json").read_text())["last"]
        return load_file(results.folder / "run" / last / file)

    alone, together = arrays(run_program("win_prediction", 1)), arrays(run_program("win_prediction", 2))
    assert alone.keys() == together.keys() and len(alone) > 4
    for name, value in alone.items():
        np.testing.assert_allclose(together[name], value, atol=1e-5, rtol=0, err_msg=name)


def test_both_ranks_have_the_metrics_of_all_games(run_program):
    (alone,), together = run_program("win_prediction", 1), run_program("win_prediction", 2)
    assert {"accuracy", "auc", "ece", "game_accuracy", "loss"} <= alone.keys()
    for found in together:
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
