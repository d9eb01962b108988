"""Lines drawn into masks with NumPy, as wide and as round at their ends as OpenCV draws them."""

from __future__ import annotations

import numpy as np

# Pixels beyond the radius: OpenCV rounds the border of a line outwards.
_BORDER = 0.5


def drawn(points: np.ndarray, width: int, size: tuple[int, int]) -> np.ndarray:
    """Returns the mask of a line through points: all pixels that are no further than half of the width from it.

    Args:
        points: x and y [points, 2] in pixels; they are rounded to whole ones. A single one makes a dot.
        width: In pixels; w covers w + 1 pixels, or w + 2 where w is odd and above 1, as `cv2.line` does.
        size: Height and width of the mask.

    Returns:
        bool [height, width].
    """
    height, columns = size
    half = (width + width % 2) / 2 + _BORDER if width > 1 else _BORDER
    reach = int(np.ceil(half))
    most = np.array([columns + reach, height + reach])
    places = _dense(np.rint(np.asarray(points, np.float64)), np.full(2, -reach), most)
    # Rows around each place, and how far the disc around it goes to both sides there.
    rows = np.floor(places[:, 1])[:, None].astype(np.int64) + np.arange(-reach, reach + 2)
    off = rows - places[:, 1:]
    inside = (np.abs(off) <= half) & (rows >= 0) & (rows < height)
    aside = np.sqrt(np.maximum(half**2 - off**2, 0))
    left = np.ceil(places[:, :1] - aside).astype(np.int64)
    right = np.floor(places[:, :1] + aside).astype(np.int64) + 1
    inside &= (right > 0) & (left < columns) & (left < right)
    mask = np.zeros(size, bool)
    if not inside.any():
        return mask
    # Beginnings less ends of runs of pixels, added up along the rows of the box around the line.
    rows, left, right = rows[inside], np.maximum(left[inside], 0), np.minimum(right[inside], columns)
    top, low, first, last = rows.min(), rows.max() + 1, left.min(), right.max()
    steps = np.zeros((low - top, last - first + 1), np.int16)
    np.add.at(steps, (rows - top, left - first), 1)
    np.add.at(steps, (rows - top, right - first), -1)
    mask[top:low, first:last] = np.cumsum(steps, axis=1, dtype=np.int16)[:, :-1] > 0
    return mask


def _dense(points: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Returns places on the line through points, at most a pixel apart: the first one, and those inside of a box.

    Args:
        points: Whole numbers [points, 2], however far away.
        least: Smallest x and y of the box.
        most: Largest ones.
    """
    start, move = points[:-1], np.diff(points, axis=0)
    count = np.abs(move).max(axis=1, initial=0)
    # The shares of each piece at which it enters and leaves the box.
    with np.errstate(divide="ignore", invalid="ignore"):
        borders = np.stack([(least - start) / move, (most - start) / move])
    still = move == 0
    enter = np.where(still, -np.inf, borders.min(axis=0)).max(axis=1, initial=-np.inf)
    leave = np.where(still, np.inf, borders.max(axis=0)).min(axis=1, initial=np.inf)
    outside = (still & ((start < least) | (start > most))).any(axis=1) | (enter > leave) | (enter > 1) | (leave < 0)
    first, last = np.ceil(np.clip(enter, 0, 1) * count), np.floor(np.clip(leave, 0, 1) * count)
    number = np.where(outside, 0, last - first + 1).astype(np.int64)
    piece = np.repeat(np.arange(len(number)), number)
    step = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number) + first[piece]
    inside = start[piece] + move[piece] * (step / np.maximum(count[piece], 1))[:, None]
    return np.concatenate([points[:1], inside])
