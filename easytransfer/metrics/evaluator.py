"""What every evaluator of an application does."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import numpy as np

from easytransfer.metrics.names import higher_is_better
from easytransfer.metrics.row_results import RowResults


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

    def row_results(self) -> RowResults | None:
        """Returns label and answer of each row, in the order in which rows were added; None where rows have neither."""
        return None

    def row_parts(self) -> tuple[np.ndarray, dict[str, RowResults]]:
        """Returns the results of the rows by the part of the table they are in, such as a task; by default one, "".

        Returns:
            The number of each row's part, int [rows], in the order in which rows were added, -1 where it has no
            results; and the parts in order, by name. Both are empty where rows have neither label nor answer.
        """
        results = self.row_results()
        return (np.zeros(0, int), {}) if results is None else (np.zeros(len(results), int), {"": results})

    def report(self) -> dict[str, Any]:
        """Returns parts of `report.json` beyond the metrics, such as a confusion matrix; see `run/card`."""
        return {}


class MeanEvaluator(Evaluator):
    """The mean of something that every row has one or more of: hits of pixels, errors, distances.

    Args:
        name: Name of the metric; it says whether more is better, see `higher_is_better`.
        values: Takes a batch and its outputs to an array of any shape.

    Example:
        >>> evaluator = MeanEvaluator("pixel_accuracy", lambda batch, outputs: outputs["map"] == batch["map"])
    """

    def __init__(self, name: str, values: Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], np.ndarray]) -> None:
        self.main_metric, self.higher_is_better = name, higher_is_better(name)
        self._values, self._sum, self._count = values, 0.0, 0

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        values = np.asarray(self._values(batch, outputs), np.float64)
        self.merge((float(values.sum()), values.size))

    def state(self) -> tuple[float, int]:
        """Returns the sum and how many there are."""
        return self._sum, self._count

    def merge(self, state: tuple[float, int]) -> None:
        """Adds those of another evaluator."""
        self._sum, self._count = self._sum + state[0], self._count + state[1]

    def result(self) -> dict[str, float]:
        """Returns the mean; NaN when there was nothing."""
        return {self.main_metric: self._sum / self._count if self._count else float("nan")}
