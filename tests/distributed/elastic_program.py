"""What workers of the elastic tests run: `elastic_program.py FOLDER KILLS`; `KILLS` is a Python dictionary
{restart: (rank, step)}: that rank of that start is killed with SIGKILL after that step. Rank 0 writes `weights.npz`."""

from __future__ import annotations

import ast
import os
import signal
import sys
from pathlib import Path

import numpy as np
from programs import ROWS, Recorder, Words, table

from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.data.batches import Batches
from easytransfer.distributed.horovod_workers import HorovodWorkers
from easytransfer.distributed.strategy import RESTARTS
from easytransfer.train.trainer import Trainer

STEPS, BATCH = 50, 16


class Killer(Recorder):
    """Notes every step of every start, and kills its process after one of them."""

    def __init__(self, folder: Path, rank: int, restart: int, step: int | None) -> None:
        super().__init__()
        self._log, self._step = folder / f"steps-{restart}-{rank}.txt", step

    def step(self, step, metrics):
        with self._log.open("a") as log:
            print(step, metrics["loss"], file=log)
        if step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Trains with a global batch of 16, however many workers there are."""
    folder, kills = Path(sys.argv[1]), ast.literal_eval(sys.argv[2])
    workers, restart = HorovodWorkers(), int(os.environ.get(RESTARTS, 0))
    rank, step = kills.get(restart, (None, None))
    config = TrainConfig(
        optimizer_type="adamw",
        learning_rate=1e-2,
        weight_decay_ratio=0.01,
        num_epochs=STEPS / -(-ROWS // BATCH),
        log_step_count_steps=1,
        save_checkpoint_steps=5,
    )
    shard = (workers.rank, workers.size)
    rows = Batches(table(), 8, shuffle=True, seed=3, shard=shard, pad_multiple=1, global_batch=BATCH)
    killer = Killer(folder, workers.rank, restart, step if rank == workers.rank else None)
    settings = RuntimeConfig(seed=11, resume="auto")
    trainer = Trainer(Words(), config, settings, folder / "run", killer, workers=workers)
    trainer.fit(rows)
    if workers.is_chief:
        np.savez(folder / "weights.npz", *(variable.numpy() for variable in trainer.task.model.weights))


if __name__ == "__main__":
    main()
