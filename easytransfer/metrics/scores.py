"""Exact scores on whole arrays, in float64. Each says what it returns where the textbook formula divides by zero."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

# Classes of a confusion matrix that a report holds as a whole, and cells it holds of a larger one.
MOST_IN_MATRIX = 200
MOST_CELLS = 10_000
_ROWS_AT_ONCE = 1024


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns softmax over the last axis in float64."""
    return np.exp(log_softmax(logits))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns log softmax over the last axis in float64, finite for any finite logits."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-logits)) in float64 without overflow."""
    logits = np.asarray(logits, np.float64)
    # exp of a number that is never positive; for positive x, 1 / (1 + exp(-x)) = 1 / (1 + small), else small / (1 +
    # small).
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1, small) / (1 + small)


def exact_mean(values: np.ndarray) -> float:
    """Returns the correctly rounded mean, so it does not depend on the order of rows; NaN for no values."""
    if not np.isfinite(values).all():
        return float(np.mean(values))
    return math.fsum(values) / len(values) if len(values) else math.nan


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Returns counts as int64 [true class, predicted class].

    Raises:
        ValueError: A class id lies outside [0, classes).
    """
    _check_ids(true, predicted, classes)
    return np.bincount(true.astype(np.int64) * classes + predicted, minlength=classes**2).reshape(classes, classes)


def class_counts(true: np.ndarray, predicted: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns by class how often it is predicted rightly, predicted, and true, each int64 [classes].

    They are the diagonal and the sums of the confusion matrix, which itself would not fit for thousands of classes.

    Raises:
        ValueError: A class id lies outside [0, classes).
    """
    _check_ids(true, predicted, classes)
    # Three counts of ids instead of classes squared.
    found = (true[true == predicted], predicted, true)
    hits, predicted, true = (np.bincount(ids, minlength=classes) for ids in found)
    return hits, predicted, true


def confusion_report(true: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, Any]:
    """Returns which classes are taken for which, as plain values for a report that grows with the rows at most.

    Returns:
        `confusion`, the counts [true class, predicted class]; of more than `MOST_IN_MATRIX` classes `confusion_cells`,
        lists of true class, predicted class and count where that is not zero, the most frequent first, and
        `confusion_cells_left_out`, how many there are beyond the `MOST_CELLS` first.
    """
    if classes <= MOST_IN_MATRIX:
        return {"confusion": confusion_matrix(true, predicted, classes).tolist()}
    _check_ids(true, predicted, classes)
    keys, counts = np.unique(true.astype(np.int64) * classes + predicted, return_counts=True)
    return cells_report(np.stack(np.divmod(keys, classes), axis=1), counts, classes)


def cells_report(cells: np.ndarray, counts: np.ndarray, classes: int) -> dict[str, Any]:
    """Returns what `confusion_report` does, from the cells of a confusion matrix that are not zero.

    Args:
        cells: True and predicted class of each, in order, int [cells, 2].
        counts: How often it is there, int [cells].
        classes: Number of classes.
    """
    if classes <= MOST_IN_MATRIX:
        matrix = np.zeros((classes, classes), np.int64)
        matrix[tuple(cells.T)] = counts
        return {"confusion": matrix.tolist()}
    order = np.argsort(-counts, kind="stable")
    shown = np.concatenate([cells, counts[:, None]], axis=1)[order[:MOST_CELLS]]
    return {"confusion_cells": shown.tolist(), "confusion_cells_left_out": len(cells) - len(shown)}


def _check_ids(true: np.ndarray, predicted: np.ndarray, classes: int) -> None:
    for name, ids in (("label", true), ("prediction", predicted)):
        if len(ids) and (ids.min() < 0 or ids.max() >= classes):
            raise ValueError(f"{name} ids go from {ids.min()} to {ids.max()}, there are {classes} classes")


def f1_from_counts(hits: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Returns 2 hits / (predicted + true), 0 where a class is neither predicted nor true."""
    return divide(2 * np.asarray(hits), np.asarray(predicted) + np.asarray(true))


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns the quotient in float64, 0 where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def matthews_correlation(hits: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> float:
    """Returns the multi-class Matthews correlation of `class_counts`, 0 when truth or prediction is constant.

    Reference: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    hits, predicted, true = (counts.astype(np.float64) for counts in (hits, predicted, true))
    total = true.sum()
    # Variances of the two indicator matrices, times total^2 like their covariance in the numerator.
    spread = (total**2 - (predicted**2).sum()) * (total**2 - (true**2).sum())
    return float((hits.sum() * total - true @ predicted) / math.sqrt(spread)) if spread > 0 else 0.0


def area_under_roc(positive: np.ndarray, score: np.ndarray) -> float:
    """Returns the chance that a positive scores above a negative, ties half; NaN when all rows are of one class.

    Args:
        positive: bool [rows].
        score: float [rows].
    """
    positive = np.asarray(positive, bool)
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return math.nan
    score = np.asarray(score)
    if np.isnan(score).any():
        return math.nan
    # Twice Mann-Whitney's U: by positive the negatives below it, and those not above it. In parts, to need less memory.
    chosen, others, above = score[positive], np.sort(score[~positive]), 0
    for part in _parts(positives):
        found = (np.searchsorted(others, chosen[part], side) for side in ("left", "right"))
        above += sum(int(count.sum()) for count in found)
    return above / 2 / (positives * negatives)


def mean_area_under_roc(positive: np.ndarray, score: np.ndarray) -> float:
    """Returns the mean AUC over classes that have rows of both kinds; NaN when there is none.

    Args:
        positive: bool [rows, classes].
        score: float [rows, classes].
    """
    areas = [area_under_roc(positive[:, k], score[:, k]) for k in range(score.shape[1])]
    defined = [area for area in areas if not math.isnan(area)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def one_against_rest_area(true: np.ndarray, logits: np.ndarray) -> float:
    """Returns the mean AUC over classes, each against all others, of the probabilities softmax gives.

    Classes without rows of both kinds are left out; NaN when there is none. Rows are ordered by log(p / (1 - p)), in
    which the logits are summed sorted and less the largest: probabilities that are equal in exact arithmetic, those of
    rows with the same logits in another order or with a constant added, are then ties, and none is rounded to 0 or 1.

    Args:
        true: Class ids, int [rows].
        logits: [rows, classes], exact in float32.
    """
    logits = np.asarray(logits, np.float32)
    largest, rest, odds = logits.max(axis=1, initial=-np.inf), np.empty(len(logits)), np.empty(len(logits))
    for part in _parts(len(logits)):
        rest[part] = np.exp(
            np.sort(np.subtract(logits[part], largest[part, None], dtype=np.float64), axis=1)[:, :-1]
        ).sum(axis=1)
    areas = []
    for k in np.unique(true):
        for part in _parts(len(logits)):
            # p_k / (1 - p_k) = exp(z_k - max) / (sum of the others' exp(z - max)).
            below = np.subtract(logits[part, k], largest[part], dtype=np.float64)
            with np.errstate(divide="ignore"):
                odds[part] = below - np.log(np.where(below == 0, rest[part], rest[part] + 1 - np.exp(below)))
        areas.append(area_under_roc(true == k, odds))
    defined = [area for area in areas if not math.isnan(area)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _parts(rows: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, rows, _ROWS_AT_ONCE))


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the linear correlation; 0 when one side is constant or has one row, NaN if a value is not finite."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return math.nan
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    first, second = first - exact_mean(first), second - exact_mean(second)
    # Scaled before the products, which would otherwise vanish for tiny spreads.
    first, second = first / np.abs(first).max(), second / np.abs(second).max()
    value = math.fsum(first * second) / math.sqrt(math.fsum(first**2) * math.fsum(second**2))
    return min(1.0, max(-1.0, value))


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the rank correlation with mean ranks for ties; 0 when one side is constant."""
    return pearson(_ranks(first), _ranks(second))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns ranks from 1, the mean rank for equal values, NaN where any value is NaN."""
    values = np.asarray(values)
    if np.isnan(values).any():
        return np.full(len(values), np.nan)
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    # Equal values take the ranks last - counts + 1 to last; this is their mean.
    return (last - (counts - 1) / 2)[which]
