"""Brings pictures to one size; the same TensorFlow operation on the host and in a served graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from easytransfer.image.size import ImageSize, height_width

ResizeMode = Literal["stretch", "crop"]
# A kind of pictures that cannot be used; a detail follows after a colon.
TOO_LOW = "image too low"


def kept_box(
    height: Any, width: Any, size: ImageSize, mode: ResizeMode, crop_top: int, least: Callable[[Any, Any], Any] = min
) -> tuple[Any, Any, Any, Any]:
    """Returns which part of a picture becomes the result: top, left, height and width, in pixels.

    Args:
        height: Rows of the picture, more than `crop_top`; an integer, or an int64 tensor.
        width: Columns of the picture, the same.
        size: Size of the result.
        mode: `stretch` keeps all below `crop_top`; `crop` the largest box in the middle of that with the aspect of the
            result.
        crop_top: Rows cut off at the top.
        least: Returns the smaller of two numbers of the kind given.
    """
    below = height - crop_top
    if mode == "stretch":
        return crop_top, 0, below, width
    rows, columns = height_width(size)
    # In whole numbers, so that host and graph agree, and rounded up, so that a box has a pixel at least.
    tall = least(below, (width * rows + columns - 1) // columns)
    wide = least(width, (below * columns + rows - 1) // rows)
    return crop_top + (below - tall) // 2, (width - wide) // 2, tall, wide


def resize(image: tf.Tensor, size: ImageSize, mode: ResizeMode = "stretch", crop_top: int = 0) -> tf.Tensor:
    """Returns uint8 [height, width, channels] by antialiased bilinear interpolation, rounded to whole values.

    Args:
        image: uint8 [rows, columns, channels], of any size.
        size: Height and width of the result.
        mode: `stretch` changes the aspect to that of the result, `crop` takes a box of that aspect in the middle first.
        crop_top: Rows cut off at the top before that. A picture that has no more fails an assertion.
    """
    if mode == "crop" or crop_top:
        shape = tf.shape(image, tf.int64)
        refused = tf.strings.join(
            [f"{TOO_LOW}: ", tf.strings.as_string(shape[0]), f" rows are not more than crop_top={crop_top}"]
        )
        with tf.control_dependencies([tf.debugging.Assert(shape[0] > crop_top, [refused])] if crop_top else []):
            top, left, tall, wide = kept_box(shape[0], shape[1], size, mode, crop_top, tf.minimum)
            image = image[top : top + tall, left : left + wide]
    scaled = tf.image.resize(tf.cast(image, tf.float32), height_width(size), method="bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(scaled), 0.0, 255.0), tf.uint8)


class Resizer:
    """Resizes on the host, with the operation above compiled once.

    Args:
        size: Height and width of the results.
        mode: As in `resize`.
        crop_top: As in `resize`.
    """

    def __init__(self, size: ImageSize, mode: ResizeMode = "stretch", crop_top: int = 0) -> None:
        self.size, self.crop_top = size, crop_top
        spec = tf.TensorSpec([None, None, None], tf.uint8)
        self._resize = tf.function(
            lambda image: resize(image, size, mode, crop_top), input_signature=[spec], autograph=False
        )

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns uint8 [height, width, channels] of uint8 [rows, columns, channels].

        Raises:
            ValueError: The picture has no rows below `crop_top`; the message is the reason shown to the user.
        """
        if image.shape[0] <= self.crop_top:
            raise ValueError(f"{TOO_LOW}: {image.shape[0]} rows are not more than crop_top={self.crop_top}")
        if image.shape[:2] == height_width(self.size) and not self.crop_top:
            return image
        with tf.device("/cpu:0"):
            return self._resize(tf.constant(image)).numpy()
