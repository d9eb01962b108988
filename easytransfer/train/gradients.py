"""Gradients by optimizer: made dense, summed over micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

Gradients = list["tf.Tensor | tf.IndexedSlices | None"]


def dense(gradients: Gradients) -> list[tf.Tensor | None]:
    """Makes sparse gradients dense: Adam's moments of an embedding decay for all its rows, see `Optimizer`."""
    return [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]


def distinct(gradients: Gradients) -> Gradients:
    """Adds up rows of sparse gradients that occur twice, so that their norm is that of the dense gradient."""
    return [_distinct_rows(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient for gradient in gradients]


def scaled(gradient: tf.Tensor | tf.IndexedSlices, factor: tf.Tensor) -> tf.Tensor:
    """Returns `gradient * factor`, dense; only the rows that are there are multiplied."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient * factor
    return tf.convert_to_tensor(
        tf.IndexedSlices(gradient.values * factor, gradient.indices, dense_shape=gradient.dense_shape)
    )


def _distinct_rows(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    rows, positions = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, positions, tf.size(rows))
    return tf.IndexedSlices(values, rows, dense_shape=gradient.dense_shape)


class Accumulator(tf.Module):
    """Sums of gradients, and of the vector of losses and weights, over the micro-batches of a step.

    A gradient that comes as rows of a table goes out as rows: all that a micro-batch had, each once.

    Args:
        variables: Trained variables by optimizer.
    """

    def __init__(self, variables: Mapping[str, Sequence[tf.Variable]]) -> None:
        super().__init__()
        self._sums = {
            name: [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in each]
            for name, each in variables.items()
        }
        # Rows of each table that the step has touched.
        self._touched = {
            id(total): tf.Variable(tf.zeros(total.shape[:1], tf.bool), trainable=False)
            for total in tf.nest.flatten(self._sums)
        }
        # One element is enough to start from: it is broadcast against the first vector added.
        self._vector = tf.Variable(tf.zeros([1]), shape=[None], trainable=False)

    def add(self, gradients: dict[str, Gradients], vector: tf.Tensor) -> tuple[dict[str, Gradients], tf.Tensor]:
        """Adds a micro-batch and returns the sums so far; a missing gradient stays missing."""
        sums: dict[str, Gradients] = {}
        for name, given in gradients.items():
            sums[name] = [self._added(g, total) for g, total in zip(given, self._sums[name], strict=True)]
        return sums, tf.ensure_shape(self._vector.assign(self._vector + vector).read_value(), vector.shape)

    def _added(
        self, gradient: tf.Tensor | tf.IndexedSlices | None, total: tf.Variable
    ) -> tf.Tensor | tf.IndexedSlices | None:
        if gradient is None:
            return None
        if not isinstance(gradient, tf.IndexedSlices):
            return total.assign_add(gradient).read_value()
        touched = self._touched[id(total)]
        touched.scatter_update(tf.IndexedSlices(tf.fill(tf.shape(gradient.indices), True), gradient.indices))
        rows = tf.where(touched)[:, 0]
        values = tf.gather(total.scatter_add(gradient).read_value(), rows)
        return tf.IndexedSlices(values, rows, dense_shape=tf.shape(total, tf.int64))

    def reset(self) -> None:
        """Starts the next step."""
        for variable in [*tf.nest.flatten(self._sums), *self._touched.values()]:
            variable.assign(tf.zeros_like(variable))
        self._vector.assign(tf.zeros([1]))
