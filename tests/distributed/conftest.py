"""Runs the programs of `programs.py` on several worker processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("horovod", reason="Horovod is not installed: sh scripts/horovod.sh")

PROGRAMS = Path(__file__).with_name("programs.py")
# By workers, shards and stages: programs of one launch, as a process takes seconds to start. Their tests share a group.
TOGETHER = {
    (1, 1, 1): [
        *("data_parallel", "model_parallel", "distillation", "co_training_rows", "co_training_networks"),
        "win_prediction",
    ],
    (2, 1, 1): [
        *("data_parallel", "model_parallel", "distillation", "co_training_rows", "int8_wire", "pruning"),
        "win_prediction",
    ],
    (2, 2, 1): ["model_parallel", "co_training_networks"],
    (4, 1, 1): ["data_parallel", "int8_wire"],
}
# A deadlock ends after a minute instead of never.
PATIENCE = {"HOROVOD_STALL_CHECK_TIME_SECONDS": "20", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "60"}


class Results(list):
    """Arrays by rank, and the folder the program wrote to."""

    def __init__(self, folder: Path, workers: int) -> None:
        super().__init__(dict(np.load(folder / f"rank-{rank}.npz")) for rank in range(workers))
        self.folder = folder


@pytest.fixture(scope="session")
def run_program(tmp_path_factory: pytest.TempPathFactory):
    """Function (program, workers, shards, stages) -> arrays by rank; every combination runs once per session."""
    done: dict[tuple[str, int, int, int], Results] = {}

    def run(program: str, workers: int, shards: int = 1, stages: int = 1) -> Results:
        layout = (workers, shards, stages)
        if (program, *layout) not in done:
            from easytransfer.distributed.launch import Hosts, launch

            together = TOGETHER.get(layout, ())
            programs = together if program in together else [program]
            folder = tmp_path_factory.mktemp("-".join(map(str, (program, *layout))))
            command = [sys.executable, str(PROGRAMS), ",".join(programs), str(folder), str(shards), str(stages)]
            environment = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", **PATIENCE}
            # oneDNN's batched product overruns its buffer at times (github.com/tensorflow/tensorflow/issues/117700).
            environment["TF_ENABLE_ONEDNN_OPTS"] = "0"
            if workers == 1:
                code = subprocess.call(command, env={**os.environ, **environment})
            else:
                code = launch(command, Hosts(f"localhost:{workers}"), environment)
            assert code == 0
            done.update({(name, *layout): Results(folder / name, workers) for name in programs})
        return done[(program, *layout)]

    return run
