"""Programs with a tiny BERT, whole or in parts; `programs.py` runs them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from unittest import mock

import numpy as np
import programs
import tensorflow as tf

from appzoo.encoder import token_batch
from appzoo.pooled_model import PooledModel
from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.data.batches import Batches
from easytransfer.distributed.pipeline import Stage
from easytransfer.distributed.shards import whole_value
from easytransfer.distributed.workers import ONE_WORKER, Workers
from easytransfer.layers.dropout import dropout_seed
from easytransfer.train.task import Task
from easytransfer.train.trainer import Trainer
from modelzoo.bert.backbone import BertBackbone
from modelzoo.bert.config import BertConfig
from modelzoo.roberta.backbone import RobertaBackbone
from modelzoo.roberta.config import RobertaConfig

BATCH, STEPS, SHORT = 16, 50, 10
SIZES = {
    "vocab_size": programs.WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.2,
}
FAMILIES = {
    "bert": (BertBackbone, BertConfig(**SIZES, max_position_embeddings=16)),
    # Its positions depend on the mask of each row, which only the first of several stages reads.
    "roberta": (RobertaBackbone, RobertaConfig(**SIZES, max_position_embeddings=18)),
}


class Bert(Task):
    """The classifier of `text_classify_bert` on the rows of `programs.table`."""

    splits = ("tensor", "pipeline")
    losses, evaluator = programs.Words.losses, programs.Words.evaluator

    def __init__(self, hidden_dropout: float, probs_dropout: float = 0.0, family: str = "bert") -> None:
        self.dropout, (self.backbone, config) = hidden_dropout, FAMILIES[family]
        self.config = config.replace(hidden_dropout_prob=hidden_dropout, attention_probs_dropout_prob=probs_dropout)

    def build_model(self):
        stage = self.workers.stage
        self.model = self.backbone(self.config, seed=5, tensor=self.workers.tensor, stage=stage)
        if stage is None or stage.is_last:
            self.model = PooledModel(self.model, programs.CLASSES, self.dropout)
        self.model(token_batch())


def train(
    workers: Workers,
    steps: int = STEPS,
    *,
    folder: Path | None = None,
    dropout: float = 0.0,
    family: str = "bert",
    **settings,
) -> dict[str, np.ndarray]:
    """Trains to step `steps`, from the checkpoint in `folder` if one is there; whole weights, sizes, losses."""
    config = TrainConfig(
        **{
            "optimizer_type": "adamw",
            "learning_rate": 1e-2,
            "adam_epsilon": 1e-4,
            "weight_decay_ratio": 0.01,
            "clip_norm_value": 0.5,
            "lr_decay": "constant",
            "warmup_ratio": 0.0,
            "num_epochs": steps * BATCH / programs.ROWS,
            "eval_every_steps": 25,
            "save_checkpoint_steps": 1000,
            "log_step_count_steps": 1,
            **settings,
        }
    )
    rows, shard, recorder = programs.table(), (workers.replica, workers.replicas), programs.Recorder()
    training = Batches(rows, BATCH // workers.replicas, shuffle=True, seed=3, shard=shard, pad_multiple=1)
    held_out = Batches(rows.take(range(100)), 7, shuffle=False, shard=shard, pad_multiple=1)
    trainer = Trainer(Bert(dropout, family=family), config, RuntimeConfig(seed=11), folder, recorder, workers=workers)
    trainer.fit(training, held_out)
    variables = trainer.task.model.weights
    named = {f"weight_{i:03}": whole_value(v) for i, v in zip(trainer.engine.positions, variables, strict=True)}
    whole = workers.join_stages(named)
    return {
        "losses": np.array(recorder.losses),
        "evaluations": np.array(recorder.evaluations),
        "sizes": np.array([variable.shape.num_elements() for variable in variables]),
        "hash": np.array(hashlib.sha256(b"".join(array.tobytes() for array in whole.values())).hexdigest()),
        **whole,
    }


def masks(workers: Workers) -> dict[str, np.ndarray]:
    """Masks of one step: of the attention probabilities of the first layer, and of its output."""
    task = Bert(0.5, 0.5)
    task.workers = workers
    task.build_model()
    block = task.model.backbone.encoder.transformer_layers[0]
    with dropout_seed(tf.constant([1, 2])):
        probabilities = block._attention_layer._dropout_layer(tf.ones([2, 2, 8, 8]), training=True)
        return {
            "probabilities": probabilities.numpy(),
            "output": block._output_dropout(tf.ones([2, 8, 32]), True).numpy(),
        }


def changing_layouts(workers: Workers, folder: Path) -> np.ndarray:
    """Losses of a run that the chief begins alone, all workers continue, and the chief alone ends."""
    losses = []
    for steps, team in ((4, ONE_WORKER), (8, workers), (12, ONE_WORKER)):
        if team is workers or workers.is_chief:
            losses.append(train(team, steps, folder=folder)["losses"])
        workers.barrier()
    return np.concatenate(losses)


def run(workers: Workers, folder: Path) -> None:
    """Trains in the layout of the job, and once in a wrong way."""
    breakage = without_backward_sum() if workers.stage is None else without_last_micro_batch()
    results = {"plain": train(workers, folder=folder / "run"), "roberta": train(workers, SHORT, family="roberta")}
    if workers.stage is None and workers.replicas == 1:
        results["dropout"] = train(workers, dropout=0.1)
        results["lamb"] = train(workers, SHORT, optimizer_type="lamb")
        results["masks"] = masks(workers)
    if workers.size > 1:
        with breakage:
            results["broken"] = train(workers, SHORT)
        results["changing"] = {"losses": changing_layouts(workers, folder / "changing")}
    arrays = {f"{name}/{key}": value for name, found in results.items() for key, value in found.items()}
    np.savez(folder / f"rank-{workers.rank}.npz", **arrays)


def without_backward_sum():
    """Has the input of split layers pass gradients on as they are, which leaves out the other workers' heads."""
    return mock.patch("modelzoo.encoder_network.copy_to", lambda x, group, name: x)


def without_last_micro_batch():
    """Has every stage leave out the last part of each batch."""
    split = Stage.split
    return mock.patch.object(Stage, "split", lambda self, batch: split(self, batch)[:-1])
