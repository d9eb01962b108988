"""Retrieval of the matching text among all candidates, by cosine: recall at k and mean reciprocal rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from easytransfer.metrics.scores import exact_mean

RANKS = (1, 5, 10)
# Scores closer than this are ties: float64 sums of float32 vectors differ by less when the order of rows changes.
_TIE = 1e-9
# Scores in memory at a time.
_BLOCK_SCORES = 1 << 23


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Returns the rows scaled to length 1 in float64; a zero row stays zero."""
    vectors = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def pair_ranks(first: np.ndarray, second: np.ndarray, first_ids: np.ndarray, second_ids: np.ndarray) -> np.ndarray:
    """Returns the rank of each pair's second text among all second texts, by cosine with its first text.

    A text that occurs several times is one candidate. A candidate does not count against a first text when another
    pair matches the two, or when it is that very text. Equal scores count against, so that a model that gives every
    text the same vector finds nothing.

    Args:
        first: Vectors of first texts, [pairs, size].
        second: Vectors of second texts, [pairs, size].
        first_ids: What identifies the first texts, [pairs].
        second_ids: What identifies the second texts, [pairs]; equal ids mean equal texts, across both sides.

    Returns:
        Ranks from 1, int64 [pairs].
    """
    ids, places, own = np.unique(second_ids, return_index=True, return_inverse=True)
    candidates, queries = unit_rows(second[places]), unit_rows(first)
    neutral = _neutral_candidates(first_ids, own, ids)
    ranks = np.zeros(len(first), np.int64)
    size = max(1, _BLOCK_SCORES // max(len(ids), 1))
    for start in range(0, len(first), size):
        rows = slice(start, start + size)
        scores = queries[rows] @ candidates.T
        bar = scores[np.arange(len(scores)), own[rows]] - _TIE
        for row, text in enumerate(first_ids[rows].tolist()):
            scores[row, neutral[text]] = -np.inf
        ranks[rows] = 1 + (scores >= bar[:, None]).sum(axis=1)
    return ranks


def _neutral_candidates(first_ids: np.ndarray, own: np.ndarray, ids: np.ndarray) -> dict[int, list[int]]:
    """Returns, for each first text, the candidates that are no mistake: its matches and itself."""
    neutral: dict[int, set[int]] = {}
    for text, candidate in zip(first_ids.tolist(), own.tolist(), strict=True):
        neutral.setdefault(text, set()).add(candidate)
    for candidate, text in enumerate(ids.tolist()):
        if text in neutral:
            neutral[text].add(candidate)
    return {text: sorted(found) for text, found in neutral.items()}


def retrieval_metrics(ranks: np.ndarray, at: Sequence[int] = RANKS) -> dict[str, float]:
    """Returns `recall_at_<k>` (share of ranks up to k) and `mrr` (mean of 1 / rank); NaN without ranks.

    Args:
        ranks: Ranks from 1, [pairs].
        at: The values of k.
    """
    if not len(ranks):
        return dict.fromkeys([*(f"recall_at_{k}" for k in at), "mrr"], float("nan"))
    recall = {f"recall_at_{k}": float(np.mean(ranks <= k)) for k in at}
    return {**recall, "mrr": exact_mean(1.0 / ranks)}
