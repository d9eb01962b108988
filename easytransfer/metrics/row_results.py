"""What a model made of every row of an evaluation, so that rows can be looked at and runs compared on the same ones."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from easytransfer.errors import ModelError
from easytransfer.metrics import scores
from easytransfer.run.atomic import atomic_path

Kind = Literal["classification", "multi_label", "regression"]
_FACTS = "facts"


@dataclass
class RowResults:
    """Rows with their labels and answers; which arrays there are depends on the kind.

    Attributes:
        kind: One class, several, or a number for a row.
        labels: Names of the classes; none for a number.
        arrays: `true` and `predicted` [rows]: numbers of classes, bool [rows, classes], or numbers. Of one class also
            `probability` of the predicted one and `loss`, the cross entropy, where the model has them, and of two
            classes `score`, which orders rows from the first class to the second. Of several classes also `logits`
            [rows, classes]. `row` [rows], the number in the table from 1, once it is known.
    """

    kind: Kind
    labels: list[str]
    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.arrays["true"])

    def take(self, rows: np.ndarray) -> RowResults:
        """Returns the results of some rows, in their order; a row may be there several times."""
        return RowResults(self.kind, self.labels, {name: values[rows] for name, values in self.arrays.items()})

    @property
    def right(self) -> np.ndarray:
        """Whether the whole answer is right, bool [rows]; for a number whether it is the same."""
        same = self.arrays["true"] == self.arrays["predicted"]
        return same.all(axis=1) if same.ndim > 1 else same

    @property
    def errors(self) -> np.ndarray:
        """How far numbers are from the true ones, float64 [rows]."""
        return np.abs(self.arrays["predicted"].astype(np.float64) - self.arrays["true"])

    def confidence(self) -> np.ndarray | None:
        """Returns the probability of what is predicted, [rows]; None where the model gives none.

        Of several classes, it is that of the wrong class which the model is surest of: its own where it is predicted
        wrongly, one minus that where it is missed; 0 where all are right.
        """
        if self.kind == "classification":
            return self.arrays.get("probability")
        if self.kind == "regression":
            return None
        probability = scores.sigmoid(self.arrays["logits"])
        sure = np.where(self.arrays["predicted"], probability, 1 - probability)
        return np.where(self.arrays["true"] != self.arrays["predicted"], sure, 0.0).max(axis=1, initial=0.0)

    def worst(self, most: int) -> np.ndarray:
        """Returns the rows that are wrong, the most confident or farthest first, of equal ones the first first."""
        wrong = np.flatnonzero(~self.right)
        by = self.errors if self.kind == "regression" else self.confidence()
        order = np.argsort(-by[wrong], kind="stable") if by is not None else np.arange(len(wrong))
        return wrong[order][:most]

    def names(self, which: Literal["true", "predicted"], row: int) -> str:
        """Returns the label or the answer of a row as text."""
        value = self.arrays[which][row]
        if self.kind == "classification":
            return self.labels[int(value)]
        if self.kind == "regression":
            return f"{float(value):.6g}"
        return ", ".join(name for name, there in zip(self.labels, value, strict=True) if there) or "(none)"

    def metrics(self) -> dict[str, float]:
        """Returns the metrics that follow from these rows, as the evaluator of the kind has them."""
        true, predicted = self.arrays["true"], self.arrays["predicted"]
        if self.kind == "regression":
            error = predicted - true
            return {
                "mse": float(np.mean(error**2)),
                "mae": float(np.mean(np.abs(error))),
                "pearson": scores.pearson(true, predicted),
                "spearman": scores.spearman(true, predicted),
            }
        if self.kind == "multi_label":
            hits, guessed, there = (true & predicted).sum(axis=0), predicted.sum(axis=0), true.sum(axis=0)
            logits = self.arrays["logits"].astype(np.float64)
            return {
                "micro_f1": float(scores.f1_from_counts(hits.sum(), guessed.sum(), there.sum())),
                "macro_f1": float(scores.f1_from_counts(hits, guessed, there).mean()),
                "subset_accuracy": float(self.right.mean()),
                "loss": float(np.logaddexp(0, np.where(true, -logits, logits)).mean()),
            }
        hits, guessed, there = scores.class_counts(true, predicted, len(self.labels))
        f1 = scores.f1_from_counts(hits, guessed, there)
        found = {
            "accuracy": float(self.right.mean()),
            "macro_f1": float(f1.mean()),
            "weighted_f1": float(f1 @ there / there.sum()),
            "mcc": scores.matthews_correlation(hits, guessed, there),
        }
        if len(self.labels) == 2:
            found["f1"] = float(f1[1])
            found["precision"], found["recall"] = (float(scores.divide(hits, n)[1]) for n in (guessed, there))
        if "score" in self.arrays:
            found["auc"] = scores.area_under_roc(true == 1, self.arrays["score"])
        if "loss" in self.arrays:
            found["loss"] = float(self.arrays["loss"].mean())
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an `.npz` file of plain arrays, as a whole or not at all."""
        facts = json.dumps({"kind": self.kind, "labels": self.labels}, ensure_ascii=False)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{_FACTS: np.array(facts)}, **self.arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RowResults:
        """Reads what `save` has written.

        Raises:
            ModelError: The file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                facts = json.loads(str(stored[_FACTS]))
                arrays = {name: stored[name] for name in stored.files if name != _FACTS}
            return cls(facts["kind"], list(facts["labels"]), arrays)
        except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
            raise ModelError(f"cannot read {os.fspath(path)}: {error}", fix="train the run anew") from error


def class_results(
    labels: Sequence[str], true: np.ndarray, predicted: np.ndarray, logits: np.ndarray, *, probabilities: bool = True
) -> RowResults:
    """Returns the results of rows with one class each.

    Args:
        labels: Names of the classes.
        true: Numbers of the true ones [rows].
        predicted: Those of the predicted ones [rows].
        logits: [rows, classes].
        probabilities: Whether the softmax of `logits` is what the model takes for the probabilities.
    """
    arrays: dict[str, Any] = {"true": true, "predicted": predicted}
    if probabilities:
        log_probability = scores.log_softmax(logits)
        rows = np.arange(len(true))
        arrays["probability"] = np.exp(log_probability[rows, predicted]).astype(np.float32)
        arrays["loss"] = -log_probability[rows, true]
    if len(labels) == 2:
        arrays["score"] = np.subtract(logits[:, 1], logits[:, 0], dtype=np.float64)
    return RowResults("classification", list(labels), arrays)


def renamed(results: RowResults, labels: Sequence[str]) -> np.ndarray | None:
    """Returns the true labels of rows with the numbers that another list gives the classes.

    Returns:
        None where that list lacks a class which a row has. Numbers to predict stay as they are.
    """
    true = results.arrays["true"]
    if results.kind == "regression":
        return true
    place: Mapping[str, int] = {name: number for number, name in enumerate(labels)}
    if results.kind == "multi_label":
        found = np.zeros((len(true), len(labels)), bool)
        for number, name in enumerate(results.labels):
            if name in place:
                found[:, place[name]] = true[:, number]
            elif true[:, number].any():
                return None
        return found
    table = np.array([place.get(name, -1) for name in results.labels], np.int64)
    found = table[true]
    return None if (found < 0).any() else found
