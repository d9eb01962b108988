"""Evaluators of text pairs: a classification whose scores are drawn, and pairs of vectors that are also retrieved."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from easytransfer.data.encoded import Ragged
from easytransfer.metrics import scores
from easytransfer.metrics.classification import ClassificationEvaluator
from easytransfer.metrics.collector import RowCollector
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.names import choose_metric, higher_is_better
from easytransfer.metrics.retrieval import RANKS, pair_ranks, retrieval_metrics
from easytransfer.metrics.row_results import RowResults, class_results

_BINS = 40


class MatchEvaluator(ClassificationEvaluator):
    """Classification metrics; for two classes the report also holds `scores`, a histogram per class."""

    def report(self) -> dict[str, Any]:
        """Returns facts for the model card, `scores` (see `score_histogram`) among them for two classes."""
        if len(self.labels) != 2:
            return super().report()
        score = scores.softmax(self.rows("logits"))[:, 1]
        name = f"probability of {self.labels[1]}"
        drawn = score_histogram(score, self.rows("true") == 1, self.labels, name=name, threshold=0.5, limits=(0, 1))
        return {**super().report(), "scores": drawn}


class TwoTowerEvaluator(Evaluator):
    """Metrics of pairs of vectors: is it a match, and is the match found among all second texts.

    Those of `ClassificationEvaluator` for two classes except `loss` (the training loss depends on the batch), with the
    prediction cosine > threshold and `auc` of the cosine; `best_threshold`, the threshold of highest accuracy on these
    rows, and `best_accuracy`, that accuracy; `recall_at_1`, `recall_at_5`, `recall_at_10` and `mrr` of finding the
    second text of each matching pair among those of all matching pairs (`retrieval.pair_ranks`), NaN without any.

    Args:
        labels: Names of the two classes, the match second.
        threshold: Cosine above which a match is predicted.
        main_metric: Metric that picks the best checkpoint.
    """

    def __init__(self, labels: Sequence[str], *, threshold: float = 0.5, main_metric: str | None = None) -> None:
        self.threshold = threshold
        self._pairs, self._matches = ClassificationEvaluator(labels), RowCollector()
        retrieval = (*(f"recall_at_{k}" for k in RANKS), "mrr")
        of_pairs = (name for name in self._pairs.names if name != "loss")
        self.names = (*of_pairs, "best_accuracy", "best_threshold", *retrieval)
        self.main_metric = choose_metric(main_metric, self.names, "accuracy")
        self.higher_is_better = higher_is_better(self.main_metric)

    def __len__(self) -> int:
        return len(self._pairs)

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows.

        Args:
            batch: `label_id` (1 = match) [batch]; `input_ids` and `input_ids_b`, `Ragged` or padded with 0.
            outputs: `logits` (the cosine) [batch], `vector_a` and `vector_b` [batch, size].
        """
        cosine = np.asarray(outputs["logits"], np.float32).reshape(-1)
        # Two logits of which the second wins exactly where cosine > threshold, and whose difference orders the rows.
        self._pairs.update(batch, {"logits": np.stack([np.full_like(cosine, self.threshold), cosine], axis=1)})
        match = np.asarray(batch["label_id"]).reshape(-1) == 1
        self._matches.add(
            first=np.asarray(outputs["vector_a"], np.float32)[match],
            second=np.asarray(outputs["vector_b"], np.float32)[match],
            first_ids=text_ids(batch["input_ids"], match),
            second_ids=text_ids(batch["input_ids_b"], match),
        )

    def decide_by(self, threshold: float) -> None:
        """Measures the same rows with another threshold."""
        true, cosine = self._pairs.rows("true"), self._cosine()
        self.threshold, self._pairs = threshold, ClassificationEvaluator(self._pairs.labels)
        self._pairs.update({"label_id": true}, {"logits": np.stack([np.full_like(cosine, threshold), cosine], axis=1)})

    def state(self) -> Any:
        """Returns the rows of pairs and of matches."""
        return self._pairs.state(), self._matches.state()

    def merge(self, state: Any) -> None:
        """Adds rows of another evaluator."""
        self._pairs.merge(state[0])
        self._matches.merge(state[1])

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats; all NaN when there were no rows."""
        if not len(self):
            return dict.fromkeys(self.names, float("nan"))
        threshold, accuracy = best_threshold(self._cosine(), self._pairs.rows("true") == 1)
        ranks = pair_ranks(*(self._matches.rows(name) for name in ("first", "second", "first_ids", "second_ids")))
        found = self._pairs.result() | {"best_accuracy": accuracy, "best_threshold": threshold}
        found |= retrieval_metrics(ranks)
        return {name: found[name] for name in self.names}

    def row_results(self) -> RowResults | None:
        """Returns true and predicted classes of the pairs; a cosine is no probability."""
        pairs = self._pairs
        columns = (pairs.rows(name) for name in ("true", "predicted", "logits"))
        return class_results(pairs.labels, *columns, probabilities=False)

    def report(self) -> dict[str, Any]:
        """Returns facts for the model card: those of the pairs, and `scores` (see `score_histogram`)."""
        match, labels = self._pairs.rows("true") == 1, self._pairs.labels
        limits = (-1, 1)
        drawn = score_histogram(self._cosine(), match, labels, name="cosine", threshold=self.threshold, limits=limits)
        return {**self._pairs.report(), "scores": drawn}

    def _cosine(self) -> np.ndarray:
        return self._pairs.rows("logits")[:, 1]


def text_ids(tokens: Ragged | np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns a 64-bit hash of the tokens of each chosen row, int64 [chosen]: equal for equal texts.

    Args:
        tokens: Token ids, `Ragged` or padded with 0, [rows, tokens].
        rows: Which rows, bool [rows].
    """
    texts = (np.trim_zeros(np.asarray(tokens[row], np.int64), "b") for row in np.flatnonzero(rows))
    digests = [hashlib.blake2b(text.tobytes(), digest_size=8).digest() for text in texts]
    return np.frombuffer(b"".join(digests), np.int64)


def best_threshold(score: np.ndarray, match: np.ndarray) -> tuple[float, float]:
    """Returns the threshold with the highest accuracy of `score > threshold`, and that accuracy.

    Thresholds lie half-way between neighbouring scores, or a little outside all of them; the lowest of the best wins.

    Args:
        score: [rows], at least one.
        match: bool [rows].
    """
    order = np.argsort(score, kind="stable")
    ordered, hits = np.asarray(score, np.float64)[order], match[order]
    # right[k]: rows that are right when the k lowest scores are predicted to be no match.
    right = np.concatenate([[0], np.cumsum(~hits)]) + np.concatenate([np.cumsum(hits[::-1])[::-1], [0]])
    outside = 1e-3
    bounds = np.concatenate([[ordered[0] - outside], ordered, [ordered[-1] + outside]])
    possible = np.concatenate([[True], np.diff(ordered) > 0, [True]])
    best = int(np.argmax(np.where(possible, right, -1)))
    inner = (bounds[best] + bounds[best + 1]) / 2
    return float(inner), float(right[best] / len(ordered))


def score_histogram(
    score: np.ndarray,
    match: np.ndarray,
    labels: Sequence[str],
    *,
    name: str,
    threshold: float,
    limits: tuple[float, float],
) -> dict[str, Any]:
    """Returns how the scores of both classes are distributed, as plain values for a report.

    Args:
        score: [rows].
        match: Whether a row is of the second class, bool [rows].
        labels: Names of the two classes.
        name: What the score is.
        threshold: Score above which the second class is predicted.
        limits: Lowest and highest possible score; what rounding puts outside is counted at the border.

    Returns:
        `name`, `threshold`, `edges` [bins + 1], and `counts`, the rows per bin by class name.
    """
    edges = np.linspace(*limits, _BINS + 1)
    inside = np.clip(score, *limits)
    counts = [np.histogram(inside[rows], edges)[0].tolist() for rows in (~match, match)]
    return {
        "name": name,
        "threshold": threshold,
        "edges": edges.tolist(),
        "counts": dict(zip(labels, counts, strict=True)),
    }
