"""Batches of several streams of rows: so many of each in every batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from easytransfer.errors import ConfigError


class Stream(NamedTuple):
    """Rows that have a place of their own in every batch.

    Attributes:
        name: For messages.
        rows: Their numbers in the table, int [rows].
        share: Of a batch; that of the first stream is what the others leave.
    """

    name: str
    rows: np.ndarray
    share: float


class StreamSampler:
    """Plans epochs in which every row of the first stream comes, and rows of each stream are in every batch.

    The order of the first stream is new in every epoch; where its rows do not fill the last batch, the first ones of
    the epoch come again. Rows of the other streams take their turns in random order, which goes on over epochs.

    Args:
        streams: The leading stream, then the others.
        seed: Seed of the plans.

    Raises:
        ConfigError: A stream has no rows.

    Example:
        >>> streams = [Stream("source", np.arange(6), 0), Stream("target", np.arange(6, 9), 0.25)]
        >>> [len(rows) for rows in StreamSampler(streams, seed=0).plan(0, size=4, workers=1)]
        [4, 4]
    """

    def __init__(self, streams: Sequence[Stream], seed: int) -> None:
        self.streams, self.seed = list(streams), seed % 2**63
        for stream in self.streams:
            if not len(stream.rows):
                raise ConfigError(f"the training tables have no {stream.name} row")

    def steps(self, size: int, workers: int) -> int:
        """Returns the number of batches of an epoch; see `Sampler.steps`.

        Raises:
            ConfigError: A batch has no place for each stream.
        """
        return -(-len(self.streams[0].rows) // (self._counts(size, workers)[0] * workers))

    def plan(self, epoch: int, size: int, workers: int) -> list[np.ndarray]:
        """Returns the rows of the batches; see `Sampler.plan`. Each worker has as many rows of each stream."""
        counts, steps = self._counts(size, workers), self.steps(size, workers)
        parts = []
        for number, (stream, count) in enumerate(zip(self.streams, counts, strict=True)):
            needed = steps * count * workers
            if number:
                rows = self._turns(number, stream.rows, epoch * needed, needed)
            else:
                rows = np.resize(self._order(number, epoch).permutation(stream.rows), needed)
            parts.append(rows.reshape(steps, workers, count))
        # Worker r takes the places r, r + workers, ...
        return [batch.T.ravel() for batch in np.concatenate(parts, axis=2)]

    def _counts(self, size: int, workers: int) -> list[int]:
        """Returns the rows of each stream in the batch of one worker."""
        rows, uneven = divmod(size, workers)
        others = [max(1, round(rows * stream.share)) for stream in self.streams[1:]]
        if uneven or rows - sum(others) < 1:
            raise ConfigError(
                f"a batch of {size} rows on {workers} workers has no place for "
                f"{' and '.join(stream.name for stream in self.streams)} rows on each",
                fix="raise train.batch_size",
            )
        return [rows - sum(others), *others]

    def _order(self, stream: int, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, stream, number]))

    def _turns(self, stream: int, rows: np.ndarray, first: int, count: int) -> np.ndarray:
        """Returns the rows whose turn it is, from number `first` on, int [count]."""
        rounds = range(first // len(rows), (first + count - 1) // len(rows) + 1)
        orders = [self._order(stream, number).permutation(rows) for number in rounds]
        return np.concatenate(orders)[first - rounds[0] * len(rows) :][:count]
