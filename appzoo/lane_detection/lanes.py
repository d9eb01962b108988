"""Lanes as points: their order, their slots, masks made of them, and points found in masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from appzoo.lane_detection.drawing import drawn

# A lane: x and y of its points in pixels, from the top [points, 2].
Lane = np.ndarray
# Marks a row where a lane is not seen.
ABSENT = -2.0
# Degrees of a lane that goes straight up; those of lanes left of the vehicle are smaller.
_UPRIGHT = 90.0


def from_top(points: np.ndarray) -> Lane:
    """Returns points in the order of their rows; of equal ones as they were."""
    return points[np.argsort(points[:, 1], kind="stable")]


def angle(lane: Lane) -> float:
    """Returns the angle between a lane and the horizontal, in degrees, from its lowest point; flat ones left are 0."""
    (top_x, top_y), (low_x, low_y) = lane[0], lane[-1]
    return float(np.degrees(np.arctan2(low_y - top_y, top_x - low_x)))


def assigned(lanes: Sequence[Lane], slots: int) -> list[int]:
    """Returns the slot of each lane from 1, 0 for those that have none, by the rule of the TuSimple masks.

    Lanes are ordered by their angle. The last one of at most 90 degrees is the first left of the vehicle, slot n / 2,
    those before it are further left; the first one of more is slot n / 2 + 1, those behind it are further right. Lanes
    beyond the outermost slots have none.

    Args:
        lanes: Of at least two points each.
        slots: n, even.
    """
    angles = np.array([angle(lane) for lane in lanes])
    order = np.argsort(angles, kind="stable")
    left = int((angles <= _UPRIGHT).sum())
    found = [0] * len(lanes)
    for place, lane in enumerate(order):
        slot = slots // 2 - left + place + 1
        found[lane] = slot if 1 <= slot <= slots else 0
    return found


def slot_mask(lanes: Sequence[Lane], slots: Sequence[int], width: int, size: tuple[int, int]) -> np.ndarray:
    """Returns the mask of lanes: the slot where one is drawn, 0 elsewhere; of two the one with the higher slot.

    Args:
        lanes: Their points.
        slots: Of each lane, 0 for one that is not drawn.
        width: Of the lines in pixels.
        size: Height and width of the mask.

    Returns:
        uint8 [height, width].
    """
    mask = np.zeros(size, np.uint8)
    for slot, lane in sorted(zip(slots, lanes, strict=True), key=lambda pair: pair[0]):
        if slot:
            mask[drawn(lane, width, size)] = slot
    return mask


def sampled(lane: Lane, rows: Sequence[int]) -> np.ndarray:
    """Returns x of a lane in rows, float64 [rows], linear between its points and `ABSENT` beyond them."""
    found = np.interp(rows, lane[:, 1], lane[:, 0])
    inside = (np.asarray(rows) >= lane[0, 1]) & (np.asarray(rows) <= lane[-1, 1])
    return np.where(inside, found, ABSENT)


def centre_line(inside: np.ndarray, step: int, scale: tuple[float, float]) -> Lane:
    """Returns the middle of a lane in a mask, in every so many of its rows; no point where it has none.

    Args:
        inside: Where the lane is, bool [height, width].
        step: Rows of the mask from one point to the next.
        scale: What a row and a column of the mask are in pixels of the image.
    """
    counts = inside.sum(axis=1)
    rows = np.flatnonzero(counts)
    rows = rows[::-step][::-1]
    x = (inside[rows] @ np.arange(inside.shape[1])) / counts[rows]
    return np.stack([(x + 0.5) * scale[1] - 0.5, (rows + 0.5) * scale[0] - 0.5], axis=1)
