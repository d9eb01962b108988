"""Collects what steps report and reads it from the device only when a log line, evaluation or checkpoint is due."""

from __future__ import annotations

import time

import numpy as np

from easytransfer.deferred import tf
from easytransfer.run.report import Reporter
from easytransfer.train.engine import Engine
from easytransfer.train.step import weighted_means


class StepLog:
    """Means over the steps since the last report, and the first step that failed.

    Args:
        engine: Source of the numbers.
        reporter: Receives them.

    Attributes:
        waited: Seconds that all steps reported so far waited for their batches.
        stepped: Seconds of these steps, evaluations and checkpoints left out.
    """

    def __init__(self, engine: Engine, reporter: Reporter) -> None:
        self._engine, self._reporter = engine, reporter
        self._vectors: list[tf.Tensor] = []
        self._rows = self._tokens = 0
        self._input_s = self.waited = self.stepped = 0.0
        self._mark = time.monotonic()

    def restart(self) -> None:
        """Leaves the time since the last report out of the speed (evaluation, checkpoint, start)."""
        self._mark = time.monotonic()

    def add(self, group: list[dict[str, np.ndarray]], vector: tf.Tensor, input_s: float) -> None:
        """Notes one step: its batches, what `Engine.run_step` returned, and how long it waited for the batches."""
        self._vectors.append(vector)
        self._input_s += input_s
        for batch in group:
            self._rows += int(np.count_nonzero(batch["example_weight"]))
            self._tokens += int(batch["input_mask"].sum()) if "input_mask" in batch else 0

    def report(self, step: int, epoch: float) -> int | None:
        """Reports the steps noted since the last call, the latest being `step`; returns the first failed one."""
        if not self._vectors:
            return None
        count = len(self._vectors)
        facts = self._engine.facts(self._vectors)
        seconds = max(time.monotonic() - self._mark, 1e-9)
        self._vectors.clear()
        failed = np.flatnonzero(facts["failed"])
        if failed.size:
            return step - count + 1 + int(failed[0])
        times = {"step_s": seconds / count, "input_s": self._input_s / count}
        self.waited, self.stepped = self.waited + self._input_s, self.stepped + seconds
        self._reporter.step(step, {**self._means(facts), "epoch": epoch, **self._speed(seconds), **times})
        self._rows = self._tokens = 0
        self._input_s = 0.0
        self.restart()
        return None

    def _means(self, facts: dict[str, np.ndarray]) -> dict[str, float]:
        # Steps skipped under float16 have losses that are not numbers.
        kept = facts["skipped"] == 0
        sums, weights = (
            {
                name.removeprefix(kind): float(value[kept].sum())
                for name, value in facts.items()
                if name.startswith(kind)
            }
            for kind in ("loss/", "weight/")
        )
        means = weighted_means(sums, weights)
        result = {**({} if len(means) == 1 else means), "loss": sum(means.values())}
        result |= {"lr": float(facts["learning_rate"][-1]), "grad_norm": float(facts["grad_norm"][-1])}
        if self._engine.loss_scale is not None:
            result |= {"loss_scale": float(facts["loss_scale"][-1]), "skipped_steps": float((~kept).sum())}
        return result

    def _speed(self, seconds: float) -> dict[str, float]:
        speed = {"rows_per_s": self._rows / seconds}
        return speed | ({"tokens_per_s": self._tokens / seconds} if self._tokens else {})
