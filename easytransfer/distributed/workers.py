"""What training needs from the other workers, whatever the backend; with one worker every exchange is the identity."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from easytransfer.distributed.collectives import Group
    from easytransfer.distributed.pipeline import Stage


class Workers:
    """One worker. Backends override what several of them do differently.

    Attributes:
        rank: Number of this worker, from 0.
        size: Number of workers.
        local_rank: Number of this worker among those of its machine.
        replica: Number of the model's copy this worker belongs to; it decides its rows and dropout masks.
        replicas: Number of copies.
        bytes_per_step: Bytes of dense gradients that each worker sends in a step; known when the first one is traced.
        tensor: Workers that split every layer of this copy; None = layers are whole.
        stage: Part of the model's depth that this worker holds; None = all.
    """

    rank = 0
    size = 1
    local_rank = 0
    replica = 0
    replicas = 1
    bytes_per_step: float = 0.0
    tensor: Group | None = None
    stage: Stage | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes files."""
        return self.rank == 0

    def reduce(
        self, tensors: list[tf.Tensor | tf.IndexedSlices], variables: Sequence[tf.Variable]
    ) -> list[tf.Tensor | tf.IndexedSlices]:
        """Sums every tensor over the workers that hold a replica of its variable.

        Args:
            tensors: All gradients of a step that exist, in order, and last one float32 vector with the summed losses
                and weights. The list is the same on every worker.
            variables: The variable of each gradient.
        """
        return tensors

    def keep_residuals(self, variables: Sequence[tf.Variable]) -> list[tf.Variable | None]:
        """Makes what keeps the part of each variable's gradient that a lossy wire has yet to send; None = nothing."""
        return [None] * len(variables)

    def joined_residuals(self) -> AbstractContextManager[None]:
        """Context in which residuals are those of all workers together; all must enter it at the same step."""
        return nullcontext()

    def share_residuals(self) -> None:
        """Shares residuals that every worker has read as a whole."""

    def average(self, variables: Sequence[tf.Variable]) -> None:
        """Gives every copy of the model the mean of the copies' values; equal ones stay as they are."""

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """Gives every worker the chief's values."""

    def gather(self, value: Any) -> list[Any]:
        """Returns every worker's `value`, in order of rank, on all of them."""
        return [value]

    def gather_replicas(self, value: Any) -> list[Any]:
        """Returns the `value` of every copy of the model, in order; workers of one copy have the same."""
        return self.gather(value)

    def sum_replicas(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Returns the sum of `x` over the copies of the model, inside a graph that is not compiled."""
        return x

    def sum_stages(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Returns the sum of `x` over the stages of the model."""
        return x

    def count_before(self, count: int) -> int:
        """Returns the sum of `count` over the stages before this one."""
        return 0

    def join_stages(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays of all stages, in order of the stages; all workers must ask."""
        return arrays

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on at least one worker."""
        return any(self.gather(flag))

    def check_same(self, what: str, value: str) -> None:
        """Makes sure that all workers have the same value.

        Raises:
            ConfigError: They do not; names the first rank that differs.
        """

    def explained_losses(self) -> AbstractContextManager[None]:
        """Context that turns the failure of an exchange into `Interrupted`."""
        return nullcontext()

    def barrier(self) -> None:
        """Waits for all workers."""
        self.gather(None)


ONE_WORKER = Workers()
