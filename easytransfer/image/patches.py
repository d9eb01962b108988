"""Cutout and random erasing: parts of images become one colour, a part of its own in each image of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from easytransfer.layers.draws import RowDraws


def cutout(images: tf.Tensor, draws: RowDraws, side: int, fill: Sequence[float]) -> tf.Tensor:
    """Returns images with a square of `side` pixels filled; its centre is any pixel, so it may stick out.

    Reference: https://arxiv.org/abs/1708.04552, section 3.

    Args:
        images: Float [batch, height, width, channels].
        draws: Source of the random numbers; two a row are taken.
        side: Side of the square, rounded down to an even number as in the paper's code.
        fill: Value of each channel.
    """
    height, width = images.shape[1:3]
    numbers = draws.uniform(2)
    top = tf.floor(numbers[:, 0] * height) - side // 2
    left = tf.floor(numbers[:, 1] * width) - side // 2
    extent = tf.fill(tf.shape(top), float(side // 2 * 2))
    return fill_boxes(images, top, left, extent, extent, fill)


def random_erase(
    images: tf.Tensor,
    draws: RowDraws,
    probability: float,
    area: Sequence[float],
    aspect: Sequence[float],
    fill: Sequence[float],
) -> tf.Tensor:
    """Returns images of which a share has a random rectangle filled.

    Reference: https://arxiv.org/abs/1708.04896, algorithm 1. Departs from the paper: a rectangle that does not fit is
    cut to the image instead of being drawn again, and the logarithm of the aspect is uniform.

    Args:
        images: Float [batch, height, width, channels].
        draws: Source of the random numbers; five a row are taken.
        probability: Share of images that are changed.
        area: Smallest and largest share of the image.
        aspect: Smallest and largest height divided by width.
        fill: Value of each channel.
    """
    height, width = images.shape[1:3]
    numbers = draws.uniform(5)
    size = (area[0] + numbers[:, 1] * (area[1] - area[0])) * (height * width)
    low, high = math.log(aspect[0]), math.log(aspect[1])
    ratio = tf.exp(low + numbers[:, 2] * (high - low))
    tall = tf.clip_by_value(tf.round(tf.sqrt(size * ratio)), 1.0, float(height))
    wide = tf.clip_by_value(tf.round(tf.sqrt(size / ratio)), 1.0, float(width))
    top = tf.floor(numbers[:, 3] * (height - tall + 1))
    left = tf.floor(numbers[:, 4] * (width - wide + 1))
    return fill_boxes(images, top, left, tf.where(numbers[:, 0] < probability, tall, 0.0), wide, fill)


def fill_boxes(
    images: tf.Tensor, top: tf.Tensor, left: tf.Tensor, tall: tf.Tensor, wide: tf.Tensor, fill: Sequence[float]
) -> tf.Tensor:
    """Returns images with a box each filled; boxes [batch] are in pixels and may stick out."""
    height, width = images.shape[1:3]

    def between(count: int, start: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
        places = tf.range(count, dtype=tf.float32)[None, :]
        return (places >= start[:, None]) & (places < (start + extent)[:, None])

    inside = between(height, top, tall)[:, :, None] & between(width, left, wide)[:, None, :]
    return tf.where(inside[..., None], tf.constant(fill, images.dtype), images)
