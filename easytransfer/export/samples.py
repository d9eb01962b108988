"""Sample rows of a signature and what the model in memory answers to them: what an export must repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.savedmodel.array_json import encode_array, take_rows
from easytransfer.savedmodel.rounding import ALLOWED, EPSILON, scale_of, units
from easytransfer.savedmodel.signature import Signature

# Batch sizes the export must repeat, next to all sample rows at once.
RECORDED_BATCHES = (1, 3)
# By how many units in the last place weights are moved to see what a model makes of rounding: more than rounding moves
# them, far less than a fault does.
NUDGES = {"float64": 64, "float32": 64, "float16": 1, "bfloat16": 1}

Arrays = dict[str, np.ndarray]


def record_samples(
    signature: Signature, variables: Sequence[tf.Variable] = (), float_type: str = "float32"
) -> dict[str, Any]:
    """Returns the sample inputs and, by number of rows, what the model in memory answers to them.

    `tolerance` has the share of an output's largest number that another evaluation may differ by, and `undecided` its
    rows that are not compared, see `sensitivity`.

    Args:
        signature: Its samples are used.
        variables: Variables that its function reads.
        float_type: The coarsest type it computes in.
    """
    rows = len(next(iter(signature.samples.values())))
    answers = {n: answer(signature, take_rows(signature.samples, n)) for n in sorted({*RECORDED_BATCHES, rows})}
    tolerance, undecided = sensitivity(signature, answers[rows], variables, float_type)
    return {
        "inputs": {key: encode_array(value) for key, value in signature.samples.items()},
        "outputs": {str(n): {key: encode_array(value) for key, value in found.items()} for n, found in answers.items()},
        "tolerance": tolerance,
        "undecided": undecided,
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


def sensitivity(
    signature: Signature, recorded: Arrays, variables: Sequence[tf.Variable], float_type: str
) -> tuple[dict[str, float], dict[str, list[int]]]:
    """Returns what a model makes of rounding, seen by moving its weights by a few units in the last place.

    Args:
        signature: With the samples that `recorded` answers.
        recorded: Its answers.
        variables: Variables that its function reads.
        float_type: The coarsest type it computes in.

    Returns:
        For each output of numbers the share of its largest number that rounding explains: the usual one, or as much as
        the moved weights change it, which in very deep networks is more. And by output the rows where rounding alone
        decides between two answers, such as two labels of one probability.
    """
    moved = [answer_with(signature, variables, sign, float_type) for sign in (1, -1)] if variables else []
    undecided: dict[str, set[int]] = {}
    numbers = [key for key, value in recorded.items() if value.dtype.kind == "f"]
    for key in recorded.keys() - set(numbers):
        undecided[key] = set().union(*(_rows(_other(found[key], recorded[key])) for found in moved))
    jumping = sorted(set().union(*undecided.values()))
    tolerance = {}
    for key in numbers:
        want, allowed = recorded[key], float(ALLOWED[float_type])
        changes = np.stack([np.zeros(len(want)), *(_change(found[key], want, float_type) for found in moved)]).max(
            axis=0
        )
        steady = np.delete(changes, jumping)
        # A number that belongs to a decision jumps with it; where even shapes change there is nothing to compare.
        allowed = max(allowed, float(np.max(steady, initial=0.0, where=np.isfinite(steady))))
        tolerance[key] = allowed * EPSILON[float_type]
        undecided[key] = set(_rows(changes > allowed))
    return tolerance, {key: sorted(rows) for key, rows in undecided.items() if rows}


def answer_with(signature: Signature, variables: Sequence[tf.Variable], sign: int, float_type: str) -> Arrays:
    """Returns the answer to all samples with every weight moved a little; the other sign moves each the other way."""
    random, step = np.random.default_rng(0), sign * NUDGES[float_type] * EPSILON[float_type]
    before = [(variable, variable.numpy()) for variable in variables if variable.dtype.is_floating]
    try:
        for variable, value in before:
            ways = random.integers(0, 2, value.shape, np.int8) * 2 - 1
            variable.assign((value * (1 + step * ways)).astype(value.dtype))
        return answer(signature, signature.samples)
    finally:
        for variable, value in before:
            variable.assign(value)


def _change(moved: np.ndarray, recorded: np.ndarray, float_type: str) -> np.ndarray:
    """Returns by how many units each row changes, infinite where an axis has another length."""
    if moved.shape != recorded.shape:
        return np.full(len(recorded), np.inf)
    found = units(moved, recorded, scale_of([recorded]), float_type)
    return np.max(found.reshape(len(recorded), -1), axis=1, initial=0.0)


def _other(moved: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    if moved.shape != recorded.shape:
        return np.ones(len(recorded), bool)
    return (moved != recorded).reshape(len(recorded), -1).any(axis=1)


def _rows(chosen: np.ndarray) -> list[int]:
    return np.flatnonzero(chosen).tolist()
