"""Vision-language pre-training as the distributed tests run it: up to eight losses, each with a divisor of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from appzoo.jobs.tables import load_rows
from appzoo.vl_pretraining.app import VARIANTS
from appzoo.vl_pretraining.config import VARIANTS as CONFIGS
from appzoo.vl_pretraining.scenes import write_scenes
from easytransfer.data.batches import Batches
from easytransfer.distributed.workers import Workers
from easytransfer.train.trainer import Trainer

# By name: variant and settings.
RUNS = {
    "lamp": ("lamp", {"label_slots": 4, "label_pieces": 9}),
    "adaptive": ("fashion_bert", {"masked_image_token_num": 1, "read_boxes": False, "region_positions": True}),
}


def run(workers: Workers, folder: Path) -> None:
    """Trains two epochs of each variant, the last batch smaller than the others; writes what was trained."""
    home = folder / f"scenes-{workers.rank}"
    write_scenes(home, 1, {"train": range(7)})
    arrays: dict[str, np.ndarray] = {}
    for name, (variant, settings) in RUNS.items():
        arrays |= {f"{name}/{key}": value for key, value in trained(workers, home, variant, settings).items()}
    np.savez(folder / f"rank-{workers.rank}.npz", **arrays)


def trained(workers: Workers, home: Path, variant: str, settings: dict) -> dict[str, np.ndarray]:
    """Returns the weights before, named `start/`, and after the training."""
    names = {"object_names": str(home / "objects.txt"), "attribute_names": str(home / "attributes.txt")}
    model = {"pretrain_model_name_or_path": str(home / "network"), "from_scratch": True, "region_source": "records"}
    config = CONFIGS[variant](
        model_name=f"vl_pretraining_{variant}",
        data={
            **{"input_schema": "text:str:1,image:str:1", "image_column": "image", "sequence_length": 8},
            **{"region_file": str(home / "regions.tfrecord"), **(names if variant == "lamp" else {})},
        },
        model={**model, **settings},
        train={
            **{"optimizer_type": "sgd", "learning_rate": 0.1, "gradient_clip": True, "clip_norm_value": 1.0},
            **{"num_epochs": 2, "batch_size": 8 // workers.replicas},
        },
    )
    app = VARIANTS[variant](config)
    app.load_assets(None)
    table = load_rows(app, str(home / "train.tsv"), True).encoded
    trainer = Trainer(app, config.train, config.runtime, workers=workers)
    start = {f"start/{variable.name}": variable.numpy() for variable in app.model.trainable_variables}
    shard = (workers.replica, workers.replicas)
    trainer.fit(Batches(table, config.train.batch_size, shuffle=True, seed=1, shard=shard), None)
    return {**start, **{variable.name: variable.numpy() for variable in app.model.trainable_variables}}
