"""A short training with WAR on a few images; `programs.py` runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from appzoo.adversarial_training.app import AdversarialTraining
from appzoo.adversarial_training.config import AdversarialTrainingConfig
from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import Workers
from easytransfer.train.trainer import Trainer

ROWS, BATCH = 32, 16


def table() -> EncodedTable:
    """Returns grey images whose brightest quarter is the label."""
    random = np.random.default_rng(3)
    images = random.integers(0, 100, (ROWS, 8, 8, 1))
    labels = random.integers(0, 4, ROWS)
    for row, label in enumerate(labels):
        top, left = 4 * (label // 2), 4 * (label % 2)
        images[row, top : top + 4, left : left + 4] += 100
    columns = {"image": images.astype(np.uint8), "label_id": labels.astype(np.int32)}
    return EncodedTable({**columns, "row_number": np.arange(ROWS, dtype=np.int32)})


def run(workers: Workers, folder: Path) -> None:
    """Trains five epochs; writes weights, the state of lambda and the last metrics."""
    app = AdversarialTraining(
        AdversarialTrainingConfig(
            data={"label_enumerate_values": "a,b,c,d"},
            model={"network": "mlp8x1_digits", "image_size": 8, "channels": 1},
            augment={"crop_padding": 1, "horizontal_flip": False},
            train={"batch_size": BATCH // workers.size},
            adversarial={
                **{"adv_lambda_mode": "war", "war_zeta": "4000", "war_skip_epochs": 1, "war_alpha": 0.25},
                **{"epsilon": 0.1, "attack_steps": 3, "start_deviation": 0.01, "eval_attack": "pgd5"},
            },
        )
    )
    app.load_assets(None)
    rows, shard = table(), (workers.rank, workers.size)
    app.on_train_table(rows)
    train = TrainConfig(num_epochs=5, learning_rate=0.01, lr_decay="constant", warmup_ratio=0.0)
    trainer = Trainer(app, train, RuntimeConfig(seed=2), None, workers=workers)
    result = trainer.fit(
        Batches(rows, BATCH // workers.size, shuffle=True, seed=1, shard=shard),
        Batches(rows, 7, shuffle=False, shard=shard),
    )
    weights = {f"weight_{i}": weight for i, weight in enumerate(app.model.get_weights())}
    metrics = {f"metric_{name}": value for name, value in result.metrics.items()}
    np.savez(folder / f"rank-{workers.rank}.npz", **weights, **app.state(), **metrics)
