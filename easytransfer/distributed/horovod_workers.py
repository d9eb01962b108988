"""Workers that are processes connected by Horovod."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.distributed.collectives import Group, all_gather_first, all_reduce, grouped_all_reduce, horovod
from easytransfer.distributed.layout import Layout
from easytransfer.distributed.pipeline import Stage
from easytransfer.distributed.reducer import GradientReducer
from easytransfer.distributed.shards import shard_of
from easytransfer.distributed.workers import Workers
from easytransfer.errors import ConfigError, Interrupted


class HorovodWorkers(Workers):
    """All processes of a Horovod job; made once per process, before TensorFlow runs anything.

    Args:
        tensor_parallel: Workers that split each layer.
        pipeline_stages: Workers that split the depth.
        micro_batches: See `Stage`.
        wire_dtype: See `GradientReducer`.
        bucket_mb: See `GradientReducer`.
        sparse: See `GradientReducer`.

    Raises:
        ConfigError: Horovod is missing.
    """

    def __init__(
        self,
        *,
        tensor_parallel: int = 1,
        pipeline_stages: int = 1,
        micro_batches: int = 1,
        wire_dtype: str = "float32",
        bucket_mb: float = 8.0,
        sparse: str = "auto",
    ) -> None:
        # With a fusion buffer of the bucket's size no two buckets wait for each other; what is set is not tuned.
        if "HOROVOD_AUTOTUNE" not in os.environ:
            os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", str(int(bucket_mb * 2**20)))
        hvd = horovod()
        size = int(os.environ.get("HOROVOD_SIZE", 0)) or None
        sets: dict[tuple[int, ...], Any] = {}
        if tensor_parallel * pipeline_stages > 1 and size is not None:
            layout = Layout(size, tensor_parallel, pipeline_stages)
            wanted = [ranks for kind in ("data", "tensor", "pipeline", "link") for ranks in layout.groups(kind)]
            sets = {ranks: hvd.ProcessSet(ranks) for ranks in wanted if 1 < len(ranks) < size}
        hvd.init(process_sets=list(sets.values()))
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self.layout = Layout(self.size, tensor_parallel, pipeline_stages)
        self._share_cores()
        sets[tuple(range(self.size))] = hvd.global_process_set
        self.everyone = self._group("all", tuple(range(self.size)), sets)
        self.data = self._own_group("data", sets)
        self.tensor = self._own_group("tensor", sets)
        self.replica, self.replicas = self.data.rank, self.data.size
        self._pipeline = self._own_group("pipeline", sets)
        if pipeline_stages > 1:
            number, links = self._pipeline.rank, zip(self._pipeline.ranks, self._pipeline.ranks[1:], strict=False)
            groups = {pair: self._group(f"link{i}", pair, sets) for i, pair in enumerate(links) if self.rank in pair}
            before = next((group for group in groups.values() if group.rank == 1), None)
            after = next((group for group in groups.values() if group.rank == 0), None)
            self.stage = Stage(number, pipeline_stages, before, after, micro_batches)
        self.reduce = GradientReducer(self.data, bucket_mb=bucket_mb, wire_dtype=wire_dtype, sparse=sparse)
        self._hvd, self._exchanges = hvd, 0

    def _group(self, name: str, ranks: tuple[int, ...], sets: dict[tuple[int, ...], Any]) -> Group:
        return Group(name, ranks, ranks.index(self.rank), sets.get(ranks))

    def _own_group(self, kind: str, sets: dict[tuple[int, ...], Any]) -> Group:
        return next(self._group(kind, ranks, sets) for ranks in self.layout.groups(kind) if self.rank in ranks)

    def _share_cores(self) -> None:
        """Gives every worker of a machine its share of the cores, unless the user has decided."""
        if {"OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"} & os.environ.keys():
            return
        cores = max(1, len(os.sched_getaffinity(0)) // self.local_size)
        tf.config.threading.set_intra_op_parallelism_threads(cores)
        # One more than computes: an exchange must never wait for a thread.
        tf.config.threading.set_inter_op_parallelism_threads(cores + 1)

    @property
    def bytes_per_step(self) -> float:
        """See `Workers`."""
        return self.reduce.bytes_per_step

    def keep_residuals(self, variables: Sequence[tf.Variable]) -> list[tf.Variable | None]:
        """See `GradientReducer`."""
        return self.reduce.keep_residuals(variables)

    def joined_residuals(self) -> AbstractContextManager[None]:
        """See `GradientReducer`."""
        return self.reduce.joined_residuals()

    def share_residuals(self) -> None:
        """See `GradientReducer`."""
        self.reduce.share_residuals()

    def average(self, variables: Sequence[tf.Variable]) -> None:
        """Gives every copy of the model the mean of the copies' values; see `Workers`."""
        if self.data.size == 1:
            return
        # In float64 the mean of equal numbers is that number.
        totals = grouped_all_reduce([tf.cast(v, tf.float64) for v in variables], self.data, "statistics")
        for variable, total in zip(variables, totals, strict=True):
            variable.assign(tf.cast(total / self.data.size, variable.dtype))

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """Gives every worker the values of the first one that holds the same variables or parts."""
        for group in (self.data, self.tensor):
            shards = [(variable, shard_of(variable)) for variable in variables]
            alike = [v for v, shard in shards if shard is None or shard.group.ranks != group.ranks]
            if group.size > 1:
                self._hvd.broadcast_variables(alike, group.ranks[0], group.process_set)

    def gather(self, value: Any) -> list[Any]:
        """Returns every worker's `value`, in order of rank.

        The values are pickled: they travel between processes of one job and never come from a file.
        """
        self._exchanges += 1
        content = np.frombuffer(pickle.dumps(value), np.uint8)
        name = f"gather_{self._exchanges}"
        lengths = all_gather_first(tf.constant([len(content)]), self.everyone, f"{name}/length").numpy()
        joined = all_gather_first(tf.constant(content), self.everyone, name).numpy()
        ends = np.cumsum(lengths)
        return [pickle.loads(joined[end - n : end].tobytes()) for end, n in zip(ends, lengths, strict=True)]

    def gather_replicas(self, value: Any) -> list[Any]:
        """Returns the `value` of every copy of the model; see `Workers`."""
        # Outputs are on the last stage, the same on all its shards.
        last = self.layout.pipeline_stages - 1
        speakers = [self.layout.rank(last, replica, 0) for replica in range(self.replicas)]
        values = self.gather(value if self.rank in speakers else None)
        return [values[rank] for rank in speakers]

    def sum_replicas(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Returns the sum of `x` over the copies of the model."""
        return all_reduce(x, self.data, name)

    def sum_stages(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Returns the sum of `x` over the stages of the model."""
        return all_reduce(x, self._pipeline, name)

    def count_before(self, count: int) -> int:
        """Returns the sum of `count` over the stages before this one."""
        counts = self.gather(count)
        return sum(counts[rank] for rank in self._pipeline.ranks[: self._pipeline.rank])

    def join_stages(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays of all stages, in order of the stages; all workers must ask."""
        if self.stage is None:
            return arrays
        own = arrays if self.replica == 0 and self.tensor.rank == 0 else {}
        names = dict.fromkeys(name for names in self.gather(list(own)) for name in names)
        # One by one: together they may be larger than a message can be.
        return {name: next(a for a in self.gather(own.get(name)) if a is not None) for name in names}

    def check_same(self, what: str, value: str) -> None:
        """Makes sure that all workers have the same value; see `Workers`."""
        for rank, other in enumerate(self.gather(value)):
            if other != value:
                text = f"rank {rank} has another {what} than rank {self.rank}"
                raise ConfigError(text, received=other, accepted=value)

    @contextmanager
    def explained_losses(self) -> Iterator[None]:
        """Turns the failure of an exchange into `Interrupted`: what was saved is good, and the job can go on."""
        try:
            yield
        except tf.errors.OpError as error:
            if "Horovod" not in str(error):
                raise
            raise Interrupted(
                f"rank {self.rank} lost another worker of the job",
                fix="see that one's messages; the same command goes on from the last checkpoint",
            ) from error
