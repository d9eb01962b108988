"""Distillation as the distributed tests run it: a teacher of random weights, a student without batch normalisation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from appzoo.distillation_skd.app import DistillationSkd
from appzoo.distillation_skd.config import DistillationSkdConfig
from appzoo.image_classify.app import ImageClassify
from appzoo.image_classify.config import ImageClassifyConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import Workers
from easytransfer.train import checkpoint
from easytransfer.train.trainer import Trainer
from easytransfer.train.weights import named_arrays

GLOBAL_BATCH = 8


def table(rows: int) -> EncodedTable:
    """Returns random images of 8 x 8; a shorter table is the beginning of a longer one."""
    random = np.random.default_rng(2)
    images = [random.integers(0, 256, (8, 8, 1)).astype(np.uint8) for _ in range(rows)]
    return EncodedTable({"image": np.stack(images), "label_id": np.arange(rows, dtype=np.int32) % 3})


def run(workers: Workers, folder: Path) -> None:
    """Trains two epochs of 21 images; a worker other than the first measures the multiplier on fewer of them."""
    form = {"image_size": 8, "channels": 1, "channel_mean": [0.4], "channel_std": [0.3]}
    shared = {"data": {"label_enumerate_values": "a,b,c"}, "augment": {"crop_padding": 1}}
    teacher = ImageClassify(ImageClassifyConfig(**shared, model={"network": "mlp16x2_digits", **form}))
    teacher.load_assets(None)
    teacher.build_model()
    place = folder / f"teacher-{workers.rank}"
    place.mkdir()
    teacher.save_assets(place)
    checkpoint.save(place, 1, named_arrays(teacher.model.weights), {}, {})
    train = {"batch_size": GLOBAL_BATCH // workers.size, "num_epochs": 2}
    app = DistillationSkd(
        DistillationSkdConfig(
            **shared, model={"network": "mlp8x1_digits", **form}, train=train, distillation={"teacher": str(place)}
        )
    )
    app.load_assets(None)
    app.on_train_table(table(21 if workers.is_chief else 5))
    measured = app.multiplier
    trainer = Trainer(app, app.config.train, app.config.runtime, workers=workers)
    shard = (workers.replica, workers.replicas)
    trainer.fit(Batches(table(21), app.config.train.batch_size, shuffle=True, seed=1, shard=shard))
    weights = {f"weight_{i}": value for i, value in enumerate(app.model.get_weights())}
    facts = {"measured": measured, "multiplier": app.multiplier}
    np.savez(folder / f"rank-{workers.rank}.npz", **facts, **weights)
