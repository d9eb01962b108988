"""The network of an export compiled by XLA. It compiles one program per shape: shapes are rounded up to a few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from easytransfer import keras
from easytransfer.errors import ConfigError

SHORTEST = 16


@dataclass(frozen=True)
class Rounding:
    """Shapes that a network is compiled for; larger ones are compiled when they come.

    Attributes:
        rows: Rows of a batch, ascending.
        lengths: Lengths of the second axis of inputs where it is free, ascending.
    """

    rows: tuple[int, ...]
    lengths: tuple[int, ...]

    @classmethod
    def up_to(cls, rows: int, length: int) -> Rounding:
        """Returns the powers of two up to a number of rows and a length, and these two."""
        return cls(_powers(1, rows), _powers(min(SHORTEST, length), length))


def compiled_part(model: keras.Model) -> keras.Model:
    """Returns what of a network is compiled: its `compiled_part` where it names one, else all of it.

    Raises:
        ConfigError: It names None: what answers is no call of the network, which would silently stay as it is.
    """
    part = getattr(model, "compiled_part", model)
    if part is None:
        raise ConfigError(
            f"{model.name} answers step by step, which is not compiled", fix="leave xla out of exportVariants"
        )
    return part


@contextmanager
def compiled(model: keras.Model, rounding: Rounding) -> Iterator[None]:
    """Context in which graphs that call a model for prediction call it compiled; eager calls stay as they are.

    Args:
        model: Takes an array, or a dictionary of them, rows first; returns a dictionary of arrays. Rows of zeros must
            not change the answers to the others, nor zeros at the end of a second axis whose length is free: they mean
            padding. An output with such an axis has the length of the first input that has one, or of the input that
            the model's `length_inputs` names.
        rounding: Shapes its inputs are filled up to.
    """
    plain, length_inputs = model.call, getattr(model, "length_inputs", {})

    @tf.function(jit_compile=True)
    def network(inputs: Any) -> dict[str, tf.Tensor]:
        return plain(inputs, training=False)

    def call(inputs: Any, training: bool = False) -> dict[str, tf.Tensor]:
        if training or not tf.inside_function():
            return plain(inputs, training=training)
        named = inputs if isinstance(inputs, Mapping) else {"": inputs}
        rows = tf.shape(next(iter(named.values())))[0]
        free = [name for name, value in named.items() if _is_free(value)]
        outputs = network(tf.nest.map_structure(lambda value: _filled(value, rounding), inputs))

        def cut(name: str, value: tf.Tensor) -> tf.Tensor:
            if not (free and _is_free(value)):
                return value[:rows]
            return value[:rows, : tf.shape(named[length_inputs.get(name, free[0])])[1]]

        return {name: cut(name, value) for name, value in outputs.items()}

    model.call = call
    try:
        yield
    finally:
        del model.call


def _powers(least: int, most: int) -> tuple[int, ...]:
    found = [least]
    while found[-1] < most:
        found.append(min(2 * found[-1], most))
    return tuple(found)


def _is_free(value: tf.Tensor) -> bool:
    return value.shape.rank > 1 and value.shape[1] is None


def _filled(value: tf.Tensor, rounding: Rounding) -> tf.Tensor:
    """Returns an array with zeros behind its rows, and behind the ends of its second axis where its length is free."""
    sizes = tf.shape(value)
    added = [_rounded(sizes[0], rounding.rows) - sizes[0]]
    if _is_free(value):
        added.append(_rounded(sizes[1], rounding.lengths) - sizes[1])
    return tf.pad(value, [[0, count] for count in added] + [[0, 0]] * (value.shape.rank - len(added)))


def _rounded(size: tf.Tensor, accepted: tuple[int, ...]) -> tf.Tensor:
    """Returns the smallest accepted size that is not below `size`, or `size` where none is."""
    return tf.concat([accepted, [size]], 0)[tf.searchsorted(accepted, [size])[0]]
