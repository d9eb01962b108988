"""The metric of the CULane benchmark: drawn lanes that overlap by more than half are found (sheet 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import linear_sum_assignment

from appzoo.lane_detection.drawing import drawn

# Overlap from which a lane is found, as intersection over union; more than this.
LEAST_IOU = 0.5
# Points on each piece of a spline.
_SAMPLES = 50


@dataclass(frozen=True)
class Counts:
    """Lanes that were found, that were invented, that were missed."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """Share of the predicted lanes that are true, 0 without any."""
        return self.tp / (self.tp + self.fp) if self.tp else 0.0

    @property
    def recall(self) -> float:
        """Share of the true lanes that were found, 0 without any."""
        return self.tp / (self.tp + self.fn) if self.tp else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both, 0 where nothing was found."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.tp else 0.0


def smoothed(lane: np.ndarray) -> np.ndarray:
    """Returns points close together on a lane: a natural cubic spline over the length of its chords.

    Args:
        lane: x and y [points, 2] in pixels; two points make a straight line. Equal neighbours count once.

    Returns:
        float32 [points, 2].
    """
    lane = np.asarray(lane, np.float32)
    lane = lane[np.concatenate([[True], (np.diff(lane, axis=0) != 0).any(axis=1)])]
    if len(lane) <= 2:
        return lane
    chords = np.hypot(*np.diff(lane.astype(np.float64), axis=0).T)
    at = np.concatenate([[0.0], np.cumsum(chords)])
    spline = CubicSpline(at, lane.astype(np.float64), bc_type="natural")
    places = at[:-1, None] + chords[:, None] * (np.arange(_SAMPLES) / _SAMPLES)
    return np.concatenate([spline(places.ravel()).astype(np.float32), lane[-1:]])


def overlaps(
    predicted: Sequence[np.ndarray], true: Sequence[np.ndarray], size: tuple[int, int], width: int
) -> np.ndarray:
    """Returns intersection over union of drawn lanes, float64 [true, predicted].

    Args:
        predicted: Points [points, 2] of each lane; one of fewer than two overlaps with nothing.
        true: The same.
        size: Height and width of the image.
        width: Lanes are drawn with, in pixels.
    """
    ours, theirs = (
        [drawn(smoothed(lane), width, size) if len(lane) > 1 else np.zeros(size, bool) for lane in each]
        for each in (true, predicted)
    )
    common = np.array([[np.count_nonzero(one & other) for other in theirs] for one in ours], np.float64)
    sizes = [np.array([np.count_nonzero(mask) for mask in each]) for each in (ours, theirs)]
    union = sizes[0][:, None] + sizes[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def count_image(
    predicted: Sequence[np.ndarray], true: Sequence[np.ndarray], size: tuple[int, int], width: int
) -> Counts:
    """Returns the counts of one image; lanes are matched one to one so that their overlaps are largest together.

    Args:
        predicted: Points of each lane in pixels.
        true: The same.
        size: Height and width of the image.
        width: Lanes are drawn with: 30 in images of 590 x 1640.
    """
    if not len(predicted) or not len(true):
        return Counts(fp=len(predicted), fn=len(true))
    shared = overlaps(predicted, true, size, width)
    tp = int((shared[linear_sum_assignment(shared, maximize=True)] > LEAST_IOU).sum())
    return Counts(tp, len(predicted) - tp, len(true) - tp)
