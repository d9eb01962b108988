"""Accuracy and consistency of judgements of sentences, by the rules of NLVR and NLVR2.

Suhr et al. 2017, "A Corpus of Natural Language for Visual Reasoning", and Suhr et al. 2019, "A Corpus for Reasoning
About Natural Language Grounded in Photographs", arXiv 1811.00491; lil-lab/nlvr, nlvr2/eval/metrics.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from easytransfer.metrics.evaluator import Evaluator

# Which part of an identifier numbers the images, by how many parts there are: `split-set-pair-sentence` of NLVR2,
# `sentence-images` of NLVR.
_IMAGE_PART = {4: 2, 2: 1}


def sentence_of(identifier: str) -> str:
    """Returns what rows of one sentence share: the identifier without the part that numbers the images.

    Raises:
        ValueError: It is neither `split-set-pair-sentence` nor `sentence-images`.
    """
    parts = identifier.split("-")
    if len(parts) not in _IMAGE_PART or not all(parts):
        raise ValueError(f"wrong identifier: {identifier!r} is neither split-set-pair-sentence nor sentence-images")
    parts[_IMAGE_PART[len(parts)]] = ""
    return "-".join(parts)


def nlvr_scores(labels: Mapping[str, str], predictions: Mapping[str, str]) -> dict[str, float]:
    """Returns the official metrics of a file of predictions.

    Args:
        labels: The right one by identifier, whatever its case.
        predictions: The predicted one by identifier; one that is missing is an error.

    Returns:
        `accuracy`, the share of rows that are right, and `consistency`, the share of sentences right in all their rows.

    Raises:
        ValueError: An identifier has another form.
    """
    evaluator = NlvrEvaluator(("false", "true"))
    for identifier, label in labels.items():
        evaluator.add(sentence_of(identifier), predictions.get(identifier, "").lower() == label.lower())
    return evaluator.result()


class NlvrEvaluator(Evaluator):
    """`accuracy`, and `consistency` where rows have identifiers.

    Read are `batch["label_id"]` [batch], `batch["sentence"]`, texts or None (see `sentence_of`), and
    `outputs["logits"]` [batch, 2].

    Args:
        labels: Names of the two classes.
    """

    main_metric = "accuracy"

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)
        self._right = self._rows = 0
        self._confusion = np.zeros((len(self.labels),) * 2, np.int64)
        # Whether all rows of a sentence were right so far.
        self._consistent: dict[str, bool] = {}

    def add(self, sentence: str | None, right: bool) -> None:
        """Adds one row."""
        self._rows += 1
        self._right += bool(right)
        if sentence is not None:
            self._consistent[sentence] = self._consistent.get(sentence, True) and bool(right)

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        true, found = np.asarray(batch["label_id"]).reshape(-1), np.asarray(outputs["logits"]).argmax(axis=-1)
        np.add.at(self._confusion, (true, found), 1)
        for sentence, right in zip(batch["sentence"], (true == found).tolist(), strict=True):
            self.add(sentence, right)

    def state(self) -> Any:
        """Returns what was counted."""
        return self._right, self._rows, self._confusion, self._consistent

    def merge(self, state: Any) -> None:
        """Adds what another evaluator has counted; a sentence may have rows in both."""
        right, rows, confusion, consistent = state
        self._right, self._rows, self._confusion = self._right + right, self._rows + rows, self._confusion + confusion
        for sentence, whole in consistent.items():
            self._consistent[sentence] = self._consistent.get(sentence, True) and whole

    def result(self) -> dict[str, float]:
        """Returns the metrics; NaN when there were no rows."""
        found = {"accuracy": self._right / self._rows if self._rows else math.nan}
        if self._consistent or not self._rows:
            whole = sum(self._consistent.values())
            found["consistency"] = whole / len(self._consistent) if self._consistent else math.nan
        return found

    def report(self) -> dict[str, Any]:
        """Returns rows, labels, the confusion matrix [true, predicted] and how many sentences there are."""
        facts = {"rows": self._rows, "labels": self.labels, "confusion": self._confusion.tolist()}
        return {**facts, "sentences": len(self._consistent)}
