"""Win prediction in three stages on several workers; `programs.py` runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from appzoo.win_prediction.app import WinPrediction
from appzoo.win_prediction.config import WinPredictionConfig
from easytransfer.config.job import RuntimeConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.distributed.workers import Workers
from easytransfer.train.trainer import Trainer

GAMES, GLOBAL_BATCH = 40, 8


def table() -> EncodedTable:
    """Returns games of 1 to 9 frames with two groups; the first one says who wins."""
    random, lengths = np.random.default_rng(0), np.arange(GAMES) % 9 + 1
    winner = (np.arange(GAMES) % 2).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    frames = random.normal(0, 1, (offsets[-1], 2)).astype(np.float32)
    frames[:, 0] += np.repeat(winner * 2 - 1, lengths)
    minutes = np.concatenate([np.arange(length) for length in lengths]).astype(np.float32)
    columns = {"frames": Ragged(frames, offsets), "minutes": Ragged(minutes, offsets), "winner": winner}
    return EncodedTable(columns, {"frames_mask": "frames"})


def run(workers: Workers, folder: Path) -> None:
    """Trains and evaluates; the metrics go into `rank-N.npz`."""
    config = WinPredictionConfig(
        model={
            **{"groups": ["gold = gold", "kill = kill"], "spatial_units": [4], "temporal_units": 4},
            **{"together_epochs": 1, "entropy_weight": 0.1, "smoothness_weight": 0.1, "game_balanced": True},
        },
        train={
            "batch_size": GLOBAL_BATCH // workers.replicas,
            "num_epochs": 2,
            "learning_rate": 0.01,
            # Without it rounding errors of small gradients would become whole steps.
            "adam_epsilon": 1e-2,
        },
    )
    app, rows = WinPrediction(config), table()
    app.load_assets(None)
    app.on_train_table(rows)
    share = {"shard": (workers.replica, workers.replicas)}
    trainer = Trainer(app, config.train, RuntimeConfig(seed=3), folder / "run", workers=workers)
    trainer.fit(Batches(rows, config.train.batch_size, shuffle=True, seed=1, **share))
    metrics, _ = trainer.evaluate(Batches(rows, config.train.batch_size, shuffle=False, **share))
    np.savez(folder / f"rank-{workers.rank}.npz", **metrics)
