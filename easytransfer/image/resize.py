"""Brings pictures to one size; the same TensorFlow operation on the host and in a served graph."""

from __future__ import annotations

from typing import Literal

import numpy as np
import tensorflow as tf

ResizeMode = Literal["stretch", "crop"]


def resize(image: tf.Tensor, size: int, mode: ResizeMode = "stretch") -> tf.Tensor:
    """Returns uint8 [size, size, channels] by antialiased bilinear interpolation, rounded to whole values.

    Args:
        image: uint8 [height, width, channels], of any size.
        size: Height and width of the result.
        mode: `stretch` changes the aspect to a square, `crop` takes the square in the middle first.
    """
    if mode == "crop":
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        side = tf.minimum(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    scaled = tf.image.resize(tf.cast(image, tf.float32), [size, size], method="bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(scaled), 0.0, 255.0), tf.uint8)


class Resizer:
    """Resizes on the host, with the operation above compiled once.

    Args:
        size: Height and width of the results.
        mode: As in `resize`.
    """

    def __init__(self, size: int, mode: ResizeMode = "stretch") -> None:
        self.size = size
        spec = tf.TensorSpec([None, None, None], tf.uint8)
        self._resize = tf.function(lambda image: resize(image, size, mode), input_signature=[spec], autograph=False)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns uint8 [size, size, channels] of uint8 [height, width, channels]."""
        if image.shape[:2] == (self.size, self.size):
            return image
        with tf.device("/cpu:0"):
            return self._resize(tf.constant(image)).numpy()
