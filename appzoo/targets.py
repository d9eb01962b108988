"""Cells to label ids and model outputs back to names, for the three kinds of target."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from easytransfer.data.cells import NOT_NUMBER, read_number
from easytransfer.data.labels import LabelMap
from easytransfer.metrics.scores import sigmoid, softmax


class Target(abc.ABC):
    """How one kind of label is read, trained on and written."""

    kind: str
    labels: LabelMap | None
    num_outputs: int

    @abc.abstractmethod
    def read(self, cell: Any) -> Any:
        """Returns the training value of a label cell.

        Raises:
            ValueError: The cell is not a label; the message is the reason shown to the user.
        """

    @abc.abstractmethod
    def array(self, values: list[Any]) -> np.ndarray:
        """Stacks the values of accepted rows into the `label_id` column."""

    @abc.abstractmethod
    def columns(self, logits: np.ndarray) -> dict[str, list[Any]]:
        """Returns output columns for `logits` [batch, num_outputs]."""


class SingleLabel(Target):
    """One class per row; `label_id` is int32 [batch]."""

    kind = "classification"

    def __init__(self, labels: LabelMap) -> None:
        self.labels, self.num_outputs = labels, len(labels)

    def read(self, cell: Any) -> int:
        """Returns the class id."""
        name = str(cell).strip()
        if name not in self.labels.ids:
            raise ValueError(f"unknown label: {name!r}; known: {self.labels.describe()}" if name else "empty label")
        return self.labels.ids[name]

    def array(self, values: list[int]) -> np.ndarray:
        """Returns int32 [batch]."""
        return np.asarray(values, np.int32)

    def columns(self, logits: np.ndarray) -> dict[str, list[Any]]:
        """Returns predictions (names), probabilities (softmax) and logits."""
        return {
            "predictions": [self.labels.names[i] for i in logits.argmax(axis=1)],
            "probabilities": list(softmax(logits).astype(np.float32)),
            "logits": list(logits),
        }


class MultiLabel(Target):
    """Any number of classes per row; `label_id` is a float32 multi-hot [batch, classes]."""

    kind = "multi_label"

    def __init__(self, labels: LabelMap, max_num_labels: int, threshold: float) -> None:
        self.labels, self.num_outputs = labels, len(labels)
        self.max_num_labels, self.threshold = max_num_labels, threshold

    def read(self, cell: Any) -> list[int]:
        """Returns the class ids of a comma list."""
        names = [name.strip() for name in str(cell).split(",") if name.strip()]
        # A class name may itself hold a comma when the label list came from a file.
        if str(cell).strip() in self.labels.ids:
            names = [str(cell).strip()]
        if not names:
            raise ValueError("empty label")
        unknown = [name for name in names if name not in self.labels.ids]
        if unknown:
            raise ValueError(f"unknown label: {unknown[0]!r}; known: {self.labels.describe()}")
        if len(names) > self.max_num_labels:
            raise ValueError(f"too many labels: {len(names)}, more than max_num_labels={self.max_num_labels}")
        if len(set(names)) < len(names):
            raise ValueError("label given twice")
        return [self.labels.ids[name] for name in names]

    def array(self, values: list[list[int]]) -> np.ndarray:
        """Returns multi-hot float32 [batch, classes]."""
        hot = np.zeros((len(values), self.num_outputs), np.float32)
        for row, ids in enumerate(values):
            hot[row, ids] = 1.0
        return hot

    def columns(self, logits: np.ndarray) -> dict[str, list[Any]]:
        """Returns predictions (comma-joined names), probabilities (sigmoid) and logits."""
        probabilities = sigmoid(logits)
        names = [",".join(self.labels.names[i] for i in np.flatnonzero(row > self.threshold)) for row in probabilities]
        return {"predictions": names, "probabilities": list(probabilities.astype(np.float32)), "logits": list(logits)}


class Score(Target):
    """A number per row; `label_id` is float32 [batch]. Predictions are the value itself."""

    kind = "regression"
    labels = None
    num_outputs = 1

    def read(self, cell: Any) -> float:
        """Returns the number in the cell, by the rules of `float` columns whatever the type of the cell."""
        if isinstance(cell, str) and not cell.strip():
            raise ValueError("empty label")
        try:
            return read_number(cell)
        except ValueError as error:
            hint = " (without labelEnumerateValues the task is regression)"
            raise ValueError(f"{error}{hint if str(error).startswith(NOT_NUMBER) else ''}") from None

    def array(self, values: list[float]) -> np.ndarray:
        """Returns float32 [batch]."""
        return np.asarray(values, np.float32)

    def columns(self, logits: np.ndarray) -> dict[str, list[Any]]:
        """Returns predictions (the value) and logits; a score has no probability."""
        return {"predictions": list(logits[:, 0]), "logits": list(logits)}
