"""Random starts of attacks, from numbers that belong to a row whoever computes it."""

from __future__ import annotations

import math
from typing import Protocol

import tensorflow as tf

from appzoo.adversarial_training.attacks.ball import Ball
from easytransfer.layers.draws import unit_fraction

# The normal distribution's inverse is infinite at 0 and 1.
_SMALLEST = 1e-7


class Draws(Protocol):
    """Where numbers come from: `RowDraws` in training, `NumberedDraws` in evaluation."""

    def uniform(self, columns: int) -> tf.Tensor:
        """Returns fresh numbers in [0, 1), float32 [rows, columns]."""


class NumberedDraws:
    """Uniform random numbers that are a function of a seed and of each row's number in its table.

    They do not depend on the batch a row is in, so an evaluation gives the same result for every batch size and every
    number of workers.

    Args:
        seed: Any number.
        numbers: int [rows], not negative.
    """

    def __init__(self, seed: int, numbers: tf.Tensor) -> None:
        self._seed, self._numbers, self._calls = seed % 2**31, tf.cast(numbers, tf.int32), 0

    def uniform(self, columns: int) -> tf.Tensor:
        """Returns fresh numbers in [0, 1), float32 [rows, columns]."""
        self._calls += 1
        # XLA's default algorithm is another one.
        key = tf.random.stateless_uniform([], [self._seed, self._calls], None, None, tf.int32, alg="philox")
        key = tf.bitwise.bitwise_and(key, 2**31 - 1)

        def row(number: tf.Tensor) -> tf.Tensor:
            return tf.random.stateless_uniform([columns], tf.stack([key, number]), None, None, tf.int32, alg="philox")

        bits = tf.map_fn(row, self._numbers, fn_output_signature=tf.TensorSpec([columns], tf.int32))
        return unit_fraction(bits)


def uniform_noise(images: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Returns noise of the images' shape, uniform in [-1, 1)."""
    return tf.reshape(2 * draws.uniform(math.prod(images.shape[1:])) - 1, [-1, *images.shape[1:]])


def normal_noise(images: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Returns noise of the images' shape with mean 0 and deviation 1."""
    numbers = tf.clip_by_value(draws.uniform(math.prod(images.shape[1:])), _SMALLEST, 1 - _SMALLEST)
    return tf.reshape(tf.math.ndtri(numbers), [-1, *images.shape[1:]])


def random_start(images: tf.Tensor, ball: Ball, draws: Draws) -> tf.Tensor:
    """Returns points of equal probability everywhere in the ball around each image; they may leave the box.

    Under `l2` the direction is that of normal noise, which has no preferred one, and the length is epsilon times the
    root of order d of a uniform number, because d-dimensional volume grows with the power d of the length.
    """
    if ball.norm == "linf":
        return images + ball.epsilon * uniform_noise(images, draws)
    shape = images.shape[1:]
    share = tf.reshape(draws.uniform(1), [-1, *[1] * len(shape)]) ** (1 / math.prod(shape))
    return images + ball.epsilon * share * ball.direction(normal_noise(images, draws))
