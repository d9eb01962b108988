"""Runs a model over batches: outputs as NumPy arrays, metrics over a whole table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.data.batches import prefetch
from easytransfer.train.memory import explained_out_of_memory
from easytransfer.train.task import Batch, Evaluator, Outputs, Task

Arrays = dict[str, np.ndarray]


class Inference:
    """Forward passes of a task's model in a `tf.function` that is traced once per kind of batch.

    Args:
        task: Its `model` is built.
        xla: Compile with XLA; every new batch shape is compiled again.
    """

    def __init__(self, task: Task, *, xla: bool = False) -> None:
        self.task = task
        options = {"reduce_retracing": True, "jit_compile": True if xla else None}
        self._outputs = tf.function(self._forward, **options)
        self._outputs_and_losses = tf.function(self._forward_with_losses, **options)

    def predict(self, batches: Iterable[Arrays]) -> Iterator[Arrays]:
        """Yields the outputs of every batch, without the rows that only pad it.

        Args:
            batches: Batches in the order outputs are wanted; prepared in a background thread.

        Yields:
            Tensor outputs of the model by name, [real rows, ...]; other outputs (tuples) are left out.
        """
        for batch in prefetch(iter(batches)):
            with explained_out_of_memory("predicting", "use a smaller batch_size or sequence_length"):
                outputs = self._outputs({name: tf.convert_to_tensor(value) for name, value in batch.items()})
            yield _real_rows({name: value.numpy() for name, value in outputs.items()}, batch)

    def evaluate(
        self, batches: Iterable[Arrays], *, check: Callable[[], None] | None = None
    ) -> tuple[dict[str, float], Evaluator]:
        """Evaluates labelled batches.

        Args:
            batches: Every row once.
            check: Called between batches; may raise to stop.

        Returns:
            Metrics of the task's evaluator plus `loss` (the mean of the summed losses), and the evaluator.
        """
        evaluator = self.task.evaluator()
        loss = weight = 0.0
        for batch in prefetch(iter(batches)):
            if check is not None:
                check()
            with explained_out_of_memory("evaluating", "use a smaller eval_batch_size or sequence_length"):
                outputs, sums = self._outputs_and_losses({name: tf.convert_to_tensor(v) for name, v in batch.items()})
            loss, weight = loss + float(sums[0]), weight + float(sums[1])
            evaluator.update(
                _real_rows(batch, batch), _real_rows({name: value.numpy() for name, value in outputs.items()}, batch)
            )
        return {"loss": loss / weight if weight else float("nan"), **evaluator.result()}, evaluator

    def _forward(self, batch: Batch) -> Outputs:
        return _tensors_only(self.task.forward(batch))

    def _forward_with_losses(self, batch: Batch) -> tuple[Outputs, tf.Tensor]:
        outputs = self.task.forward(batch)
        total = tf.add_n([tf.cast(loss, tf.float32) for loss in self.task.losses(batch, outputs).values()])
        return _tensors_only(outputs), tf.stack([total, tf.cast(self.task.loss_weight(batch), tf.float32)])


def _tensors_only(outputs: dict[str, Any]) -> Outputs:
    return {name: value for name, value in outputs.items() if tf.is_tensor(value)}


def _real_rows(arrays: Arrays, batch: Arrays) -> Arrays:
    real = batch["example_weight"] > 0
    return arrays if real.all() else {name: value[real] for name, value in arrays.items()}
