"""Sample rows of a signature and what the model in memory answers to them: what an export must repeat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.export.selfcheck.rounding import EPSILON, allowed_units, scale_of, units
from easytransfer.export.selfcheck.values import encode_array, take_rows
from easytransfer.export.servable import Signature

# Batch sizes the export must repeat, next to all sample rows at once.
RECORDED_BATCHES = (1, 3)
# By how much weights are moved to see whether a decision hangs on rounding: more than rounding does, far less than a
# fault does.
NUDGE = 64 * EPSILON["float32"]

Arrays = dict[str, np.ndarray]


def record_samples(signature: Signature, variables: Sequence[tf.Variable] = ()) -> dict[str, Any]:
    """Returns the sample inputs and, by number of rows, what the model in memory answers to them.

    `undecided` has the outputs with rows that are not compared, see `undecided_rows`.

    Args:
        signature: Its samples are used.
        variables: Variables that its function reads.
    """
    rows = len(next(iter(signature.samples.values())))
    answers = {n: answer(signature, take_rows(signature.samples, n)) for n in sorted({*RECORDED_BATCHES, rows})}
    return {
        "inputs": {key: encode_array(value) for key, value in signature.samples.items()},
        "outputs": {str(n): {key: encode_array(value) for key, value in found.items()} for n, found in answers.items()},
        "undecided": undecided_rows(signature, answers[rows], variables),
    }


def answer(signature: Signature, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Returns what the model in memory answers, in full float32."""
    tensors = {key: tf.constant(value, signature.inputs[key].dtype) for key, value in inputs.items()}
    # TF32 on a GPU keeps ten bits of mantissa; the export is checked on a CPU.
    tensor_float_32 = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        return {key: servable_output(value).numpy() for key, value in signature.function(**tensors).items()}
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(tensor_float_32)


def servable_output(tensor: tf.Tensor) -> tf.Tensor:
    """Returns half-precision numbers as float32, the type that clients are promised, and everything else as it is."""
    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor


def undecided_rows(signature: Signature, recorded: Arrays, variables: Sequence[tf.Variable]) -> dict[str, list[int]]:
    """Returns rows by output where rounding alone decides between two answers, such as two labels of one probability.

    They are those whose answer changes when the weights are moved by a few units in the last place, one way or the
    other. Outputs that are numbers only decide nothing.

    Args:
        signature: With the samples that `recorded` answers.
        recorded: Its answers.
        variables: Variables that its function reads.
    """
    if not variables or all(value.dtype.kind == "f" for value in recorded.values()):
        return {}
    found: dict[str, set[int]] = {}
    for sign in (1, -1):
        with _nudged(variables, sign):
            moved = answer(signature, signature.samples)
        for key, value in recorded.items():
            found.setdefault(key, set()).update(_differing(moved[key], value))
    return {key: sorted(rows) for key, rows in found.items() if rows}


def _differing(moved: np.ndarray, recorded: np.ndarray) -> list[int]:
    if moved.shape != recorded.shape:
        # The length of an axis hangs on a decision.
        return list(range(len(recorded)))
    if recorded.dtype.kind == "f":
        other = units(moved, recorded, scale_of([recorded]), "float32") > allowed_units("float32")
    else:
        other = moved != recorded
    return np.flatnonzero(other.reshape(len(recorded), -1).any(axis=1)).tolist()


@contextmanager
def _nudged(variables: Sequence[tf.Variable], sign: int) -> Iterator[None]:
    """Context in which every weight is larger or smaller by `NUDGE` of it; the other sign moves each the other way."""
    random = np.random.default_rng(0)
    before = [(variable, variable.numpy()) for variable in variables if variable.dtype == tf.float32]
    try:
        for variable, value in before:
            ways = random.integers(0, 2, value.shape, np.int8) * 2 - 1
            variable.assign(value * (1 + np.float32(sign * NUDGE) * ways.astype(np.float32)))
        yield
    finally:
        for variable, value in before:
            variable.assign(value)
