"""Pre-training as the distributed tests run it: losses of two divisors, words hidden anew in every step."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from appzoo.text_pretrain.app import TextPretrain
from appzoo.text_pretrain.config import TextPretrainConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.distributed.shards import whole_value
from easytransfer.distributed.workers import Workers
from easytransfer.train.trainer import Trainer

NETWORK = Path(__file__).parents[2] / "examples" / "text_pretrain" / "tiny-bert"
ROWS = 20


def table() -> EncodedTable:
    """Returns pairs of 10 to 40 pieces, so that rows hide one to six of them and batches are of several widths."""
    random = np.random.default_rng(4)
    rows, segments = [], []
    for _ in range(ROWS):
        first, second = random.integers(4, 18, 2)
        rows.append([2, *random.integers(5, 40, first), 3, *random.integers(5, 40, second), 3])
        segments.append([0] * (first + 2) + [1] * (second + 1))
    columns = {"input_ids": Ragged.from_lists(rows), "segment_ids": Ragged.from_lists(segments)}
    return EncodedTable(
        {**columns, "next_sentence_labels": np.arange(ROWS, dtype=np.int32) % 2}, {"input_mask": "input_ids"}
    )


def run(workers: Workers, folder: Path) -> None:
    """Trains two epochs, the last batch of each smaller than the others; writes what was trained."""
    config = TextPretrainConfig(
        model_name="text_pretrain",
        data={"sequence_length": 48},
        model={"pretrain_model_name_or_path": str(NETWORK), "from_scratch": True, "pair_task": "sop", "max_ngram": 2},
        train={
            **{"optimizer_type": "sgd", "learning_rate": 0.1, "gradient_clip": True, "clip_norm_value": 1.0},
            **{"num_epochs": 2, "batch_size": 8 // workers.replicas},
        },
    )
    app = TextPretrain(config)
    app.load_assets(None)
    trainer = Trainer(app, config.train, config.runtime, workers=workers)
    start = [whole_value(variable) for variable in app.model.weights]
    shard = (workers.replica, workers.replicas)
    trainer.fit(Batches(table(), config.train.batch_size, shuffle=True, seed=1, shard=shard), None)
    # Of split layers parts have names of their own, and the places of the whole ones.
    numbers, end = trainer.engine.positions, [whole_value(variable) for variable in app.model.weights]
    arrays = {f"weight/{n:03}": value for n, value in zip(numbers, end, strict=True)}
    arrays |= {f"start/{n:03}": value for n, value in zip(numbers, start, strict=True)}
    np.savez(folder / f"rank-{workers.rank}.npz", **arrays)
