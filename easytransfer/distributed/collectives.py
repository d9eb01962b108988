"""Differentiable collectives over groups of workers, and the only module that imports Horovod.

Gradient convention: inside a group that splits a layer, the loss is computed on every rank from identical values;
between data-parallel replicas losses differ and their gradients are summed. Horovod's own gradients follow no single
convention (for the sum of the ranks' losses, all-gather gives 1/N of it and reduce-scatter N times it), so every
function here defines its own. Every collective has an explicit name, the same on all ranks of its group.

TensorFlow takes Horovod's operations for pure functions. In a graph, one whose input is a constant is computed by one
rank while it optimizes the graph, which hangs; one whose result is not used is left out. Callers must do neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import tensorflow as tf

from easytransfer.errors import ConfigError
from easytransfer.installing import HOROVOD_LINE


def horovod() -> ModuleType:
    """Imports Horovod's TensorFlow operations.

    Raises:
        ConfigError: Horovod is missing, or was built without TensorFlow or Gloo.
    """
    try:
        import horovod.tensorflow as hvd
    except ImportError as error:
        raise ConfigError("Horovod is not installed", received=str(error), fix=HOROVOD_LINE) from error
    if not hvd.gloo_built() and not hvd.mpi_built():
        raise ConfigError("this Horovod has neither Gloo nor MPI", fix=HOROVOD_LINE)
    return hvd


def operations() -> ModuleType:
    """Horovod's raw operations, which take a name and have no rule of their own about averages."""
    horovod()
    from horovod.tensorflow import mpi_ops

    return mpi_ops


@dataclass(frozen=True)
class Group:
    """Workers that exchange tensors with each other.

    Attributes:
        name: Part of the name of every exchange in the group.
        ranks: Global ranks, ascending.
        rank: Position of this worker among them.
        process_set: Horovod's process set; None for a group of one.
    """

    name: str
    ranks: tuple[int, ...]
    rank: int
    process_set: Any = None

    @property
    def size(self) -> int:
        """Number of workers in the group."""
        return len(self.ranks)


def unique_name(name: str) -> str:
    """Returns the name, numbered where the graph being made has it already: a layer called twice exchanges twice.

    Every worker of a group makes the same calls in the same order, so they agree on the numbers.
    """
    if tf.executing_eagerly():
        return name
    # A scope that ends with a slash starts at the root, wherever the call is made.
    with tf.name_scope("exchanges/"):
        return tf.compat.v1.get_default_graph().unique_name(name).removeprefix("exchanges/")


def _options(group: Group, name: str) -> dict[str, Any]:
    """Returns what every raw operation takes. Horovod drops all of a name up to its last slash, so it has none."""
    full = unique_name(f"{group.name}.{name}".replace("/", "."))
    return {"name": full, "ignore_name_scope": True, "process_set": group.process_set}


def all_reduce(x: tf.Tensor, group: Group, name: str) -> tf.Tensor:
    """Sums `x` over the group, without a gradient rule of its own."""
    if group.size == 1:
        return x
    ops = operations()
    # Horovod knows no bfloat16.
    value = tf.cast(x, tf.float32) if x.dtype == tf.bfloat16 else x
    return tf.cast(ops._allreduce(value, op=ops.Sum, **_options(group, name)), x.dtype)


def grouped_all_reduce(tensors: Sequence[tf.Tensor], group: Group, name: str) -> list[tf.Tensor]:
    """Sums tensors over the group in one fused exchange that starts when the last of them is there."""
    if group.size == 1 or not tensors:
        return list(tensors)
    ops = operations()
    return ops._grouped_allreduce(list(tensors), op=ops.Sum, **_options(group, name))


def all_gather_first(x: tf.Tensor, group: Group, name: str) -> tf.Tensor:
    """Joins the ranks' `x` on the first axis, whose sizes may differ; without a gradient rule of its own."""
    if group.size == 1:
        return x
    return operations().allgather(x, **_options(group, name))


def reduce_scatter_first(x: tf.Tensor, group: Group, name: str) -> tf.Tensor:
    """Sums over the group and keeps this rank's part of the first axis, which the group's size must divide."""
    if group.size == 1:
        return x
    ops = operations()
    return ops._reducescatter(x, op=ops.Sum, **_options(group, name))


# Differentiable -----------------------------------------------------------------------------------------------


def copy_to(x: tf.Tensor, group: Group, name: str) -> tf.Tensor:
    """Identity; its gradient is summed over the group. Input of a layer whose columns are split."""
    name = unique_name(name)

    @tf.custom_gradient
    def function(value: tf.Tensor) -> Any:
        return tf.identity(value), lambda gradient: all_reduce(gradient, group, f"{name}/backward")

    return function(x)


def reduce_from(x: tf.Tensor, group: Group, name: str) -> tf.Tensor:
    """Sum over the group; its gradient passes unchanged. Output of a layer whose rows are split."""
    name = unique_name(name)

    @tf.custom_gradient
    def function(value: tf.Tensor) -> Any:
        return all_reduce(value, group, name), tf.identity

    return function(x)


def gather_from(x: tf.Tensor, group: Group, name: str, axis: int = 0) -> tf.Tensor:
    """Joins equal parts on `axis`; the gradient is this rank's slice of it. For values all ranks go on with alike."""
    name = unique_name(name)

    @tf.custom_gradient
    def function(value: tf.Tensor) -> Any:
        joined = _on_first_axis(value, axis, lambda moved: all_gather_first(moved, group, name))
        return joined, lambda gradient: own_slice(gradient, group, axis)

    return function(x)


def all_to_all(x: tf.Tensor, splits: tf.Tensor, group: Group, name: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Sends `splits[r]` rows of `x` to each rank r of the group.

    Returns:
        The rows received, in order of rank, and how many came from each; gradients travel the same way back.
    """
    if group.size == 1:
        return x, splits
    name = unique_name(name)

    def exchange(rows: tf.Tensor, counts: tf.Tensor, label: str) -> tuple[tf.Tensor, tf.Tensor]:
        return operations().alltoall(rows, counts, **_options(group, label))

    @tf.custom_gradient
    def function(value: tf.Tensor) -> Any:
        received, counts = exchange(value, splits, name)

        def backward(gradient: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
            return exchange(gradient, counts, f"{name}/backward")[0]

        return (received, counts), backward

    return function(x)


def send_recv(x: tf.Tensor, pair: Group, name: str) -> tf.Tensor:
    """Passes a tensor from the first rank of a group of two to the second; its gradient comes back.

    Args:
        x: The tensor on the first rank; on the second any tensor of the same shape and dtype, such as zeros.
        pair: Group of the two ranks.
        name: Name of the exchange.
    """

    name = unique_name(name)

    def broadcast(value: tf.Tensor, root: int, label: str) -> tf.Tensor:
        return operations().broadcast(value, root_rank=pair.ranks[root], **_options(pair, label))

    @tf.custom_gradient
    def function(value: tf.Tensor) -> Any:
        return broadcast(value, 0, name), lambda gradient: broadcast(gradient, 1, f"{name}/backward")

    return function(x)


def own_slice(x: tf.Tensor, group: Group, axis: int) -> tf.Tensor:
    """This rank's of `group.size` equal slices of `axis`."""
    return tf.split(x, group.size, axis=axis)[group.rank]


def _on_first_axis(x: tf.Tensor, axis: int, function: Any) -> tf.Tensor:
    """Applies `function`, which works on the first axis, to `axis`."""
    if axis == 0:
        return function(x)
    order = list(range(x.shape.rank))
    order[0], order[axis] = order[axis], order[0]
    return tf.transpose(function(tf.transpose(x, order)), order)
