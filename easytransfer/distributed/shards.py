"""Variables of which every worker of a group holds a part, or of which the values on one of the workers count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from easytransfer.distributed.collectives import Group, all_gather_first, all_reduce

_MARK = "_easytransfer_shard"


@dataclass(frozen=True)
class Shard:
    """This worker's part of a variable.

    Attributes:
        group: The workers that hold the parts, in order.
        axis: The axis that is split into equal parts.
        owner: Position of the only worker that trains the variable, which all of them hold whole; None = it is split.
    """

    group: Group
    axis: int = 0
    owner: int | None = None

    def part(self, whole: np.ndarray) -> np.ndarray:
        """Returns this worker's part of a whole array.

        Raises:
            ValueError: The group's size does not divide the axis.
        """
        if self.owner is not None:
            return whole
        return np.split(whole, self.group.size, axis=self.axis)[self.group.rank]


def mark_shard(variable: tf.Variable, shard: Shard) -> None:
    """Notes that `variable` is a part; with a group of one it is not."""
    if shard.group.size > 1:
        setattr(variable, _MARK, shard)


def shard_of(variable: tf.Variable) -> Shard | None:
    """Returns what part `variable` is; None for a variable every worker holds."""
    return getattr(variable, _MARK, None)


def whole_shape(variable: tf.Variable) -> tuple[int, ...]:
    """Returns the shape of the whole of a variable."""
    shard = shard_of(variable)
    if shard is None or shard.owner is not None:
        return tuple(variable.shape)
    return tuple(n * shard.group.size if i == shard.axis else n for i, n in enumerate(variable.shape))


def assign_whole(variable: tf.Variable, whole: np.ndarray) -> None:
    """Assigns this worker's part of a whole array."""
    shard = shard_of(variable)
    variable.assign(whole if shard is None else shard.part(whole))


def whole_value(variable: tf.Variable) -> np.ndarray:
    """Returns the whole of a variable; every worker of its group must ask, in the same order."""
    shard = shard_of(variable)
    if shard is None:
        return variable.numpy()
    if shard.owner is not None:
        every = all_gather_first(tf.constant(variable.numpy()[None]), shard.group, "whole/owned").numpy()
        return every[shard.owner]
    moved = np.moveaxis(variable.numpy(), shard.axis, 0)
    joined = all_gather_first(tf.constant(moved), shard.group, f"whole/{shard.axis}").numpy()
    return np.moveaxis(joined, 0, shard.axis)


def whole_squares(values: Sequence[tf.Tensor], variable: tf.Variable) -> tf.Tensor:
    """Returns the sum of squares of each of `values`, which are split as `variable` is, parts elsewhere included."""
    sums, shard = tf.stack([tf.reduce_sum(tf.square(value)) for value in values]), shard_of(variable)
    return sums if shard is None or shard.owner is not None else all_reduce(sums, shard.group, "squares")


def global_norm(gradients: Sequence[tf.Tensor | tf.IndexedSlices | None], shards: Sequence[Shard | None]) -> tf.Tensor:
    """Returns the norm of all gradients of the model, parts on other workers included."""
    squares: dict[str, list[tf.Tensor]] = {}
    groups: dict[str, Group] = {}
    for gradient, shard in zip(gradients, shards, strict=True):
        if gradient is None:
            continue
        values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
        name = "" if shard is None else shard.group.name
        if shard is not None:
            groups[name] = shard.group
        squares.setdefault(name, []).append(2.0 * tf.nn.l2_loss(values))
    sums = [
        all_reduce(tf.add_n(parts), groups[name], "square_norm") if name else tf.add_n(parts)
        for name, parts in sorted(squares.items())
    ]
    return tf.sqrt(tf.add_n(sums))
