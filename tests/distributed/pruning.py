"""Pruning as the distributed tests run it: two samples, the optimum, and the start of the pruned network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from appzoo.dimension_pruning.app import DimensionPruning
from appzoo.dimension_pruning.config import DimensionPruningConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import Workers
from easytransfer.train.trainer import Trainer


def table() -> EncodedTable:
    """Returns random images of 8 x 8 in three classes of different brightness."""
    random, labels = np.random.default_rng(2), np.arange(48, dtype=np.int32) % 3
    images = random.integers(0, 80, (48, 8, 8, 1)) + 80 * labels[:, None, None, None]
    return EncodedTable({"image": images.astype(np.uint8), "label_id": labels})


def run(workers: Workers, folder: Path) -> None:
    """Prunes and trains; writes the plan and the weights before and after the training."""
    model = {
        "network": "prunable_resnet14_w8_cifar", "image_size": 8, "channels": 1, "base_epochs": 1.0, "budget": 0.5,
        "dimensions": ["depth", "width"], "depth_samples": 1, "width_levels": [0.5], "sample_epochs": 0.5,
        "select_share": 0.3, "max_predictor_error": 1.0,
    }  # fmt: skip
    data, train = {"label_enumerate_values": "a,b,c"}, {"batch_size": 8 // workers.size, "num_epochs": 1.0}
    app = DimensionPruning(DimensionPruningConfig(data=data, model=model, train=train, augment={"crop_padding": 0}))
    app.load_assets(None)
    app.on_train_table(table())
    app.before_training(table(), folder, workers)
    before = {f"before_{name}": value for name, value in app.start[1].items()}
    trainer = Trainer(app, app.config.train, app.config.runtime, workers=workers)
    shard = (workers.replica, workers.replicas)
    trainer.fit(Batches(table(), app.config.train.batch_size, shuffle=True, seed=1, shard=shard))
    after = {f"after_{index}": value for index, value in enumerate(app.model.get_weights())}
    np.savez(folder / f"rank-{workers.rank}.npz", plan=json.dumps(app.plan, sort_keys=True), **before, **after)
