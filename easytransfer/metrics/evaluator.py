"""What every evaluator of an application does."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np


class Evaluator(abc.ABC):
    """Collects outputs over a whole table and returns exact metrics, whatever the batch size.

    Attributes:
        main_metric: The metric that decides which checkpoint is best.
        higher_is_better: Whether more of it is better.

    Example:
        >>> class Accuracy(Evaluator):
        ...     main_metric, right, rows = "accuracy", 0, 0
        ...     def update(self, batch, outputs):
        ...         self.right += int((outputs["logits"].argmax(-1) == batch["label_id"]).sum())
        ...         self.rows += len(batch["label_id"])
        ...     def result(self):
        ...         return {"accuracy": self.right / max(self.rows, 1)}
    """

    main_metric: str
    higher_is_better: bool = True

    @abc.abstractmethod
    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows (padding rows are already removed)."""

    @abc.abstractmethod
    def result(self) -> dict[str, float]:
        """Returns plain floats by metric name, `main_metric` among them."""

    def state(self) -> Any:
        """Returns what was collected, as plain values and arrays that another process can take; see `merge`."""
        raise NotImplementedError(f"{type(self).__name__} has no state(): several workers cannot share an evaluation")

    def merge(self, state: Any) -> None:
        """Adds what another evaluator of the same kind has collected, its `state`."""
        raise NotImplementedError(f"{type(self).__name__} has no merge(): several workers cannot share an evaluation")

    def report(self) -> dict[str, Any]:
        """Returns parts of `report.json` beyond the metrics, such as a confusion matrix; see `run/card`."""
        return {}
