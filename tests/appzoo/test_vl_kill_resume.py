"""LAMP killed at random moments and resumed."""

import json
import os
import subprocess
import sys

import pytest

MAIN = "from appzoo.cli.main import main; raise SystemExit(main())"
SETTINGS = {
    "train.num_epochs": 20,
    "train.eval_every_steps": 24,
    "train.save_checkpoint_steps": 2,
    "train.export_best_checkpoint": "false",
    "runtime.deterministic": "true",
}


@pytest.mark.slow
def test_ten_kills_at_random_times_end_with_the_same_weights_and_state(repository):
    """More kills are tried than ten: on a machine that becomes idle a training may end before its last ones."""
    train = [sys.executable, "-c", MAIN, "train", "--config=appzoo/vl_pretraining/configs/smoke_lamp.yaml"]
    train += ["--checkpointDir={run_dir}", *(f"--set={name}={value}" for name, value in SETTINGS.items())]
    script = repository / "benchmarks" / "kill_resume.py"
    done = subprocess.run(
        [sys.executable, script, "--trials", "1", "--kills", "24", "--seed", "4", "--", *train],
        capture_output=True, text=True, cwd=repository, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["equal"] == 1 and result["kills"] >= 10
