"""Cells to label ids and model outputs back to names, for the three kinds of target."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from easytransfer.data.label_names import class_name, class_names, one_value
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
        value = one_value(cell)
        found = self.labels.id_of(value)
        if found is None:
            raise ValueError(self.labels.why_unknown(class_name(value)))
        return found

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
        """Returns the class ids of a list or a comma list."""
        # A class name may itself hold a comma when the label list came from a file.
        whole = None if isinstance(cell, (list, tuple, np.ndarray)) else self.labels.id_of(cell)
        names = class_names(cell) if whole is None else [self.labels.names[whole]]
        if not names:
            raise ValueError("empty label")
        ids = [self.labels.id_of(name) for name in names]
        if None in ids:
            raise ValueError(self.labels.why_unknown(names[ids.index(None)]))
        if len(ids) > self.max_num_labels:
            raise ValueError(f"too many labels: {len(ids)}, more than max_num_labels={self.max_num_labels}")
        if len(set(ids)) < len(ids):
            raise ValueError("label given twice")
        return ids

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
        """Returns the finite number in the cell."""
        cell = one_value(cell)
        try:
            value = float(cell)
        except (TypeError, ValueError):
            known = f"not a number: {cell!r} (without labelEnumerateValues the task is regression)"
            raise ValueError(known if str(cell).strip() else "empty label") from None
        if not np.isfinite(value):
            raise ValueError(f"not a finite number: {cell!r}")
        return value

    def array(self, values: list[float]) -> np.ndarray:
        """Returns float32 [batch]."""
        return np.asarray(values, np.float32)

    def columns(self, logits: np.ndarray) -> dict[str, list[Any]]:
        """Returns predictions (the value) and logits; a score has no probability."""
        return {"predictions": list(logits[:, 0]), "logits": list(logits)}
