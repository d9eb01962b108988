"""Matching of texts and images as the distributed tests run it: training from a table, and a shared evaluation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from appzoo.cli.reader import JobReader
from appzoo.jobs.inference import evaluated
from appzoo.jobs.tables import load_rows
from appzoo.jobs.trained import new_app
from easytransfer.data.batches import Batches
from easytransfer.distributed.workers import Workers
from easytransfer.train.trainer import Trainer

REPOSITORY = Path(__file__).parents[2]
ROWS = 40


def run(workers: Workers, folder: Path) -> None:
    """Trains a few steps, the last batch smaller than the others; writes the weights, and metrics of lists."""
    os.chdir(REPOSITORY)
    settings = {
        "train.optimizer_type": "sgd",
        "train.learning_rate": 0.1,
        "train.num_epochs": 2,
        "train.batch_size": 16 // workers.replicas,
    }
    words = ["--config=appzoo/multimodal_match/configs/smoke.yaml"]
    app = new_app(JobReader("train", words + [f"--set={k}={v}" for k, v in settings.items()], []).read().config)
    app.load_assets(None)
    table = load_rows(app, app.config.data.train_table, True, limit=500).encoded.head(ROWS)
    trainer = Trainer(app, app.config.train, app.config.runtime, workers=workers)
    start = {f"start/{variable.name}": variable.numpy() for variable in app.model.trainable_variables}
    shard = (workers.replica, workers.replicas)
    trainer.fit(Batches(table, app.config.train.batch_size, shuffle=True, seed=1, shard=shard), None)
    arrays = {variable.name: variable.numpy() for variable in app.model.trainable_variables}
    lists = load_rows(app, app.config.data.eval_table, True).encoded
    read = set(app.specs())

    def call(batch):
        return {"logits": app.model({name: batch[name] for name in read})["logits"].numpy()}

    metrics = evaluated(app, lists, call, 7, workers=workers).result()
    found = {f"metric/{name}": np.array(value) for name, value in metrics.items()}
    np.savez(folder / f"rank-{workers.rank}.npz", **start, **arrays, **found)
