"""Programs with two co-trained networks; `programs.py` runs them.

`networks`: each worker computes one of two divided networks. `rows`: two dense networks, workers share the rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from appzoo.co_training.app import CoTraining
from appzoo.co_training.config import CoTrainingConfig
from easytransfer.config.job import RuntimeConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import Workers
from easytransfer.train.trainer import Trainer

ROWS, GLOBAL_BATCH = 32, 8
NETWORKS = {"networks": {"network": "wrn10_4_b4_digits", "split": 2}, "rows": {"members": ["mlp16x1_digits"] * 2}}


def table() -> EncodedTable:
    """Returns random images whose class decides one quarter."""
    random = np.random.default_rng(0)
    labels = np.arange(ROWS) % 3
    images = random.integers(0, 100, (ROWS, 8, 8, 1))
    images[:, :4, :4] += 70 * labels[:, None, None, None]
    return EncodedTable({"image": images.astype(np.uint8), "label_id": labels.astype(np.int32)})


def make_app(scenario: str, workers: Workers) -> CoTraining:
    """Returns the application; mixup pairs rows of one worker, so only where workers have the same rows."""
    shape = {"image_size": 8, "channels": 1, "channel_mean": [0.4], "channel_std": [0.3]}
    app = CoTraining(
        CoTrainingConfig(
            data={"label_enumerate_values": "a,b,c"},
            model={**shape, **NETWORKS[scenario], "agreement_warmup_epochs": 2},
            augment={"crop_padding": 1, "mixup_alpha": 0.3 if scenario == "networks" else 0.0},
            train={
                "batch_size": GLOBAL_BATCH // workers.replicas,
                "num_epochs": 3,
                "learning_rate": 0.01,
                # Without it rounding errors of small gradients would become whole steps.
                "adam_epsilon": 1e-2,
                "gradient_clip": True,
            },
        )
    )
    app.load_assets(None)
    app.on_train_table(table())
    return app


def run(workers: Workers, folder: Path, scenario: str) -> None:
    """Trains and evaluates; the metrics go into `rank-N.npz`."""
    app, rows = make_app(scenario, workers), table()
    share = {"shard": (workers.replica, workers.replicas)}
    size = app.config.train.batch_size
    trainer = Trainer(app, app.config.train, RuntimeConfig(seed=3), folder / "run", workers=workers)
    trainer.fit(Batches(rows, size, shuffle=True, seed=1, **share))
    metrics, _ = trainer.evaluate(Batches(rows, size, shuffle=False, **share))
    np.savez(folder / f"rank-{workers.rank}.npz", **metrics)
