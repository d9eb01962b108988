"""Moves of pixels, for all images of a batch at once and with a move of its own for each."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from easytransfer.layers.draws import RowDraws

# Pillow's fixed point for affine transforms.
_POINT = 16


def crop_and_flip(images: tf.Tensor, draws: RowDraws, padding: int, flip: bool) -> tf.Tensor:
    """Returns random crops of the old size out of the images with zeros around them, half of them mirrored.

    Args:
        images: [batch, height, width, channels].
        draws: Source of the random numbers; three a row are taken.
        padding: Pixels of zeros on each side; every crop is equally likely.
        flip: Whether to mirror left to right with probability 1/2.
    """
    if not (padding or flip):
        return images
    numbers = draws.uniform(3)
    down, right = tf.unstack(tf.cast(tf.floor(numbers[:, :2] * (2 * padding + 1)), tf.int32) - padding, axis=1)
    height, width = images.shape[1:3]
    rows = tf.range(height)[None, :] + down[:, None]
    columns = tf.range(width)[None, :] + right[:, None]
    if flip:
        columns = tf.where(numbers[:, 2:] < 0.5, tf.reverse(columns, [1]), columns)
    shape = [tf.shape(images)[0], height, width]
    rows, columns = tf.broadcast_to(rows[:, :, None], shape), tf.broadcast_to(columns[:, None, :], shape)
    return take_pixels(images, rows, columns, 0)


def affine(images: tf.Tensor, matrices: tf.Tensor, fill: int) -> tf.Tensor:
    """Returns images whose pixel (x, y) is that of the input at (a x + b y + c, d x + e y + f).

    The nearest pixel is taken, with the centres and the fixed point of Pillow's `Image.transform(AFFINE, NEAREST)`.

    Args:
        images: [batch, height, width, channels].
        matrices: a, b, c, d, e, f of each image, float64 [batch, 6].
        fill: Value of pixels from outside.
    """
    height, width = images.shape[1:3]
    a, b, c, d, e, f = tf.unstack(matrices, axis=1)
    x, y = tf.range(width)[None, None, :], tf.range(height)[None, :, None]

    def place(along_x: tf.Tensor, along_y: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        start = _fixed(offset + along_x * 0.5 + along_y * 0.5)[:, None, None]
        found = start + _fixed(along_x)[:, None, None] * x + _fixed(along_y)[:, None, None] * y
        return tf.bitwise.right_shift(found, _POINT)

    return take_pixels(images, place(d, e, f), place(a, b, c), fill)


def _fixed(number: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.floor(number * (1 << _POINT) + 0.5), tf.int32)


def take_pixels(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, fill: float | Sequence[float]) -> tf.Tensor:
    """Returns the pixels at the given places, [batch, tall, wide, channels].

    Args:
        images: [batch, height, width, channels].
        rows: int32 [batch, tall, wide], of any value.
        columns: int32 [batch, tall, wide], of any value.
        fill: Value where a place lies outside, or one for each channel.
    """
    height, width, channels = images.shape[1:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    places = tf.clip_by_value(rows, 0, height - 1) * width + tf.clip_by_value(columns, 0, width - 1)
    flat = tf.reshape(images, [-1, height * width, channels])
    tall, wide = rows.shape[1:3]
    found = tf.gather(flat, tf.reshape(places, [-1, tall * wide]), batch_dims=1)
    found = tf.reshape(found, [-1, tall, wide, channels])
    return tf.where(inside[..., None], found, tf.cast(fill, images.dtype))
