"""The metric of the TuSimple benchmark: how many points of each lane lie near the true ones (sheet 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Pixels that a point may be off, along the normal of the lane.
PIXELS = 20.0
# Share of a lane's points that must be near for it to be found.
SHARE = 0.85
# Predicted lanes beyond the true ones that are allowed, lanes that count, and milliseconds an image may take.
MORE_LANES, COUNTED_LANES, MOST_MS = 2, 4, 200.0
# Stands for x where a lane is not seen.
_NOWHERE = -100.0


@dataclass(frozen=True)
class ImageScore:
    """What one image is given: accuracy, share of false lanes, share of missed lanes."""

    accuracy: float
    fp: float
    fn: float


def tolerance(true: np.ndarray, rows: np.ndarray) -> float:
    """Returns how far off in x a point of a lane may be: 20 pixels along its normal.

    Args:
        true: x of the lane [rows], negative where it is not seen.
        rows: Their y.
    """
    seen = true >= 0
    if seen.sum() < 2:
        return PIXELS
    y, x = rows[seen] - rows[seen].mean(), true[seen]
    slope = float((y * x).sum() / (y * y).sum())
    return PIXELS / float(np.cos(np.arctan(slope)))


def score_image(
    predicted: Sequence[np.ndarray], true: Sequence[np.ndarray], rows: Sequence[int], run_time: float = 0.0
) -> ImageScore:
    """Returns the score of one image, by the rules of the official script.

    Args:
        predicted: x of each predicted lane in every row [rows], negative where it is not seen.
        true: The same of each true lane.
        rows: y of the rows.
        run_time: Milliseconds that the prediction took.

    Raises:
        ValueError: A lane has not one x for each row.
    """
    wrong = [len(lane) for lane in (*predicted, *true) if len(lane) != len(rows)]
    if wrong:
        raise ValueError(f"a lane has {wrong[0]} numbers for {len(rows)} rows")
    if run_time > MOST_MS or len(predicted) > len(true) + MORE_LANES:
        return ImageScore(0.0, 0.0, 1.0)
    y = np.asarray(rows, np.float64)
    found = np.array([np.where(np.asarray(lane) >= 0, lane, _NOWHERE) for lane in predicted], np.float64)
    best = []
    for lane in (np.asarray(lane, np.float64) for lane in true):
        near = np.abs(found - np.where(lane >= 0, lane, _NOWHERE)) < tolerance(lane, y) if len(found) else found
        best.append(float(near.mean(axis=1).max()) if len(found) else 0.0)
    matched = sum(share >= SHARE for share in best)
    missed, total = len(true) - matched, sum(best)
    if len(true) > COUNTED_LANES:
        missed, total = max(missed - 1, 0), total - min(best)
    counted = max(min(len(true), COUNTED_LANES), 1)
    fp = (len(predicted) - matched) / len(predicted) if len(predicted) else 0.0
    return ImageScore(total / counted, fp, missed / counted)


def f1(fp: float, fn: float) -> float:
    """Returns the harmonic mean of 1 - FP and 1 - FN, 0 where both are 0."""
    precision, recall = 1 - fp, 1 - fn
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
