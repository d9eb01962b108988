"""Programs of re-identification; `programs.py` runs them.

`baseline`: one worker accumulates two batches of four persons, two workers have one each. `as_gan`: the workers share
the rows of a batch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from appzoo.person_reid.baseline import PersonReid
from appzoo.person_reid.config import AsGanConfig, BaselineConfig
from appzoo.person_reid.gan.app import AsGan
from appzoo.person_reid.synthetic import crop
from easytransfer.app.contract import App
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import Workers
from easytransfer.train.trainer import Trainer

SIZE, PERSONS, IMAGES = (16, 16), 8, 4
# Without the epsilon rounding errors of small gradients would become whole steps.
TRAIN = {"num_epochs": 2, "learning_rate": 0.01, "adam_epsilon": 1e-2, "warmup_ratio": 0.0, "lr_decay": "constant"}


def table() -> EncodedTable:
    """Returns eight drawn persons."""
    made = [crop(5, pid, 0, 0, image, SIZE) for pid in range(1, PERSONS + 1) for image in range(IMAGES)]
    rows = len(made)
    columns = {"image": np.stack([image for image, _ in made]), "mask": np.stack([mask for _, mask in made])}
    columns |= {"pid": np.repeat(np.arange(1, PERSONS + 1, dtype=np.int32), IMAGES), "order": np.arange(rows)}
    columns |= {name: np.zeros(rows, np.int32) for name in ("camera", "clothes", "role")}
    return EncodedTable(columns)


def make_app(name: str, workers: Workers) -> App:
    """Returns an application whose images stay as they are."""
    alone = workers.replicas == 1
    crops = {"image_size": list(SIZE), "flip": False, "crop_padding": 0}
    if name == "as_gan":
        size = 8 if alone else 4
        return AsGan(AsGanConfig(model=crops, gan={"size": "tiny"}, train={**TRAIN, "batch_size": size}))
    network = {**crops, "network": "tiny", "images_per_identity": 2, "erase_probability": 0.0}
    steps = {"batch_size": 8, "num_accumulated_batches": 2 if alone else 1}
    return PersonReid(BaselineConfig(model=network, train={**TRAIN, **steps}))


def run(workers: Workers, folder: Path, name: str) -> None:
    """Trains; the trained variables go into `rank-N.npz`."""
    app, rows = make_app(name, workers), table()
    app.load_assets(None)
    app.on_train_table(rows)
    if name == "as_gan":
        rows = EncodedTable({column: rows.columns[column] for column in ("image", "mask")})
    trainer = Trainer(app, app.config.train, app.config.runtime, None, workers=workers)
    share = {"shard": (workers.replica, workers.replicas), "sampler": app.sampler(rows)}
    result = trainer.fit(Batches(rows, app.config.train.batch_size, shuffle=True, **share))
    found = {variable.name: variable.numpy() for variable in app.model.trainable_variables}
    np.savez(folder / f"rank-{workers.rank}.npz", steps=result.steps, **found)
