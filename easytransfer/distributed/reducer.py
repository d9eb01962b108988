"""Sum of gradients over workers: buckets that travel while the backward pass goes on, wire formats, sparse policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import tensorflow as tf

from easytransfer.distributed.collectives import Group, all_gather_first, all_reduce, grouped_all_reduce
from easytransfer.distributed.int8_wire import BYTES_PER_NUMBER, int8_sum
from easytransfer.distributed.shards import mark_shard, shard_of

WireDtype = Literal["float32", "float16", "int8"]
Sparse = Literal["auto", "gather", "dense"]
# A small model has smaller buckets: with few of them, the first would be full when the backward pass is nearly over.
_BUCKETS, _SMALLEST_BUCKET = 8, 2**18


class GradientReducer:
    """Sums a step's tensors over a group of workers.

    Dense gradients are put into buckets from the last to the first, the order in which the backward pass makes them;
    each bucket is one fused exchange that starts when its last member is there. The last tensor (summed losses and
    weights) always travels alone, in float32.

    Args:
        group: Workers to sum over.
        bucket_mb: Largest size of a bucket in MiB of float32; a small model has about eight smaller ones.
        wire_dtype: Number format on the wire. In float16 each rank sends 1/size of its gradient, so that a sum of
            gradients within float16's range cannot leave it; what is lost are magnitudes below 6e-8 times the size.
            With int8 see `int8_wire`; what rounding leaves is kept per variable and sent with the next step.
        sparse: How gradients of embeddings travel: `gather` sends looked-up rows, in float16 unless the wire is
            float32, `dense` the whole table, `auto` what is fewer bytes: on a wire of one format rows if all ranks
            together have fewer than twice the table's.
    """

    def __init__(
        self, group: Group, *, bucket_mb: float = 8.0, wire_dtype: WireDtype = "float32", sparse: Sparse = "auto"
    ) -> None:
        self.group, self.bucket_bytes = group, bucket_mb * 2**20
        self.wire_dtype, self.sparse = tf.dtypes.as_dtype(wire_dtype), sparse
        self.bytes_per_number = BYTES_PER_NUMBER if wire_dtype == "int8" else float(self.wire_dtype.size)
        self.row_dtype = tf.float32 if self.wire_dtype == tf.float32 else tf.float16
        self.bytes_per_step = 0.0
        # By id of the variable.
        self._residuals: dict[int, tf.Variable] = {}

    def keep_residuals(self, variables: Sequence[tf.Variable]) -> list[tf.Variable | None]:
        """Makes what keeps the unsent part of each variable's gradient; None where nothing is left unsent."""
        if self.wire_dtype != tf.int8 or self.group.size == 1:
            return [None] * len(variables)
        kept: list[tf.Variable | None] = []
        for variable in variables:
            residual = None
            if not self._is_complete(variable):
                residual = self._residuals[id(variable)] = tf.Variable(tf.zeros(variable.shape), trainable=False)
                if (shard := shard_of(variable)) is not None:
                    mark_shard(residual, shard)
            kept.append(residual)
        return kept

    @contextmanager
    def joined_residuals(self) -> Iterator[None]:
        """Context in which every rank holds the sum of all ranks' residuals; afterwards each has an equal share.

        A checkpoint written in it fits any number of workers, and training goes on as it would after reading it.
        """
        for number, residual in enumerate(self._residuals.values()):
            residual.assign(all_reduce(residual.read_value(), self.group, f"residual_{number}"))
        yield
        self.share_residuals()

    def share_residuals(self) -> None:
        """Gives every rank an equal share of residuals that all of them hold as a whole."""
        for residual in self._residuals.values():
            residual.assign(residual / self.group.size)

    def _is_complete(self, variable: tf.Variable) -> bool:
        """Whether gradients of a variable need no sum: it is split over this very group."""
        shard = shard_of(variable)
        return shard is not None and shard.group.ranks == self.group.ranks

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
        # Backwards, as the backward pass makes them: the first bucket is full, and travels, while others are computed.
        for index in reversed(range(len(gradients))):
            if self._is_complete(variables[index]):
                result[index] = gradients[index]
            elif isinstance(gradients[index], tf.IndexedSlices):
                result[index] = self._sum_sparse(gradients[index], variables[index], f"sparse_{index}")
            else:
                dense.append(index)
        numbers = sum(gradients[index].shape.num_elements() for index in dense)
        # A ring sends every number twice, once to add up and once to hand out, but for each rank's own part.
        self.bytes_per_step = 2.0 * (self.group.size - 1) / self.group.size * self.bytes_per_number * numbers
        for number, bucket in enumerate(self.buckets([gradients[index] for index in dense])):
            indices = [dense[position] for position in bucket]
            totals = self._sum_dense(
                [gradients[i] for i in indices], [variables[i] for i in indices], f"bucket_{number}"
            )
            for index, total in zip(indices, totals, strict=True):
                result[index] = total
        return [*result, all_reduce(sums, self.group, "sums")]

    def buckets(self, tensors: Sequence[tf.Tensor | tf.TensorSpec]) -> list[list[int]]:
        """Splits positions 0..n-1 into runs of at most `bucket_bytes`, less for few bytes; one tensor at least."""
        sizes = [4.0 * tensor.shape.num_elements() for tensor in tensors]
        largest = min(self.bucket_bytes, max(sum(sizes) / _BUCKETS, _SMALLEST_BUCKET))
        runs: list[list[int]] = []
        filled = 0.0
        for position, size in enumerate(sizes):
            if not runs or filled + size > largest:
                runs.append([])
                filled = 0.0
            runs[-1].append(position)
            filled += size
        return runs

    def _sum_dense(self, tensors: list[tf.Tensor], variables: list[tf.Variable], name: str) -> list[tf.Tensor]:
        if self.wire_dtype == tf.float32:
            return grouped_all_reduce(tensors, self.group, name)
        if self.wire_dtype == tf.int8:
            return self._sum_int8(tensors, variables, name)
        share = 1.0 / self.group.size
        packed = [tf.cast(tensor * share, self.wire_dtype) for tensor in tensors]
        summed = grouped_all_reduce(packed, self.group, name)
        return [tf.cast(total, t.dtype) * self.group.size for total, t in zip(summed, tensors, strict=True)]

    def _sum_int8(self, tensors: list[tf.Tensor], variables: list[tf.Variable], name: str) -> list[tf.Tensor]:
        residuals = [self._residuals[id(variable)] for variable in variables]
        wanted = [tf.cast(t, tf.float32) + residual for t, residual in zip(tensors, residuals, strict=True)]
        sizes = [tensor.shape.num_elements() for tensor in tensors]
        joined = tf.concat([tf.reshape(tensor, [-1]) for tensor in wanted], axis=0)
        total, rest = int8_sum(joined, self.group, name)
        for residual, part in zip(residuals, tf.split(rest, sizes), strict=True):
            part = tf.reshape(part, residual.shape)
            # A step that is not finite is skipped; it must not spoil those behind it.
            residual.assign(tf.where(tf.math.is_finite(part), part, residual))
        sums = zip(tf.split(total, sizes), tensors, strict=True)
        return [tf.cast(tf.reshape(part, tensor.shape), tensor.dtype) for part, tensor in sums]

    def _sum_sparse(self, gradient: tf.IndexedSlices, variable: tf.Variable, name: str) -> tf.Tensor:
        def gather() -> tf.Tensor:
            values = tf.cast(gradient.values, self.row_dtype)
            values = tf.cast(all_gather_first(values, self.group, f"{name}/values"), gradient.values.dtype)
            indices = all_gather_first(gradient.indices, self.group, f"{name}/indices")
            return tf.convert_to_tensor(tf.IndexedSlices(values, indices, dense_shape=gradient.dense_shape))

        def dense() -> tf.Tensor:
            table = tf.ensure_shape(tf.convert_to_tensor(gradient), variable.shape)
            return self._sum_dense([table], [variable], f"{name}/dense")[0]

        if self.sparse != "auto":
            return gather() if self.sparse == "gather" else dense()
        # After several micro-batches the ranks have different numbers of rows, and all must take the same branch.
        rows = all_reduce(tf.size(gradient.indices), self.group, f"{name}/rows")
        # Bytes for each column of the table: gathered rows arrive once, the sum in a ring sends every number twice.
        table = 2.0 * self.bytes_per_number * variable.shape[0]
        return tf.cond(self.row_dtype.size * tf.cast(rows, tf.float32) < table, gather, dense)
