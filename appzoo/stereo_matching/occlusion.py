"""Which left pixels the right eye cannot see, from the disparities of the left image alone, and what to put there.

A left pixel (x, y) of disparity d is seen by the right eye at (x - d, y). Where two pixels of a row meet there, the one
with the larger disparity is nearer and hides the other, which lies to its left. Pixels with x - d below 0 are out of
view.

Reference: Peng et al., Geometry-based Occlusion-Aware Unsupervised Stereo Matching, arXiv 2010.10700, whose abstract
fixes that occlusion comes from the geometry of the predicted left disparity; the tests below are this platform's.
"""

from __future__ import annotations

import math
from typing import Literal

import tensorflow as tf

Test = Literal["geq", "collision", "zbuffer"]
# How exactly pixels must meet, in pixels.
TOLERANCE = 0.5


def occluded(disparity: tf.Tensor, test: Test, jump: float, disparities: int, median: bool = False) -> tf.Tensor:
    """Returns which pixels the right eye cannot see, bool [batch, height, width], without gradient.

    `geq` takes a pixel as hidden by every nearer one to its right that reaches its place or beyond, which assumes that
    rows keep their order: it also hides the background between a thin pole and the pole's shadow. `collision` wants
    them to meet within `TOLERANCE`: exact for thin objects, it misses more where disparities are noisy. `zbuffer`
    enters all pixels into the rows of the right image and keeps the nearest.

    Args:
        disparity: In pixels, at least 0, float32 [batch, height, width].
        test: Which test.
        jump: Least difference of disparities between a pixel and what hides it, in pixels.
        disparities: They are below this number.
        median: Whether each pixel becomes what most of its surroundings of 3 x 3 pixels are.
    """
    disparity = tf.stop_gradient(disparity)
    tests = {"geq": _geq, "collision": _collision, "zbuffer": _zbuffer}
    found = tests[test](disparity, jump, disparities) | (_columns(disparity) - disparity < 0)
    return _majority(found) if median else found


def _columns(disparity: tf.Tensor) -> tf.Tensor:
    return tf.range(tf.shape(disparity)[2], dtype=tf.float32)[None, None, :]


def _from_right(x: tf.Tensor, steps: int, fill: float) -> tf.Tensor:
    """Returns at each pixel the value `steps` to its right."""
    return tf.pad(x[:, :, steps:], [[0, 0], [0, 0], [0, steps]], constant_values=fill)


def _geq(disparity: tf.Tensor, jump: float, disparities: int) -> tf.Tensor:
    """Pixel p is hidden where some k has d(p + k) - d(p) >= max(k - TOLERANCE, jump)."""
    found = tf.zeros_like(disparity, tf.bool)
    # Where k - TOLERANCE is the larger one, the condition says that the right eye sees p + k at or left of p.
    near = min(math.ceil(jump + TOLERANCE), disparities) - 1
    for k in range(1, near + 1):
        found |= _from_right(disparity, k, -math.inf) - disparity >= max(k - TOLERANCE, jump)
    place = _columns(disparity) - disparity
    leftmost = running(_from_right(place, near + 1, math.inf), tf.minimum, math.inf, reverse=True)
    return found | (leftmost <= place + TOLERANCE)


def _collision(disparity: tf.Tensor, jump: float, disparities: int) -> tf.Tensor:
    """Pixel p is hidden where some k has d(p + k) - d(p) >= jump, within TOLERANCE of k."""
    found = tf.zeros_like(disparity, tf.bool)
    for k in range(max(1, math.ceil(jump - TOLERANCE)), disparities):
        step = _from_right(disparity, k, -math.inf) - disparity
        found |= (tf.abs(step - k) <= TOLERANCE) & (step >= jump)
    return found


def _zbuffer(disparity: tf.Tensor, jump: float, disparities: int) -> tf.Tensor:
    """Pixel p is hidden where the nearest pixel at its place in the right image is nearer by more than jump."""
    shape = tf.shape(disparity)
    rows, width = shape[0] * shape[1], shape[2]
    flat = tf.reshape(disparity, [rows, width])
    place = tf.range(width, dtype=tf.float32)[None, :] - flat
    start = tf.range(rows)[:, None] * width

    def cells(columns: tf.Tensor) -> tf.Tensor:
        inside = (columns >= 0) & (columns < tf.cast(width, tf.float32))
        return tf.where(inside, start + tf.cast(columns, tf.int32), -1)

    entered = tf.reshape(tf.stack([cells(tf.floor(place)), cells(tf.math.ceil(place))]), [-1])
    nearest = tf.math.unsorted_segment_max(tf.tile(tf.reshape(flat, [-1]), [2]), entered, rows * width)
    seen_at = tf.maximum(cells(tf.floor(place + 0.5)), 0)
    return tf.reshape(tf.gather(nearest, seen_at) > flat + jump, shape)


def _majority(mask: tf.Tensor) -> tf.Tensor:
    """Returns the median of 3 x 3 pixels; the border is repeated."""
    values = tf.pad(tf.cast(mask, tf.float32)[..., None], [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    return tf.nn.avg_pool2d(values, 3, 1, "VALID")[..., 0] > 0.5


def running(x: tf.Tensor, combine: tf.types.experimental.GenericFunction, fill: float, reverse: bool) -> tf.Tensor:
    """Returns at each pixel the `combine` of it and all to its left, with `reverse` to its right.

    Each step looks twice as far as the one before: log2(width) operations, and no loop over columns.

    Args:
        x: [batch, height, width] with a known width.
        combine: Such as `tf.maximum`.
        fill: What changes nothing.
        reverse: Which side.
    """
    step = 1
    while step < x.shape[2]:
        pad = [[0, 0], [0, 0], [0, step] if reverse else [step, 0]]
        other = x[:, :, step:] if reverse else x[:, :, :-step]
        x = combine(x, tf.pad(other, pad, constant_values=fill))
        step *= 2
    return x


def background_filled(disparity: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
    """Returns disparities with the background's in place of hidden ones.

    Each run of hidden pixels in a row takes the smaller one of the disparities beside it; the only one at the border of
    the image. Rows without any visible pixel stay as they are.

    Args:
        disparity: float32 [batch, height, width] with a known width.
        hidden: bool, the same shape.
    """
    width = disparity.shape[2]
    columns = tf.broadcast_to(tf.range(width), tf.shape(disparity))
    left = running(tf.where(hidden, -1, columns), tf.maximum, -1, reverse=False)
    right = running(tf.where(hidden, width, columns), tf.minimum, width, reverse=True)
    beside = []
    for place, there in ((left, left >= 0), (right, right < width)):
        values = tf.gather(disparity, tf.clip_by_value(place, 0, width - 1), axis=2, batch_dims=2)
        beside.append(tf.where(there, values, math.inf))
    filled = tf.minimum(*beside)
    return tf.where(hidden & tf.math.is_finite(filled), filled, disparity)
