"""How the workers of a job are arranged: replicas of the model, shards of its layers, stages of its depth."""

from __future__ import annotations

from dataclasses import dataclass

from easytransfer.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """`rank = (stage * data_parallel + replica) * tensor_parallel + shard`: shards are neighbours.

    Args:
        size: Number of workers.
        tensor_parallel: Workers that split each layer.
        pipeline_stages: Workers that split the depth.

    Raises:
        ConfigError: The product of the two does not divide the number of workers.
    """

    size: int
    tensor_parallel: int = 1
    pipeline_stages: int = 1

    def __post_init__(self) -> None:
        if self.size % (self.tensor_parallel * self.pipeline_stages):
            raise ConfigError(
                f"{self.size} workers cannot be split into {self.pipeline_stages} stages of "
                f"{self.tensor_parallel} shards",
                fix="choose workers as a multiple of tensor_parallel * pipeline_stages",
            )

    @property
    def data_parallel(self) -> int:
        """Number of replicas of the whole model."""
        return self.size // (self.tensor_parallel * self.pipeline_stages)

    def rank(self, stage: int, replica: int, shard: int) -> int:
        """Returns the rank at a place."""
        return (stage * self.data_parallel + replica) * self.tensor_parallel + shard

    def place(self, rank: int) -> tuple[int, int, int]:
        """Returns stage, replica and shard of a rank."""
        rest, shard = divmod(rank, self.tensor_parallel)
        stage, replica = divmod(rest, self.data_parallel)
        return stage, replica, shard

    def groups(self, kind: str) -> list[tuple[int, ...]]:
        """Returns all groups of a kind, each with its ranks in order.

        Args:
            kind: `data` (same stage and shard), `tensor` (same stage and replica), `pipeline` (same replica and
                shard), or `link` (two neighbouring stages of one replica and shard).
        """
        stages, replicas, shards = (range(n) for n in (self.pipeline_stages, self.data_parallel, self.tensor_parallel))
        if kind == "data":
            return [tuple(self.rank(s, r, t) for r in replicas) for s in stages for t in shards]
        if kind == "tensor":
            return [tuple(self.rank(s, r, t) for t in shards) for s in stages for r in replicas]
        if kind == "pipeline":
            return [tuple(self.rank(s, r, t) for s in stages) for r in replicas for t in shards]
        if kind == "link":
            pairs = zip(stages, stages[1:], strict=False)
            return [(self.rank(a, r, t), self.rank(b, r, t)) for a, b in pairs for r in replicas for t in shards]
        raise ValueError(f"unknown kind of group {kind!r}")
