"""Co-training on two workers, which compute one network each or share the rows, equals co-training on one."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from appzoo.cli.main import main

pytestmark = pytest.mark.xdist_group("programs")

# Workers that compute one network each.
SHARDS = {"networks": 2, "rows": 1}


@pytest.fixture(params=SHARDS)
def alone_and_together(request, run_program):
    program = f"co_training_{request.param}"
    return run_program(program, 1), run_program(program, 2, SHARDS[request.param])


def arrays(results, file: str) -> dict[str, np.ndarray]:
    run_dir = results.folder / "run"
    last = json.loads((run_dir / "checkpoint.json").read_text())["last"]
    return load_file(run_dir / last / file)


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors"])
def test_checkpoints_of_two_workers_equal_those_of_one(alone_and_together, file):
    alone, together = (arrays(results, file) for results in alone_and_together)
    assert alone.keys() == together.keys() and len(alone) > 4
    for name, value in alone.items():
        np.testing.assert_allclose(together[name], value, atol=1e-5, err_msg=name)


def test_all_ranks_know_the_metrics_of_all_networks(alone_and_together):
    (alone,), together = alone_and_together
    assert {"member_1_accuracy", "member_2_accuracy", "disagreement"} <= alone.keys()
    for found in together:
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            np.testing.assert_allclose(found[name], value, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_one_network_per_worker_from_the_command_line(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    config = repository / "appzoo" / "co_training" / "configs" / "smoke.yaml"
    words = ["train", f"--config={config}", "--workerCount=2", f"--set=checkpoint_dir={tmp_path / 'run'}"]
    code = subprocess.call(
        [
            sys.executable,
            "-c",
            "from appzoo.cli.main import main; raise SystemExit(main())",
            *words,
            "--set=distribution.tensor_parallel=2",
        ]
    )
    assert code == 0
    best = json.loads((tmp_path / "run" / "evaluation.json").read_text())["best"]
    assert best["accuracy"] > 0.8
    table = "--inputTable=examples/image_classify/dev.tsv"
    (export,) = (tmp_path / "run" / "export" / "co_training").glob("*/saved_model.pb")
    assert main(["evaluate", f"--checkpointPath={export.parent}", table]) == 0
