"""Numbers of weight files: of floating point, finite, and one value for one weight. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from easytransfer.errors import ModelError

# Integers are no weights without the scales that a quantised file keeps beside them.
READ_TYPES = ("float16", "bfloat16", "float32", "float64")


def check_type(array: np.ndarray, name: str, source: str) -> None:
    """Checks that a weight is stored as floating-point numbers.

    Args:
        array: The stored weight.
        name: Its name in the file.
        source: The file or folder.

    Raises:
        ModelError: It holds integers or another type, as in a quantised model.
    """
    if array.dtype.name not in READ_TYPES:
        raise unread_type(array.dtype.name, name, source)


def unread_type(dtype: str, name: str, source: str) -> ModelError:
    """Returns the error about a weight that is stored as numbers of a type that is not read."""
    return ModelError(
        f"{source} holds weights of the type {dtype}, the first is {name}: a quantised model",
        received=dtype,
        accepted=READ_TYPES,
        fix="use the model as it was before it was quantised, or turn its weights back into floats",
    )


def as_floats(array: np.ndarray, name: str, source: str, dtype: type = np.float32) -> np.ndarray:
    """Returns a weight as floats of type `dtype`, without a copy where it is that already.

    Raises:
        ModelError: It holds another type, a NaN, an infinite number or one that `dtype` has no place for.
    """
    check_type(array, name, source)
    with np.errstate(over="ignore"):
        values = np.asarray(array, dtype)
    check_finite(values, name, source)
    return values


def check_finite(values: np.ndarray, name: str, source: str) -> None:
    """Checks that every number of a weight is finite.

    Raises:
        ModelError: One is not; the message counts them.
    """
    finite = np.isfinite(values)
    if finite.all():
        return
    wrong = values[~finite]
    raise ModelError(
        f"{source}: weight {name} has {wrong.size:,} of {values.size:,} numbers that are not finite",
        received=float(wrong.flat[0]),
        accepted="finite 32-bit floats",
        fix="the file is damaged or its training had failed; copy it again, or take an earlier checkpoint",
    )


def one_spelling(names: Sequence[str], tensors: Mapping[str, np.ndarray], source: str) -> str:
    """Returns the first of several names that one weight has in a file.

    Raises:
        ModelError: They hold different values, so it is not known which is meant.
    """
    first, *others = names
    for other in others:
        if not np.array_equal(tensors[first], tensors[other]):
            raise ModelError(
                f"{source} holds one weight under two names with different values",
                received=f"{first}, {other}",
                accepted="one of them, or equal values",
                fix="remove the wrong one from the file",
            )
    return first
