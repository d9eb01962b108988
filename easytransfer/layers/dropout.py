"""Dropout whose masks depend only on (seed, step, call order), so a resumed run repeats them exactly."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from easytransfer import keras


class _SeedScope:
    def __init__(self, seed: tf.Tensor) -> None:
        self.seed = seed
        self.calls = 0


_scopes: list[_SeedScope] = []


@contextmanager
def dropout_seed(seed: tf.Tensor) -> Iterator[None]:
    """Gives every `Dropout` called inside a seed of its own, derived from `seed` and the order of the calls.

    Args:
        seed: int32 tensor of shape [2], usually (run seed + replica, micro-step).
    """
    _scopes.append(_SeedScope(seed))
    try:
        yield
    finally:
        _scopes.pop()


@contextmanager
def dropout_part(part: int) -> Iterator[None]:
    """Gives the `Dropout`s inside other seeds than those of other parts of a step; outside `dropout_seed` nothing.

    Args:
        part: Number of the part, from 1.
    """
    if not _scopes:
        yield
        return
    with dropout_seed(tf.random.experimental.stateless_fold_in(_scopes[-1].seed, part)):
        yield


def next_seed(part: int = 0) -> tf.Tensor:
    """Returns the int32 [2] seed of the next random layer: inside `dropout_seed` by order of the calls, else a new one.

    Args:
        part: Number of the part of a split tensor that this worker holds, which gets its own seed; 0 for the whole.
    """
    if not _scopes:
        return tf.constant([random.getrandbits(31), random.getrandbits(31)], tf.int32)
    scope = _scopes[-1]
    scope.calls += 1
    seed = tf.random.experimental.stateless_fold_in(scope.seed, scope.calls)
    return tf.random.experimental.stateless_fold_in(seed, part) if part else seed


@keras.utils.register_keras_serializable(package="easytransfer")
class Dropout(keras.layers.Layer):
    """Sets inputs to zero with probability `rate` in training and scales the rest by 1 / (1 - rate).

    Inside `dropout_seed` the mask is a pure function of the seed; outside it is drawn anew at every eager call, with a
    seed from Python's `random`. Input and output have the same shape and dtype.

    Args:
        rate: Probability of zeroing an element, in [0, 1).
        part: Number of the part of a split tensor that this worker holds; every part has a mask of its own.

    Raises:
        ValueError: `rate` is outside [0, 1).

    Example:
        >>> Dropout(0.1)(tf.ones([2, 3]), training=False)
    """

    def __init__(self, rate: float, part: int = 0, **kwargs) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be in [0, 1), got {rate}")
        self.rate, self.part = float(rate), part

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns `inputs` with elements dropped in training, unchanged otherwise."""
        if not training or self.rate == 0:
            return inputs
        keep = tf.random.stateless_uniform(tf.shape(inputs), seed=next_seed(self.part), alg="philox") >= self.rate
        return inputs * (tf.cast(keep, inputs.dtype) * tf.cast(1 / (1 - self.rate), inputs.dtype))

    def get_config(self) -> dict:
        """Returns what rebuilds the layer."""
        return {**super().get_config(), "rate": self.rate, "part": self.part}
