"""Evaluators of single-label and multi-label classification: collect rows, compute exactly at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from easytransfer.metrics import scores
from easytransfer.metrics.collector import RowCollector
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.exact_sum import ExactSum
from easytransfer.metrics.names import choose_metric, higher_is_better
from easytransfer.metrics.row_results import RowResults, class_results

# Guesses of `top_5_accuracy`, which needs more classes than this.
_GUESSES = 5


class ClassificationEvaluator(RowCollector, Evaluator):
    """Metrics of one label per row, from `batch["label_id"]` int [B] or [B, 1] and `outputs["logits"]` [B, C].

    `accuracy`, `micro_f1` (equal to accuracy), `macro_f1` (over all declared classes, 0 for absent ones),
    `weighted_f1`, `mcc`, `auc` and `loss`; for two classes also `f1`, `precision` and `recall` of class 1; for more
    than five `top_5_accuracy`, the share of rows with fewer than five classes above the true one.
    `auc` comes from probabilities: of class 1 for two classes, else the mean over classes of one against the rest,
    classes without rows of both kinds left out. `loss` is the plain mean cross entropy, without the class weights and
    smoothing of training.

    Args:
        labels: Names of the classes in id order.
        main_metric: Metric that picks the best checkpoint.
        with_auc: Compute `auc`; it needs the logits of all rows in memory, float32; what else it keeps of a
            row is few bytes.
    """

    def __init__(self, labels: Sequence[str], *, main_metric: str | None = None, with_auc: bool = True) -> None:
        super().__init__()
        self.labels = list(labels)
        self._with_auc, self._loss = with_auc, ExactSum()
        binary = ("f1", "precision", "recall") if len(self.labels) == 2 else ()
        auc = ("auc",) if with_auc else ()
        top = ("top_5_accuracy",) if len(self.labels) > _GUESSES else ()
        self.names = ("accuracy", *top, "micro_f1", "macro_f1", "weighted_f1", "mcc", *auc, *binary, "loss")
        self.main_metric = choose_metric(main_metric, self.names, "accuracy")
        self.higher_is_better = higher_is_better(self.main_metric)

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        true = np.asarray(batch["label_id"]).reshape(-1).astype(np.int64)
        logits = np.asarray(outputs["logits"], np.float32)
        if logits.shape != (len(true), len(self.labels)):
            raise ValueError(f"logits are {logits.shape}, expected {(len(true), len(self.labels))}")
        if len(true) and (true.min() < 0 or true.max() >= len(self.labels)):
            raise ValueError(f"label ids go from {true.min()} to {true.max()}, there are {len(self.labels)} classes")
        ids = np.min_scalar_type(len(self.labels))
        rows = {"true": true.astype(ids), "predicted": logits.argmax(axis=-1).astype(ids)}
        self._loss.add(-scores.log_softmax(logits)[np.arange(len(true)), true])
        if len(self.labels) > _GUESSES:
            above = logits > np.take_along_axis(logits, true[:, None], axis=1)
            rows["top_5"] = above.sum(axis=1) < _GUESSES
        self.add(**rows, **({"logits": logits} if self._with_auc else {}))

    def state(self) -> Any:
        """Returns the rows and the sum of the losses."""
        return super().state(), self._loss

    def merge(self, state: Any) -> None:
        """Adds rows of another evaluator."""
        super().merge(state[0])
        self._loss.merge(state[1])

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats; all NaN when there were no rows."""
        if not len(self):
            return dict.fromkeys(self.names, float("nan"))
        hits, predicted, true = self._counts()
        f1 = scores.f1_from_counts(hits, predicted, true)
        accuracy = float(hits.sum() / true.sum())
        result = {
            "accuracy": accuracy,
            "micro_f1": accuracy,
            "macro_f1": float(f1.mean()),
            "weighted_f1": float(f1 @ true / true.sum()),
            "mcc": scores.matthews_correlation(hits, predicted, true),
            "loss": self._loss.mean(),
        }
        if self._with_auc:
            result["auc"] = self._auc()
        if len(self.labels) > _GUESSES:
            result["top_5_accuracy"] = scores.exact_mean(self.rows("top_5"))
        if len(self.labels) == 2:
            one = self.per_class()[1]
            result |= {name: one[name] for name in ("f1", "precision", "recall")}
        return {name: result[name] for name in self.names}

    def _auc(self) -> float:
        true, logits = self.rows("true"), self.rows("logits")
        if len(self.labels) == 2:
            # The logit difference orders rows like the probability, but does not round to ties near 0 and 1.
            return scores.area_under_roc(true == 1, np.subtract(logits[:, 1], logits[:, 0], dtype=np.float64))
        return scores.one_against_rest_area(true, logits)

    def _counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return scores.class_counts(self.rows("true"), self.rows("predicted"), len(self.labels))

    def confusion(self) -> np.ndarray:
        """Returns counts, int64 [true class, predicted class]."""
        classes = len(self.labels)
        return scores.confusion_matrix(self.rows("true"), self.rows("predicted"), classes)

    def per_class(self) -> list[dict[str, Any]]:
        """Returns `label`, `precision`, `recall`, `f1`, `support` (true rows) and `predicted` (rows) per class."""
        return _per_class(self.labels, *self._counts())

    def row_results(self) -> RowResults | None:
        """Returns true and predicted classes; None without the logits of rows."""
        if not self._with_auc:
            return None
        return class_results(self.labels, self.rows("true"), self.rows("predicted"), self.rows("logits"))

    def report(self) -> dict[str, Any]:
        """Returns facts for the model card: `rows`, `labels`, `confusion` or its cells (see `confusion_report`), and
        `per_class`."""
        found = scores.confusion_report(self.rows("true"), self.rows("predicted"), len(self.labels))
        return {"rows": len(self), "labels": self.labels, **found, "per_class": self.per_class()}


class MultiLabelEvaluator(RowCollector, Evaluator):
    """Metrics of several labels per row, from multi-hot `batch["label_id"]` [B, C] and `outputs["logits"]` [B, C].

    A class is predicted where its probability is above the threshold. `micro_f1`, `macro_f1` (mean of the F1 of all
    classes, 0 for a class neither true nor predicted), `mean_auc` (over classes that have rows of both kinds, NaN if
    none), `subset_accuracy` (rows with every class right) and `loss` (mean sigmoid cross entropy).

    Args:
        labels: Names of the classes in id order.
        threshold: Probability above which a class is predicted.
        main_metric: Metric that picks the best checkpoint.
    """

    names = ("micro_f1", "macro_f1", "mean_auc", "subset_accuracy", "loss")

    def __init__(self, labels: Sequence[str], *, threshold: float = 0.5, main_metric: str | None = None) -> None:
        super().__init__()
        self.labels = list(labels)
        self.threshold = threshold
        self.main_metric = choose_metric(main_metric, self.names, "micro_f1")
        self.higher_is_better = higher_is_better(self.main_metric)

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        logits = np.asarray(outputs["logits"], np.float32)
        true = np.asarray(batch["label_id"]) > 0.5
        if logits.shape != true.shape or logits.shape[1:] != (len(self.labels),):
            raise ValueError(f"labels are {true.shape}, logits {logits.shape}, there are {len(self.labels)} classes")
        self.add(true=true, logits=logits)

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats; all NaN when there were no rows."""
        if not len(self):
            return dict.fromkeys(self.names, float("nan"))
        true, logits = self.rows("true"), self.rows("logits").astype(np.float64)
        predicted = self._probabilities > self.threshold
        hits = (true & predicted).sum(axis=0)
        f1 = scores.f1_from_counts(hits, predicted.sum(axis=0), true.sum(axis=0))
        # log(1 + exp(-x)) for true and log(1 + exp(x)) for false entries
        losses = np.logaddexp(0, np.where(true, -logits, logits)).mean(axis=1)
        return {
            "micro_f1": float(scores.f1_from_counts(hits.sum(), predicted.sum(), true.sum())),
            "macro_f1": float(f1.mean()),
            "mean_auc": scores.mean_area_under_roc(true, logits),
            "subset_accuracy": float((true == predicted).all(axis=1).mean()),
            "loss": scores.exact_mean(losses),
        }

    @property
    def _probabilities(self) -> np.ndarray:
        return scores.sigmoid(self.rows("logits"))

    def best_threshold(self) -> tuple[float, float]:
        """Returns the threshold with the highest micro F1 on these rows, and that F1.

        Thresholds lie halfway between neighbouring probabilities, so the choice is exact; the highest wins ties.
        """
        probability, true = self._probabilities.reshape(-1), self.rows("true").reshape(-1)
        order = np.argsort(-probability, kind="stable")
        probability, hits = probability[order], np.cumsum(true[order])
        f1 = scores.f1_from_counts(hits, np.arange(1, len(hits) + 1), true.sum())
        # Entries of equal probability are predicted together: only the last of them is a possible cut.
        following = np.append(probability[1:], 0.0)
        f1[probability == following] = -1.0
        best = int(np.argmax(f1))
        middle = (probability[best] + following[best]) / 2
        return float(middle if middle < probability[best] else following[best]), float(f1[best])

    def per_class(self) -> list[dict[str, Any]]:
        """Returns `label`, `precision`, `recall`, `f1`, `support` (true rows) and `predicted` (rows) per class."""
        true, predicted = self.rows("true"), self._probabilities > self.threshold
        return _per_class(self.labels, (true & predicted).sum(axis=0), predicted.sum(axis=0), true.sum(axis=0))

    def row_results(self) -> RowResults | None:
        """Returns true and predicted classes, and the logits."""
        predicted = self._probabilities > self.threshold
        arrays = {"true": self.rows("true"), "predicted": predicted, "logits": self.rows("logits")}
        return RowResults("multi_label", self.labels, arrays)

    def report(self) -> dict[str, Any]:
        """Returns facts for the model card: `rows`, `labels`, `threshold`, `per_class`."""
        facts = {"rows": len(self), "labels": self.labels, "threshold": self.threshold}
        return {**facts, "per_class": self.per_class()}


def _per_class(labels: list[str], hits: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> list[dict[str, Any]]:
    precision, recall = scores.divide(hits, predicted), scores.divide(hits, true)
    f1 = scores.f1_from_counts(hits, predicted, true)
    columns = zip(labels, precision, recall, f1, true, predicted, strict=True)
    return [
        {
            "label": label,
            "precision": float(p),
            "recall": float(r),
            "f1": float(f),
            "support": int(n),
            "predicted": int(m),
        }
        for label, p, r, f, n, m in columns
    ]
