"""Which evaluation was the best so far, and whether it is time to stop."""

from __future__ import annotations

import math
from typing import Any

from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.names import choose_metric, higher_is_better


class BestTracker:
    """Compares evaluations by one metric; of equal ones the lower loss is better, then the later step.

    An equal metric is no improvement: patience runs on.

    Args:
        metric: Name; None = the evaluator's main metric. The original's names are understood.
        patience: Evaluations without improvement after which to stop; 0 = never.
    """

    def __init__(self, metric: str | None, patience: int) -> None:
        self.metric = metric
        self.patience = patience
        self.step: int | None = None
        self.value = math.nan
        self.metrics: dict[str, float] = {}
        self.without_improvement = 0

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.patience <= self.without_improvement

    def metric_name(self, metrics: dict[str, float], evaluator: Evaluator) -> str:
        """Returns the name of the metric to compare.

        Raises:
            ConfigError: It is not among `metrics`.
        """
        if self.metric in metrics:
            return self.metric
        return choose_metric(self.metric, sorted(metrics), evaluator.main_metric)

    def add(self, step: int, metrics: dict[str, float], evaluator: Evaluator) -> bool:
        """Takes the evaluation of `step`; returns whether it is the best so far. NaN is never better than a number."""
        name = self.metric_name(metrics, evaluator)
        value = float(metrics[name])
        higher = evaluator.higher_is_better if name == evaluator.main_metric else higher_is_better(name)
        if self.step is None or math.isnan(self.value):
            improved = self.step is None or not math.isnan(value)
        else:
            improved = value > self.value if higher else value < self.value
        self.without_improvement = 0 if improved else self.without_improvement + 1
        better = improved or (value == self.value and self._not_worse_by_loss(metrics))
        if better:
            self.step, self.value, self.metrics = step, value, dict(metrics)
        return better

    def _not_worse_by_loss(self, metrics: dict[str, float]) -> bool:
        before, after = (found.get("loss") for found in (self.metrics, metrics))
        if after is None or math.isnan(after):
            return before is None or math.isnan(before)
        return before is None or math.isnan(before) or after <= before

    def state(self) -> dict[str, Any]:
        """Returns what `restore` needs, JSON-able."""
        return {
            "step": self.step,
            "value": self.value,
            "metrics": self.metrics,
            "without_improvement": self.without_improvement,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what `state` returned."""
        self.step, self.metrics = state["step"], state["metrics"]
        self.value = math.nan if state["value"] is None else state["value"]
        self.without_improvement = state["without_improvement"]
