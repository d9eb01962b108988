"""Stable names for a model's variables, and strict assignment of named arrays to them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from easytransfer.distributed.shards import assign_whole, whole_shape, whole_value
from easytransfer.errors import ModelError

if TYPE_CHECKING:
    import tensorflow as tf

# Rows of a mismatch table that are shown; the rest is counted.
SHOWN_MISMATCHES = 20
# Begins the names of layers that a training needs beside the network it is about: runs that start with its weights, and
# do not have such a layer, leave it out.
TRAINING_ONLY = "training_only"


def variable_names(variables: Iterable[tf.Variable]) -> list[str]:
    """Returns one unique name per variable: its own without `:0`, and `#2`, `#3`, ... behind repeated ones."""
    seen: Counter[str] = Counter()
    names = []
    for variable in variables:
        name = variable.name.split(":")[0]
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return names


def named_arrays(variables: Sequence[tf.Variable]) -> dict[str, np.ndarray]:
    """Returns the values of `variables` by stable name, in their order; those split over workers are joined."""
    return {name: whole_value(variable) for name, variable in zip(variable_names(variables), variables, strict=True)}


def assign_arrays(variables: Sequence[tf.Variable], arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Assigns every array to the variable of the same name; all names and shapes must agree.

    Keras numbers unnamed layers over the whole process (`dense`, `dense_1`, ...), so the same model built a second time
    has other names. When the names agree apart from such numbers, variables are matched by their order instead.

    Args:
        variables: Variables of the model.
        arrays: Values by name, in the order they were saved.
        source: Where the arrays come from, for the message.

    Raises:
        ModelError: A variable is missing, unknown or of another shape, and the message holds the table; or it is NaN.
    """
    names = variable_names(variables)
    if set(names) != set(arrays) and list(map(_without_numbers, names)) == list(map(_without_numbers, arrays)):
        arrays = dict(zip(names, arrays.values(), strict=True))
    shapes = {name: whole_shape(variable) for name, variable in zip(names, variables, strict=True)}
    rows = [
        f"  {name}: checkpoint {_shape(arrays.get(name))}, model {shapes.get(name, 'absent')}"
        for name in dict.fromkeys([*shapes, *arrays])
        if name not in arrays or name not in shapes or arrays[name].shape != shapes[name]
    ]
    if rows:
        more = [f"  ... and {len(rows) - SHOWN_MISMATCHES} more"] if len(rows) > SHOWN_MISMATCHES else []
        table = "\n".join(rows[:SHOWN_MISMATCHES] + more)
        raise ModelError(
            f"the checkpoint {source} does not fit this model: {len(rows)} of {len(shapes)} variables differ",
            fix=f"build the model with the settings the checkpoint was trained with\n{table}",
        )
    broken = [name for name in names if arrays[name].dtype.kind == "f" and np.isnan(arrays[name]).any()]
    if broken:
        raise ModelError(
            f"the checkpoint {source} holds NaN in {len(broken)} of {len(names)} variables, the first is {broken[0]}",
            fix="its training had failed: take an earlier checkpoint, or train again with a lower learning_rate",
        )
    for name, variable in zip(names, variables, strict=True):
        assign_whole(variable, arrays[name])


def _without_numbers(name: str) -> str:
    return re.sub(r"_\d+(?=/|$)", "", name)


def _shape(array: np.ndarray | None) -> tuple[int, ...] | str:
    return "absent" if array is None else array.shape
