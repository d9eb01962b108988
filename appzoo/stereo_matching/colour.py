"""Disparities as colours that people can read, on the host and inside a graph."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# From far to near: dark blue, blue, cyan, green, yellow, red, dark red; red, green and blue at equal distances.
_STOPS = np.array(
    [(0, 0, 96), (0, 64, 255), (0, 224, 255), (96, 255, 128), (255, 224, 0), (255, 64, 0), (128, 0, 0)], np.float32
)


def coloured(disparity: tf.Tensor, largest: tf.Tensor | float) -> tf.Tensor:
    """Returns disparities as uint8 [..., 3]: dark blue at 0, over green, to dark red at `largest` and above.

    Args:
        disparity: Float [...].
        largest: What is shown as the nearest, in pixels, a number or a shape that goes with it.
    """
    place = tf.clip_by_value(disparity / largest, 0.0, 1.0) * (len(_STOPS) - 1)
    lower = tf.minimum(tf.floor(place), len(_STOPS) - 2)
    share, stops = (place - lower)[..., None], tf.constant(_STOPS)
    index = tf.cast(lower, tf.int32)
    mixed = (1 - share) * tf.gather(stops, index) + share * tf.gather(stops, index + 1)
    return tf.cast(tf.round(mixed), tf.uint8)
