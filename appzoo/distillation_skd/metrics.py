"""What is measured of a student: its answers, its confidence, and how close it is to its teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from easytransfer.metrics import scores
from easytransfer.metrics.classification import ClassificationEvaluator

# Temperatures at which the distillation loss is measured, whatever that of training.
TEMPERATURES = (1, 4)

Pair = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class DistillationEvaluator(ClassificationEvaluator):
    """Metrics of classification of the logits that are served, and of the raw logits beside the teacher's.

    `student_deviation` and `student_confidence`, the means over rows of the deviation of the raw logits and of their
    largest probability. With a teacher also `teacher_accuracy`, `teacher_deviation` and `teacher_confidence`;
    `deviation_gap`, the teacher's deviation less the student's; `cosine`, the mean cosine between the centred logits of
    both; `kd_t1_loss` and `kd_t4_loss`, the distillation loss at temperatures 1 and 4.

    Args:
        labels: Names of the classes in id order.
        served: Returns the logits whose softmax is served, from raw ones.
        pair: Returns the logits of student and teacher that are compared in training, from raw ones.
        teacher: Gives logits for uint8 images where outputs have no `teacher_logits`; None where there is no teacher.
    """

    def __init__(
        self,
        labels: Sequence[str],
        served: Callable[[np.ndarray], np.ndarray],
        pair: Pair,
        teacher: Callable[[np.ndarray], np.ndarray] | None,
    ) -> None:
        super().__init__(labels)
        self._served, self._pair, self._teacher = served, pair, teacher

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        raw = np.asarray(outputs["logits"], np.float32)
        given = outputs.get("teacher_logits")
        if given is None and self._teacher is not None:
            given = self._teacher(batch["image"])
        super().update(batch, {"logits": self._served(raw)})
        extra = {"raw": raw} if given is None else {"raw": raw, "teacher": np.asarray(given, np.float32)}
        self.add(**extra)

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats."""
        found = super().result()
        if not len(self):
            return found
        raw, true = self.rows("raw"), self.rows("true")
        found |= _confidence("student", raw)
        return found | self._beside_teacher(raw, true) if "teacher" in self._parts else found

    def _beside_teacher(self, raw: np.ndarray, true: np.ndarray) -> dict[str, float]:
        teacher = self.rows("teacher")
        found = {"teacher_accuracy": float((teacher.argmax(axis=1) == true).mean()), **_confidence("teacher", teacher)}
        found["deviation_gap"] = found["teacher_deviation"] - float(_deviation(raw).mean())
        found["cosine"] = float(cosine(raw, teacher).mean())
        student, target = self._pair(raw, teacher)
        for temperature in TEMPERATURES:
            found[f"kd_t{temperature}_loss"] = scores.exact_mean(divergence(target, student, temperature))
        return found


def _deviation(logits: np.ndarray) -> np.ndarray:
    return logits.astype(np.float64).std(axis=1)


def _confidence(whose: str, logits: np.ndarray) -> dict[str, float]:
    largest = scores.softmax(logits).max(axis=1)
    return {f"{whose}_deviation": float(_deviation(logits).mean()), f"{whose}_confidence": float(largest.mean())}


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the cosine between centred rows, 0 where one of them is constant."""
    first, second = (z.astype(np.float64) - z.astype(np.float64).mean(axis=1, keepdims=True) for z in (first, second))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return scores.divide((first * second).sum(axis=1), lengths)


def divergence(teacher: np.ndarray, student: np.ndarray, temperature: float) -> np.ndarray:
    """Returns T^2 KL(softmax(teacher / T) || softmax(student / T)) of each row."""
    p, q = (scores.log_softmax(np.asarray(z, np.float64) / temperature) for z in (teacher, student))
    return temperature**2 * (np.exp(p) * (p - q)).sum(axis=1)
