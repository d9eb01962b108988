"""Text to text as the distributed tests run it: texts of several lengths, the loss divided by pieces of all workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from appzoo.text_generation.app import TextGeneration
from appzoo.text_generation.config import TextGenerationConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable, HostColumn, Ragged
from easytransfer.distributed.workers import Workers
from easytransfer.train.trainer import Trainer

NETWORK = Path(__file__).parents[2] / "examples" / "text_generation" / "tiny-t5"
ROWS = 20


def table() -> EncodedTable:
    """Returns texts of 2 to 9 pieces, and answers of 1 to 6."""
    random = np.random.default_rng(4)
    texts, answers = ([[*random.integers(3, 90, random.integers(1, most)), 1] for _ in range(ROWS)] for most in (9, 6))
    columns = {"input_ids": Ragged.from_lists(texts), "target_ids": Ragged.from_lists(answers)}
    masks = {"input_mask": "input_ids", "target_mask": "target_ids"}
    return EncodedTable({**columns, "wanted": HostColumn.of("" for _ in range(ROWS))}, masks=masks)


def run(workers: Workers, folder: Path) -> None:
    """Trains two epochs, the last batch of each smaller than the others; writes what was trained."""
    config = TextGenerationConfig(
        model_name="text_generation",
        data={"first_sequence": "text", "label_name": "answer"},
        model={"pretrain_model_name_or_path": str(NETWORK), "from_scratch": True},
        train={
            **{"optimizer_type": "sgd", "learning_rate": 0.1, "gradient_clip": True, "clip_norm_value": 1.0},
            **{"num_epochs": 2, "batch_size": 8 // workers.replicas, "label_smoothing": 0.1},
        },
    )
    app = TextGeneration(config)
    app.load_assets(None)
    trainer = Trainer(app, config.train, config.runtime, workers=workers)
    start = {f"start/{variable.name}": variable.numpy() for variable in app.model.trainable_variables}
    shard = (workers.replica, workers.replicas)
    trainer.fit(Batches(table(), config.train.batch_size, shuffle=True, seed=1, shard=shard), None)
    arrays = {variable.name: variable.numpy() for variable in app.model.trainable_variables}
    np.savez(folder / f"rank-{workers.rank}.npz", **start, **arrays)
