"""Stereo matching as the distributed tests run it: a warm start and an iteration with a teacher's masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from appzoo.stereo_matching.app import StereoMatching
from appzoo.stereo_matching.config import StereoMatchingConfig
from appzoo.stereo_matching.synthetic import scene
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.distributed.workers import Workers
from easytransfer.train.trainer import Trainer

SIZE = (32, 64)


class Still(StereoMatching):
    """Normalises by moving statistics: by those of a batch, workers would normalise fewer rows than one worker does."""

    def forward(self, batch, training=False):
        """Returns what the network does outside of training."""
        return self.model(batch, training=False) if training else super().forward(batch)


def run(workers: Workers, folder: Path) -> None:
    """Trains two steps of a warm start and two of an iteration; writes weights and masks."""
    # Few steps: the loss has kinks, at which a rounding becomes another gradient. It happened in the sixth step.
    made = [scene(np.random.default_rng([3, i]), *SIZE, 16) for i in range(8)]
    columns = {side: np.stack([getattr(each, side) for each in made]) for side in ("left", "right")}
    table = EncodedTable({**columns, "size": np.tile(np.int32(SIZE), (8, 1))})
    # Roundings turn some pixels of a mask over. With this jump only what is out of view is hidden, another number of
    # pixels on each worker. Adam would make whole steps of gradients that are rounding alone.
    train = {"optimizer_type": "sgd", "learning_rate": 0.1, "num_epochs": 1, "batch_size": 4 // workers.replicas}
    config = StereoMatchingConfig(
        model_name="stereo_matching",
        model={"network": "tiny", "max_disparity": 16, "image_size": SIZE},
        occlusion={"iterations": 1, "iteration_epochs": 1, "most_hidden": 1.0, "train_jump": 16.0},
        augment={"swap_flip": True, "brightness": 0.3},
        train=train,
    )
    app = Still(config)
    app.load_assets(None)
    app.on_train_table(table)
    trainer = Trainer(app, config.train, config.runtime, workers=workers)
    shard = (workers.replica, workers.replicas)
    trainer.fit(Batches(table, config.train.batch_size, shuffle=True, seed=1, shard=shard, global_batch=4), None)
    arrays = {variable.name: variable.numpy() for variable in app.model.weights}
    np.savez(folder / f"rank-{workers.rank}.npz", hidden=app.state()["masks"]["iteration_1"]["hidden_share"], **arrays)
