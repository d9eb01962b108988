"""The set of images an attack may choose from: a ball around each image, cut with the box [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

Norm = Literal["linf", "l2"]
# Below it a row has no direction, and none is taken.
_NO_LENGTH = 1e-12


@dataclass(frozen=True)
class Ball:
    """Images within `epsilon` of a given one, on the scale from 0 to 1.

    Args:
        norm: `linf`, the largest change of a pixel, or `l2`, the root of the summed squares.
        epsilon: Radius, a number or a scalar tensor.
    """

    norm: Norm
    epsilon: float | tf.Tensor

    def project(self, images: tf.Tensor, centre: tf.Tensor) -> tf.Tensor:
        """Returns images moved into the ball around `centre`, then into the box. The box keeps them in the ball."""
        change = images - centre
        if self.norm == "linf":
            change = tf.clip_by_value(change, -self.epsilon, self.epsilon)
        else:
            length = self._length(change)
            # Divided only where it is too long: others keep their bits.
            shrunk = change * tf.math.divide_no_nan(tf.cast(self.epsilon, tf.float32), length)
            change = tf.where(length > self.epsilon, shrunk, change)
        return tf.clip_by_value(centre + change, 0.0, 1.0)

    def direction(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the step of length 1 that the loss rises most along: the signs, or the normalised gradient."""
        if self.norm == "linf":
            return tf.sign(gradient)
        return gradient / tf.maximum(self._length(gradient), _NO_LENGTH)

    def dual_length(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns the length of each row's gradient in the dual norm, [batch]: how fast the loss can rise."""
        axes = list(range(1, gradient.shape.rank))
        if self.norm == "linf":
            return tf.reduce_sum(tf.abs(gradient), axis=axes)
        return tf.norm(tf.reshape(gradient, [tf.shape(gradient)[0], -1]), axis=1)

    def _length(self, change: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(tf.reduce_sum(tf.square(change), axis=list(range(1, change.shape.rank)), keepdims=True))
