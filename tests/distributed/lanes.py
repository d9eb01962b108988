"""Lane detection as the distributed tests run it: rotated and mirrored roads, classes of very different shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from appzoo.lane_detection.app import LaneDetection
from appzoo.lane_detection.config import ResaConfig
from appzoo.lane_detection.lanes import slot_mask
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import Workers
from easytransfer.train.trainer import Trainer

SIZE, SLOTS, ROWS = (32, 80), 4, 20


class Still(LaneDetection):
    """Normalises by moving statistics: by those of a batch, workers would normalise fewer rows than one worker does."""

    def forward(self, batch, training=False):
        """Returns what the network does outside of training."""
        return super().forward(batch)


def table() -> EncodedTable:
    """Returns images of noise and straight lines of up to four slots; some rows have none."""
    random, masks = np.random.default_rng(5), []
    for number in range(ROWS):
        slots = range(1, 1 + number % (SLOTS + 1))
        lanes = [np.array([[random.uniform(0, 79), 8], [20 * slot - 10, 31]], np.float32) for slot in slots]
        masks.append(slot_mask(lanes, list(slots), 2, SIZE))
    masks = np.stack(masks)
    exist = np.stack([(masks == slot).any(axis=(1, 2)) for slot in range(1, SLOTS + 1)], axis=1).astype(np.float32)
    image = random.integers(0, 256, (ROWS, *SIZE, 3)).astype(np.uint8)
    return EncodedTable({"image": image, "mask": masks, "exist": exist})


def run(workers: Workers, folder: Path) -> None:
    """Trains two epochs, the last batch of each smaller than the others; writes what was trained."""
    config = ResaConfig(
        model_name="lane_detection_resa",
        model={
            **{"network": "tiny", "channels": 8, "exist_units": 8, "image_size": SIZE, "original_size": SIZE},
            **{"cut_height": 0, "slots": SLOTS, "line_width": 2, "benchmark": "culane", "row_step": 4, "row_count": 5},
            **{"iterations": 2, "kernel_width": 3, "alpha": 1.0, "exist_loss_weight": 1.0},
        },
        train={
            **{"optimizer_type": "sgd", "learning_rate": 0.03, "gradient_clip": True, "clip_norm_value": 1.0},
            **{"num_epochs": 2, "batch_size": 8 // workers.replicas},
        },
    )
    app, rows = Still(config), table()
    app.load_assets(None)
    app.on_train_table(rows)
    trainer = Trainer(app, config.train, config.runtime, workers=workers)
    start = {f"start/{variable.name}": variable.numpy() for variable in app.model.trainable_variables}
    shard = (workers.replica, workers.replicas)
    trainer.fit(Batches(rows, config.train.batch_size, shuffle=True, seed=1, shard=shard), None)
    arrays = {variable.name: variable.numpy() for variable in app.model.trainable_variables}
    np.savez(folder / f"rank-{workers.rank}.npz", **start, **arrays)
