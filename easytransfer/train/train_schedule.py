"""The course of a training run as a function of the step number: batches, epochs, when to evaluate and save."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from easytransfer.config.job import TrainConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import Ragged, device_arrays


@dataclass(frozen=True)
class TrainSchedule:
    """Steps are numbered from 1; step s is over when s updates were made.

    Attributes:
        steps_per_epoch: Batches in one epoch.
        accumulated: Batches per step (the last step of the run may have fewer).
        total_batches: Batches of the whole run.
        eval_every: Steps between evaluations; None = at the end of each epoch.
        save_every: Steps between checkpoints; None = at the end of each epoch.
    """

    steps_per_epoch: int
    accumulated: int
    total_batches: int
    eval_every: int | None
    save_every: int | None

    @classmethod
    def of(cls, steps_per_epoch: int, train: TrainConfig) -> TrainSchedule:
        """Returns the plan of `train` over epochs of `steps_per_epoch` batches."""
        # Rounded first: 0.1 * 30 is a little more than 3 in binary.
        batches = max(1, math.ceil(round(steps_per_epoch * train.num_epochs, 6)))
        k = train.num_accumulated_batches
        return cls(steps_per_epoch, k, batches, train.eval_every_steps, train.save_checkpoint_steps)

    @property
    def total_steps(self) -> int:
        """Updates of the whole run: ceil(steps_per_epoch * num_epochs / accumulated)."""
        return -(-self.total_batches // self.accumulated)

    def batches_done(self, step: int) -> int:
        """Batches used by the first `step` steps."""
        return min(step * self.accumulated, self.total_batches)

    def position(self, step: int) -> tuple[int, int]:
        """Epoch and batch in it at which step `step` + 1 starts."""
        return divmod(self.batches_done(step), self.steps_per_epoch)

    def batches_of(self, step: int, batches: Batches) -> list[dict[str, np.ndarray]]:
        """Returns the batches of step `step`, made anew."""
        return next(self.stream(batches, step - 1))

    def stream(self, batches: Batches, done: int) -> Iterator[list[dict[str, np.ndarray]]]:
        """Yields the batches of every step after the first `done`."""
        epoch, start = self.position(done)
        source = batches.epoch(epoch, start)
        for step in range(done + 1, self.total_steps + 1):
            group: list[dict[str, np.ndarray]] = []
            while len(group) < self.batches_done(step) - self.batches_done(step - 1):
                batch = next(source, None)
                if batch is None:
                    epoch += 1
                    source = batches.epoch(epoch)
                else:
                    group.append(batch)
            yield group

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due after `step`."""
        return self._due(step, self.eval_every)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due after `step`."""
        return self._due(step, self.save_every)

    def _due(self, step: int, every: int | None) -> bool:
        if step == 0:
            return False
        if step == self.total_steps:
            return True
        return step % every == 0 if every else self.position(step)[0] > self.position(step - 1)[0]


def batch_signature(batches: Batches) -> dict[str, tf.TensorSpec]:
    """Returns shapes and dtypes of the batches: their size and padded lengths are open, everything else is fixed."""
    table = batches.table
    ragged = {name for name, column in table.columns.items() if isinstance(column, Ragged)} | set(table.masks)
    signature = {}
    for name, value in device_arrays(next(batches.epoch(0))).items():
        fixed = 1 + (name in ragged)
        signature[name] = tf.TensorSpec([None] * fixed + list(value.shape[fixed:]), value.dtype, name=name)
    return signature
