"""Runs a model over the batches of a table: losses and metrics over all of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.data.batches import prefetch
from easytransfer.data.encoded import device_arrays
from easytransfer.distributed.workers import ONE_WORKER, Workers
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.train.memory import explained_out_of_memory
from easytransfer.train.step import EVALUATION, weighted_means
from easytransfer.train.task import Batch, Outputs, Task

Arrays = dict[str, np.ndarray]


class Inference:
    """Forward passes of a task's model in a `tf.function` that is traced once per kind of batch.

    Args:
        task: Its `model` is built.
        xla: Compile with XLA; every new batch shape is compiled again.
        workers: Share an evaluation; each worker has batches of its own and gets the metrics of all.
    """

    def __init__(self, task: Task, *, xla: bool = False, workers: Workers = ONE_WORKER) -> None:
        self.task, self.workers = task, workers
        self._has_outputs = workers.stage is None or workers.stage.is_last
        self._outputs_and_losses = tf.function(
            self._forward_with_losses, reduce_retracing=True, jit_compile=True if xla else None
        )

    def evaluate(
        self, batches: Iterable[Arrays], *, check: Callable[[], None] | None = None
    ) -> tuple[dict[str, float], Evaluator]:
        """Evaluates labelled batches.

        Args:
            batches: Every row once, or every row of this worker's share.
            check: Called between batches; may raise to stop.

        Returns:
            Metrics of the task's evaluator, `loss` (the mean of the summed losses) where the task has losses here, and
            the evaluator.
        """
        evaluator = self.task.evaluator()
        losses: dict[str, np.ndarray] = {}
        for batch in prefetch(iter(batches)):
            if check is not None:
                check()
            with explained_out_of_memory("evaluating", "use a smaller eval_batch_size or sequence_length"):
                outputs, terms = self._outputs_and_losses(_tensors(batch))
            _add(losses, {name: np.float64(term) for name, term in terms.items()})
            if self._has_outputs:
                found = _real_rows({name: value.numpy() for name, value in outputs.items()}, batch)
                evaluator.update(_real_rows(batch, batch), found)
        if self.workers.size > 1:
            # Workers exchange what their evaluators have collected, and all compute the metrics of the whole table.
            shares = self.workers.gather_replicas((losses, evaluator.state()))
            losses, evaluator = {}, self.task.evaluator()
            for terms, state in shares:
                _add(losses, terms)
                evaluator.merge(state)
        sums, weights = ({name: float(term[i]) for name, term in losses.items()} for i in range(2))
        means = weighted_means(sums, weights)
        loss = {"loss": sum(means.values())} if means else {}
        return {**loss, **evaluator.result()}, evaluator

    def _forward_with_losses(self, batch: Batch) -> tuple[Outputs, dict[str, tf.Tensor]]:
        """Returns outputs, and by name the sum and the weight of each loss, float32 [2]."""
        if not self._has_outputs:
            return _tensors_only(self.task.forward(batch)), {}
        outputs = self.task.evaluate_step(batch)
        losses = self.task.losses(batch, outputs, EVALUATION)
        return _tensors_only(outputs), {
            name: tf.stack([tf.cast(part, tf.float32) for part in loss]) for name, loss in losses.items()
        }


def _add(totals: dict[str, np.ndarray], terms: dict[str, np.ndarray]) -> None:
    for name, term in terms.items():
        totals[name] = totals.get(name, 0.0) + term


def _tensors(batch: Arrays) -> Batch:
    return {name: tf.convert_to_tensor(value) for name, value in device_arrays(batch).items()}


def _tensors_only(outputs: dict[str, Any]) -> Outputs:
    return {name: value for name, value in outputs.items() if tf.is_tensor(value)}


def _real_rows(arrays: Arrays, batch: Arrays) -> Arrays:
    real = batch["example_weight"] > 0
    return arrays if real.all() else {name: value[real] for name, value in arrays.items()}
