"""Metrics of matching: a classification, ranks within candidate lists, and recall among all texts and images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from easytransfer.metrics import scores
from easytransfer.metrics.classification import ClassificationEvaluator
from easytransfer.metrics.collector import RowCollector
from easytransfer.run.log import warn_once

LIST_RANKS = (1, 5, 10, 100)
GALLERY_RANKS = (1, 5, 10)


class MatchEvaluator(ClassificationEvaluator):
    """Metrics of two classes, the match second; with candidate lists also ranks.

    `rank_at_<k>`, k = 1, 5, 10, 100: the share of lists whose match is among the first k by score; NaN without a list.
    Equal scores keep the order of the table, which the report counts as `tied_lists`: a list whose match stands first
    in the table gains by them. Lists that have not one match and another row are left out and counted.

    Args:
        labels: Names of the two classes.
        listed: Whether rows belong to candidate lists: the batch then has `list_id` and `row_number` int64 [batch].
    """

    def __init__(self, labels: Sequence[str], *, listed: bool) -> None:
        super().__init__(labels)
        self._lists = RowCollector() if listed else None
        if listed:
            self.names = (*self.names, *(f"rank_at_{k}" for k in LIST_RANKS))

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        super().update(batch, outputs)
        if self._lists is not None:
            logits = np.asarray(outputs["logits"], np.float32)
            self._lists.add(
                list=np.asarray(batch["list_id"], np.int64),
                row=np.asarray(batch["row_number"], np.int64),
                match=np.asarray(batch["label_id"]).reshape(-1) == 1,
                score=logits[:, 1] - logits[:, 0],
            )

    def state(self) -> Any:
        """Returns what was collected of rows, and of lists."""
        return super().state(), None if self._lists is None else self._lists.state()

    def merge(self, state: Any) -> None:
        """Adds rows of another evaluator."""
        super().merge(state[0])
        if self._lists is not None:
            self._lists.merge(state[1])

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats; all NaN when there were no rows."""
        if self._lists is None or not len(self):
            return super().result()
        names, self.names = self.names, tuple(name for name in self.names if not name.startswith("rank_at_"))
        try:
            found = super().result()
        finally:
            self.names = names
        ranks, left_out, _ = self._ranks()
        if left_out:
            warn_once(f"{left_out} candidate lists are left out of rank_at_k: a list has one match and other rows")
        return found | {f"rank_at_{k}": float(np.mean(ranks <= k)) if len(ranks) else float("nan") for k in LIST_RANKS}

    def report(self) -> dict[str, Any]:
        """Returns facts for the model card; of lists how many there are, are left out, and have ties."""
        if self._lists is None or not len(self):
            return super().report()
        ranks, left_out, tied = self._ranks()
        counts = {"lists": len(ranks), "lists_left_out": left_out, "tied_lists": tied}
        return {**super().report(), "candidate_lists": counts}

    def _ranks(self) -> tuple[np.ndarray, int, int]:
        return list_ranks(*(self._lists.rows(name) for name in ("list", "row", "match", "score")))


def list_ranks(
    lists: np.ndarray, rows: np.ndarray, match: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, int, int]:
    """Ranks the match of every candidate list by score; of equal scores the earlier row comes first.

    Args:
        lists: The list of each row, int [rows].
        rows: Place of each row in the table, int [rows].
        match: Whether it is the match, bool [rows].
        score: [rows].

    Returns:
        The rank of the match of every list, from 1, int64 [lists]; how many lists were left out, since they have not
        one match and another row; and in how many another row has the score of the match.
    """
    order = np.lexsort((rows, -score, lists))
    lists, match, score = lists[order], match[order], score[order]
    begins = np.flatnonzero(np.diff(lists, prepend=lists[:1] - 1)) if len(lists) else np.zeros(0, np.int64)
    sizes = np.diff(np.append(begins, len(lists)))
    matches = np.add.reduceat(match.astype(np.int64), begins) if len(begins) else sizes
    usable = (matches == 1) & (sizes > 1)
    of_list = np.repeat(np.arange(len(begins)), sizes)
    places = np.flatnonzero(match & usable[of_list])
    ranks = places - begins[of_list[places]] + 1
    own = np.full(len(begins), np.nan)
    own[of_list[places]] = score[places]
    equal = np.bincount(of_list, weights=score == own[of_list], minlength=len(begins))
    return ranks, int((~usable).sum()), int((equal > 1).sum())


def gallery_recall(score: np.ndarray, relevant: np.ndarray, at: Sequence[int] = GALLERY_RANKS) -> dict[str, float]:
    """Returns recall at k of images for texts, and of texts for images; of equal scores the lower place comes first.

    Args:
        score: float32 [texts, images].
        relevant: Whether a text and an image match, bool [texts, images].
        at: The values of k.

    Returns:
        `image_recall_at_<k>`, the share of texts that have one of their images among the first k of all; and
        `text_recall_at_<k>`, the share of images with one of their texts. Texts and images without a match are left
        out; NaN where none is left.
    """
    found = {}
    for name, values, right in (("image", score, relevant), ("text", score.T, relevant.T)):
        order = np.argsort(-values, axis=1, kind="stable")
        hits = np.take_along_axis(right, order, axis=1)
        asked = hits.any(axis=1)
        first = hits[asked].argmax(axis=1)
        for k in at:
            found[f"{name}_recall_at_{k}"] = scores.exact_mean((first < k).astype(np.float64))
    return found
