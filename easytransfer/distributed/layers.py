"""Layers whose weights are split over a group of workers.

Initial values are drawn whole from the layer's seeded initializer and then split, so that a sharded model starts from
the weights of the unsharded one. With a group of one, every layer is the ordinary one.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from easytransfer import keras
from easytransfer.distributed.collectives import (
    Group,
    all_gather_first,
    copy_to,
    reduce_from,
    reduce_scatter_first,
)
from easytransfer.distributed.shards import Shard, mark_shard


class _ShardedLayer(keras.layers.Layer):
    """Adds weights of which this worker holds one part of `axis`."""

    def __init__(self, group: Group, **options: Any) -> None:
        super().__init__(**options)
        self.group = group

    def add_part(self, name: str, shape: tuple[int, ...], initializer: Any, axis: int) -> tf.Variable:
        """Adds this worker's part of a weight of the whole `shape`.

        Raises:
            ValueError: The group's size does not divide the axis.
        """
        shard, whole = Shard(self.group, axis), keras.initializers.get(initializer)
        if shape[axis] % self.group.size:
            raise ValueError(f"{self.name}/{name}: {shape[axis]} cannot be split over {self.group.size} workers")
        own = tuple(n // self.group.size if i == axis else n for i, n in enumerate(shape))
        variable = self.add_weight(
            name=name,
            shape=own,
            # The whole weight is drawn and cut, so that every worker draws the same numbers as one worker would.
            initializer=lambda _, dtype=None, **__: tf.split(whole(shape, dtype=dtype), self.group.size, axis=axis)[
                self.group.rank
            ],
        )
        mark_shard(variable, shard)
        return variable


class ColumnParallelDense(_ShardedLayer):
    """Dense layer of which each worker computes a part of the outputs (Megatron-LM, arXiv 1909.08053, section 3).

    Args:
        units: Outputs of the whole layer; each worker returns units / group size of them.
        group: Workers that split it; all have the same input.
        activation: Applied to the output.
        kernel_initializer: Seeded initializer of the whole kernel.
    """

    def __init__(
        self,
        units: int,
        group: Group,
        activation: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        **options: Any,
    ) -> None:
        super().__init__(group, **options)
        self.units, self.activation = units, keras.activations.get(activation)
        self._initializer = kernel_initializer

    def build(self, shape: Any) -> None:
        """Creates this worker's columns."""
        self.kernel = self.add_part("kernel", (int(shape[-1]), self.units), self._initializer, axis=1)
        self.bias = self.add_part("bias", (self.units,), "zeros", axis=0)
        super().build(shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Returns [..., units / group size]."""
        x = copy_to(x, self.group, f"{self.name}/input")
        return self.activation(tf.linalg.matmul(x, self.kernel) + self.bias)


class RowParallelDense(_ShardedLayer):
    """Dense layer of which each worker has a part of the inputs; the sums are exchanged (Megatron-LM, section 3).

    Args:
        units: Outputs; every worker returns all of them.
        group: Workers that split it; each has its part of the input, as `ColumnParallelDense` leaves it.
        kernel_initializer: Seeded initializer of the whole kernel.
    """

    def __init__(self, units: int, group: Group, kernel_initializer: Any = "glorot_uniform", **options: Any) -> None:
        super().__init__(group, **options)
        self.units, self._initializer = units, kernel_initializer

    def build(self, shape: Any) -> None:
        """Creates this worker's rows; the bias is whole on every worker."""
        inputs = int(shape[-1]) * self.group.size
        self.kernel = self.add_part("kernel", (inputs, self.units), self._initializer, axis=0)
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")
        super().build(shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Returns [..., units]."""
        # The bias is added behind the sum: before it, every worker would add it once.
        return reduce_from(tf.linalg.matmul(x, self.kernel), self.group, f"{self.name}/output") + self.bias


class ShardedEmbedding(_ShardedLayer):
    """Embedding table split by rows over data-parallel workers; each looks up other ids of one shape.

    Ids are gathered, every worker adds up what it has, and each gets the vectors of its own ids: batch * tokens *
    width numbers travel per worker instead of the gradient of the table.

    Args:
        rows: Size of the whole table.
        width: Numbers per vector.
        group: Workers that share the table.
        embeddings_initializer: Seeded initializer of the whole table.
    """

    def __init__(
        self, rows: int, width: int, group: Group, embeddings_initializer: Any = "uniform", **options: Any
    ) -> None:
        super().__init__(group, **options)
        self.rows, self.width, self._initializer = rows, width, embeddings_initializer

    def build(self, shape: Any) -> None:
        """Creates this worker's rows."""
        self.table = self.add_part("embeddings", (self.rows, self.width), self._initializer, axis=0)
        super().build(shape)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns [batch, ..., width] for ids [batch, ...]."""
        group, name = self.group, self.name
        everyone = all_gather_first(ids, group, f"{name}/ids")
        own = self.rows // group.size
        local = everyone - group.rank * own
        here = (local >= 0) & (local < own)
        # Ids of other workers look up row 0, and are multiplied by zero.
        local = tf.where(here, local, 0)

        @tf.custom_gradient
        def look_up(table: tf.Tensor) -> Any:
            found = tf.gather(table, local) * tf.cast(here, table.dtype)[..., None]

            def backward(gradient: tf.Tensor) -> tf.IndexedSlices:
                # The gradient of every worker's own vectors, for the rows that this worker holds.
                joined = all_gather_first(gradient, group, f"{name}/backward") * tf.cast(here, table.dtype)[..., None]
                return tf.IndexedSlices(tf.reshape(joined, [-1, self.width]), tf.reshape(local, [-1]), tf.shape(table))

            return reduce_scatter_first(found, group, name), backward

        return look_up(tf.convert_to_tensor(self.table))


class ShardedClassifier(_ShardedLayer):
    """Output layer and softmax cross entropy with the classes split over data-parallel workers.

    The features of all workers are gathered; each computes the logits of its classes for the whole global batch; the
    softmax takes one exchange of three numbers per row (largest own logit, sum of exponentials relative to it, logit of
    the label). The gradient of the head needs no exchange at all, that of the features one reduce-scatter (the operator
    split of the Whale paper, arXiv 2011.09208, section 3).

    Args:
        classes: Classes of the whole layer.
        group: Workers that share it; all have equally many rows.
        kernel_initializer: Seeded initializer of the whole kernel.
    """

    def __init__(self, classes: int, group: Group, kernel_initializer: Any = "glorot_uniform", **options: Any) -> None:
        super().__init__(group, **options)
        self.classes, self._initializer = classes, kernel_initializer

    def build(self, shape: Any) -> None:
        """Creates this worker's classes."""
        self.kernel = self.add_part("kernel", (int(shape[-1]), self.classes), self._initializer, axis=1)
        self.bias = self.add_part("bias", (self.classes,), "zeros", axis=0)
        super().build(shape)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Returns whole logits [batch, classes], for prediction; training uses `losses_of`."""
        everyone = all_gather_first(features, self.group, f"{self.name}/features")
        logits = tf.transpose(tf.linalg.matmul(everyone, self.kernel) + self.bias)
        joined = tf.transpose(all_gather_first(logits, self.group, f"{self.name}/logits"))
        return tf.split(joined, self.group.size)[self.group.rank]

    def losses_of(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns the cross entropy of every own row.

        Args:
            features: float [batch, width].
            labels: int [batch].
        """
        group, name = self.group, self.name
        own = self.classes // group.size
        every_label = all_gather_first(labels, group, f"{name}/labels") - group.rank * own
        # Zero where the label is another worker's class.
        target = tf.one_hot(every_label, own, dtype=features.dtype)

        @tf.custom_gradient
        def function(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> Any:
            everyone = all_gather_first(x, group, f"{name}/features")
            logits = tf.linalg.matmul(everyone, kernel) + bias
            # log sum exp over all classes from the parts of the workers: each takes out its own largest logit, so that
            # nothing overflows, and what it took out is put back relative to the largest of all.
            largest = tf.reduce_max(logits, 1)
            exponentials = tf.exp(logits - largest[:, None])
            facts = tf.stack([largest, tf.reduce_sum(exponentials, 1), tf.reduce_sum(logits * target, 1)])
            tops, sums, chosen = tf.unstack(all_gather_first(facts[None], group, f"{name}/softmax"), num=3, axis=1)
            top = tf.reduce_max(tops, 0)
            total = tf.reduce_sum(sums * tf.exp(tops - top), 0)
            losses = tf.math.log(total) + top - tf.reduce_sum(chosen, 0)

            def backward(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                weight = all_gather_first(gradient, group, f"{name}/weight")
                # softmax of the own classes: exp(z - own largest) times this, in place of exp(z - top) / total.
                share = tf.exp(largest - top) / total
                # d loss / d z = softmax(z) - one hot of the label, for every row of the global batch.
                error = (exponentials * share[:, None] - target) * weight[:, None]
                back = reduce_scatter_first(
                    tf.linalg.matmul(error, kernel, transpose_b=True), group, f"{name}/backward"
                )
                return back, tf.linalg.matmul(everyone, error, transpose_a=True), tf.reduce_sum(error, 0)

            return tf.split(losses, group.size)[group.rank], backward

        return function(features, tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias))
