"""Checkpoints of TensorFlow 1: variables by name. TensorFlow is imported when one is read or written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from easytransfer.errors import ModelError


def read_checkpoint(path: str | Path, is_read: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """Returns the variables of a checkpoint by name; those that are not read have an empty array.

    Args:
        path: Prefix of the files.
        is_read: Whether the variable of a name is needed: optimizer state is not, and large.

    Raises:
        ModelError: The checkpoint is missing, cut short, or an object-based TensorFlow 2 one.
    """
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(path))
        names = sorted(reader.get_variable_to_shape_map())
        if any(name.endswith("/.ATTRIBUTES/VARIABLE_VALUE") for name in names):
            raise ModelError(
                f"{path} is an object-based TensorFlow 2 checkpoint",
                received=names[0],
                accepted="checkpoints with variable names, such as bert/pooler/dense/kernel",
                fix="save the model as model.safetensors, or with tf.compat.v1.train.Saver",
            )
        return {name: reader.get_tensor(name) if is_read(name) else np.empty(0) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"checkpoint {path} cannot be read: {reason}", fix="it is incomplete or damaged; copy it again"
        ) from None


def write_checkpoint(prefix: str | Path, values: Mapping[str, np.ndarray], scope: str = "") -> None:
    """Writes a checkpoint that TensorFlow 1 and `tf.train.load_checkpoint` read, with exactly the names given."""
    import tensorflow as tf

    names = sorted(values)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=[scope + name for name in names],
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(values[name]) for name in names],
    )
