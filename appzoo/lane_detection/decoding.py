"""Lanes read off probability maps, inside a graph, by the rules of the two benchmarks (sheet 6).

A map is blurred; in some rows the most probable column of each lane is taken where it is probable enough.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from appzoo.lane_detection.config import LaneSettings
from appzoo.lane_detection.lanes import ABSENT
from easytransfer.image.size import height_width

BLUR = 9
# Lanes of fewer points are none.
LEAST_POINTS = 2
# Existence from which a lane is read off, by the rule of CULane.
_EXISTS = 0.5
# Probabilities are compared in steps of 1 / 65,536: on a flat top the first column is taken, and not the one that the
# last bits favour, which differ from machine to machine. Rounded to the nearest: the top of a sure lane is 1, a step.
_STEPS = 2.0**16


def map_rows(settings: LaneSettings) -> list[int]:
    """Returns the row of the maps for each of `settings.rows`; the arithmetic is that of the released code."""
    height, kept = height_width(settings.image_size)[0], settings.kept_height
    if settings.benchmark == "culane":
        found = [round(height - i * settings.row_step / kept * height) - 1 for i in range(settings.row_count)]
    else:
        found = [int((kept - (i + 1) * settings.row_step) * height / kept) for i in range(settings.row_count)]
    return [max(row, 0) for row in reversed(found)]


def column_places(settings: LaneSettings) -> np.ndarray:
    """Returns x in the original image for each column of the maps, float32; the arithmetic is that of the code."""
    width, original = height_width(settings.image_size)[1], height_width(settings.original_size)[1]
    if settings.benchmark == "culane":
        return np.array([round((column + 1) * original / width - 1) for column in range(width)], np.float32)
    return np.array([int(column / width * original) for column in range(width)], np.float32)


def blurred(maps: tf.Tensor) -> tf.Tensor:
    """Returns the mean over 9 x 9 pixels around each one; the border goes on as it is.

    Args:
        maps: float32 [batch, height, width, lanes].
    """
    reach = BLUR // 2
    for axis in (1, 2):
        first, last = (maps[:, :1], maps[:, -1:]) if axis == 1 else (maps[:, :, :1], maps[:, :, -1:])
        maps = tf.concat([first] * reach + [maps] + [last] * reach, axis)
    return tf.nn.avg_pool2d(maps, BLUR, 1, "VALID")


def read_off(logits: tf.Tensor, exist_logits: tf.Tensor, settings: LaneSettings) -> dict[str, tf.Tensor]:
    """Returns the lanes of maps.

    Args:
        logits: [batch, height, width, slots + 1].
        exist_logits: [batch, slots].
        settings: Sizes and rule.

    Returns:
        `lane_x` float32 [batch, slots, rows], x in pixels of the original image in the rows of `settings.rows`,
        `ABSENT` where there is no lane; `row_score`, the largest probability of each row, of the same shape; `exist`,
        probabilities [batch, slots].
    """
    lines = tf.gather(blurred(tf.nn.softmax(logits)[..., 1:]), map_rows(settings), axis=1)
    lines = tf.transpose(lines, [0, 3, 1, 2])
    score, exist = tf.reduce_max(lines, -1), tf.sigmoid(exist_logits)
    x = tf.gather(column_places(settings), tf.argmax(tf.round(lines * _STEPS), -1))
    seen = score > settings.least_probability
    if settings.benchmark == "culane":
        seen &= (exist > _EXISTS)[..., None]
    else:
        seen &= x > 0
    seen &= tf.reduce_sum(tf.cast(seen, tf.int32), -1, keepdims=True) >= LEAST_POINTS
    return {"lane_x": tf.where(seen, x, ABSENT), "row_score": score, "exist": exist}


def faint_lanes(settings: LaneSettings) -> str | None:
    """Returns what to tell where lanes are too thin to be read off; None where they are not.

    The mean over 9 pixels leaves of a sure, upright lane its width divided by 9, which must exceed the threshold.
    """
    width = settings.line_width * height_width(settings.image_size)[1] / height_width(settings.original_size)[1]
    most, least = min(width / BLUR, 1.0), settings.least_probability
    if most > least:
        return None
    return (
        f"lanes of model.line_width={settings.line_width} are {width:.1f} pixels wide in model.image_size: the mean of "
        f"{BLUR} pixels leaves {most:.2f} of the surest, and model.threshold={least} finds none of them; give a larger "
        f"image_size or line_width, or a threshold below {most:.2f}"
    )


def without_gaps(lane_x: np.ndarray) -> np.ndarray:
    """Returns lanes whose gaps are filled linearly, cut to whole pixels, by the rule of TuSimple.

    Args:
        lane_x: float32 [..., rows], `ABSENT` where a lane is not seen; before its first and behind its last point it
            stays so.
    """
    found = lane_x.reshape(-1, lane_x.shape[-1]).astype(np.float64)
    for lane in found:
        seen = np.flatnonzero(lane >= 0)
        for start, end in zip(seen[:-1], seen[1:], strict=True):
            for row in range(start + 1, end):
                gap = float(end - start)
                lane[row] = int((row - start) / gap * lane[end] + (end - row) / gap * lane[start])
    return found.reshape(lane_x.shape).astype(lane_x.dtype)


def submitted(lane_x: np.ndarray) -> np.ndarray:
    """Returns the lanes of an image as they are handed in to TuSimple: those that there are, or one that is nowhere.

    Args:
        lane_x: Of one image [slots, rows].

    Returns:
        [lanes, rows], gaps filled.
    """
    found = without_gaps(lane_x)
    found = found[(found > 0).any(axis=1)]
    return found if len(found) else np.full([1, lane_x.shape[-1]], ABSENT, np.float32)


def lanes_of(lane_x: np.ndarray, rows: np.ndarray | list[int]) -> list[np.ndarray]:
    """Returns the points of the lanes that there are.

    Args:
        lane_x: Of one image [slots, rows].
        rows: Of the original image.

    Returns:
        x and y [points, 2] of each slot with at least two points, from the left.
    """
    rows = np.asarray(rows, np.float64)
    found = [np.stack([x[x >= 0], rows[x >= 0]], axis=1) for x in np.asarray(lane_x, np.float64)]
    return [lane for lane in found if len(lane) >= LEAST_POINTS]
