"""Share of expressions whose region is found: intersection over union above one half.

Mao et al. 2016, arXiv 1511.02283; Yu et al. 2016 (RefCOCO, RefCOCO+), arXiv 1608.00272. Boxes are x, y, width, height
in pixels, both ends inclusive: a box from x has its last column at x + width - 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from easytransfer.metrics.evaluator import Evaluator

# A region is found when it overlaps more than this.
ENOUGH = 0.5


def overlaps(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of boxes with one box, float64 [boxes].

    Args:
        boxes: x, y, width, height in pixels, [boxes, 4].
        box: The same, [4].
    """
    boxes, box = np.asarray(boxes, np.float64), np.asarray(box, np.float64)
    first = np.maximum(boxes[:, :2], box[:2])
    last = np.minimum(boxes[:, :2] + boxes[:, 2:] - 1, box[:2] + box[2:] - 1)
    both = np.maximum(last - first + 1, 0).prod(axis=1)
    either = boxes[:, 2:].prod(axis=1) + box[2:].prod() - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def area_overlaps(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of boxes without pixels with one box, float64 [boxes].

    Args:
        boxes: x1, y1, x2, y2, [boxes, 4].
        box: The same, [4].
    """
    both = np.maximum(np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), 0).prod(axis=1)
    either = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


class ReferringEvaluator(Evaluator):
    """`accuracy`, the share of expressions whose predicted region overlaps the right box by more than one half.

    Read are `batch["region_overlaps"]`, lists with the intersection over union of each region of a row, and
    `outputs["region_logits"]` [batch, regions], of which only those of real regions count.
    """

    main_metric = "accuracy"

    def __init__(self) -> None:
        self._counts = np.zeros(3, np.int64)

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        for found, logits in zip(batch["region_overlaps"], outputs["region_logits"], strict=True):
            chosen = int(np.argmax(logits[: len(found)]))
            self._counts += [1, found[chosen] > ENOUGH, max(found) > ENOUGH]

    def state(self) -> np.ndarray:
        """Returns rows, rows that are right, and rows that have a region that would be right."""
        return self._counts

    def merge(self, state: np.ndarray) -> None:
        """Adds those of another evaluator."""
        self._counts = self._counts + state

    def result(self) -> dict[str, float]:
        """Returns the accuracy, and `reachable`, that of always choosing the best region; NaN without rows."""
        rows, right, reachable = (float(count) for count in self._counts)
        rows = rows or float("nan")
        return {"accuracy": right / rows, "reachable": reachable / rows}

    def report(self) -> dict[str, Any]:
        """Returns how many expressions there are, and how many have no region near the right box."""
        rows, _, reachable = self._counts.tolist()
        return {"rows": rows, "unreachable": rows - reachable}
