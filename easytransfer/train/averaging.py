"""Averaged copies of the trained weights, for evaluation and export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import tensorflow as tf

from easytransfer.distributed.shards import mark_shard, shard_of


class AveragedWeights(tf.Module):
    """Exponential moving averages: average <- decay * average + (1 - decay) * weight after every update.

    They start from the weights themselves (Polyak and Juditsky, 1992, with a constant decay).

    Args:
        variables: Trained variables.
        decay: Share of the old average; 0 switches averaging off and makes every method a no-op.
    """

    def __init__(self, variables: Sequence[tf.Variable], decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.pairs = [(v, _copy(v)) for v in variables] if decay else []

    def update(self) -> None:
        """Moves every average towards the present weights."""
        for variable, average in self.pairs:
            average.assign(self.decay * average + (1 - self.decay) * variable)

    def reset(self) -> None:
        """Starts again from the present weights."""
        for variable, average in self.pairs:
            average.assign(variable)

    def swap(self) -> None:
        """Exchanges weights and averages."""
        for variable, average in self.pairs:
            value = variable.read_value()
            variable.assign(average)
            average.assign(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Has the model use the averages while inside."""
        self.swap()
        try:
            yield
        finally:
            self.swap()


def _copy(variable: tf.Variable) -> tf.Variable:
    copy = tf.Variable(variable, trainable=False)
    if (shard := shard_of(variable)) is not None:
        mark_shard(copy, shard)
    return copy
