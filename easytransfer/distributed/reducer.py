"""Sum of gradients over workers: buckets that travel while the backward pass goes on, wire formats, sparse policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import tensorflow as tf

from easytransfer.distributed.collectives import Group, all_gather_first, all_reduce, grouped_all_reduce
from easytransfer.distributed.shards import shard_of

WireDtype = Literal["float32", "float16"]
Sparse = Literal["auto", "gather", "dense"]


class GradientReducer:
    """Sums a step's tensors over a group of workers.

    Dense gradients are put into buckets from the last to the first, the order in which the backward pass makes them;
    each bucket is one fused exchange that starts when its last member is there. The last tensor (summed losses and
    weights) always travels alone, in float32.

    Args:
        group: Workers to sum over.
        bucket_mb: Size of a bucket in MiB of float32.
        wire_dtype: Number format on the wire. In float16 each rank sends 1/size of its gradient, so that a sum of
            gradients within float16's range cannot leave it; what is lost are magnitudes below 6e-8 times the size.
        sparse: How gradients of embeddings travel: `gather` sends looked-up rows, `dense` the whole table, `auto`
            what is fewer bytes: rows if their number t < 2 * table rows / size.
    """

    def __init__(
        self, group: Group, *, bucket_mb: float = 8.0, wire_dtype: WireDtype = "float32", sparse: Sparse = "auto"
    ) -> None:
        self.group, self.bucket_bytes = group, bucket_mb * 2**20
        self.wire_dtype, self.sparse = tf.dtypes.as_dtype(wire_dtype), sparse
        self.bytes_per_step = 0.0

    def __call__(
        self, tensors: list[tf.Tensor | tf.IndexedSlices], variables: Sequence[tf.Variable]
    ) -> list[tf.Tensor | tf.IndexedSlices]:
        """Returns the sums in the order given; see `Workers.reduce`.

        Gradients of variables that are split over this very group are complete already and pass unchanged.
        """
        if self.group.size == 1:
            return tensors
        *gradients, sums = tensors
        result: list[tf.Tensor | None] = [None] * len(gradients)
        dense = []
        for index in reversed(range(len(gradients))):
            shard = shard_of(variables[index])
            if shard is not None and shard.group.ranks == self.group.ranks:
                result[index] = gradients[index]
            elif isinstance(gradients[index], tf.IndexedSlices):
                result[index] = self._sum_sparse(gradients[index], f"sparse_{index}")
            else:
                dense.append(index)
        numbers = sum(gradients[index].shape.num_elements() for index in dense)
        self.bytes_per_step = 2.0 * (self.group.size - 1) / self.group.size * self.wire_dtype.size * numbers
        for number, bucket in enumerate(self.buckets([gradients[index] for index in dense])):
            indices = [dense[position] for position in bucket]
            for index, total in zip(
                indices, self._sum_dense([gradients[i] for i in indices], f"bucket_{number}"), strict=True
            ):
                result[index] = total
        return [*result, all_reduce(sums, self.group, "sums")]

    def buckets(self, tensors: list[tf.Tensor]) -> list[list[int]]:
        """Splits positions 0..n-1 into runs of at most `bucket_bytes`, one tensor at least."""
        runs: list[list[int]] = []
        filled = 0.0
        for position, tensor in enumerate(tensors):
            size = 4.0 * tensor.shape.num_elements()
            if not runs or filled + size > self.bucket_bytes:
                runs.append([])
                filled = 0.0
            runs[-1].append(position)
            filled += size
        return runs

    def _sum_dense(self, tensors: list[tf.Tensor], name: str) -> list[tf.Tensor]:
        if self.wire_dtype == tf.float32:
            return grouped_all_reduce(tensors, self.group, name)
        share = 1.0 / self.group.size
        packed = [tf.cast(tensor * share, self.wire_dtype) for tensor in tensors]
        summed = grouped_all_reduce(packed, self.group, name)
        return [tf.cast(total, t.dtype) * self.group.size for total, t in zip(summed, tensors, strict=True)]

    def _sum_sparse(self, gradient: tf.IndexedSlices, name: str) -> tf.Tensor:
        def gather() -> tf.Tensor:
            values = all_gather_first(gradient.values, self.group, f"{name}/values")
            indices = all_gather_first(gradient.indices, self.group, f"{name}/indices")
            return tf.convert_to_tensor(tf.IndexedSlices(values, indices, dense_shape=gradient.dense_shape))

        def dense() -> tf.Tensor:
            return self._sum_dense([tf.convert_to_tensor(gradient)], f"{name}/dense")[0]

        if self.sparse != "auto":
            return gather() if self.sparse == "gather" else dense()
        # All ranks have batches of one shape, so they all take the same branch.
        rows, table = tf.size(gradient.indices), tf.cast(gradient.dense_shape[0], tf.int32)
        return tf.cond(rows * self.group.size < 2 * table, gather, dense)
