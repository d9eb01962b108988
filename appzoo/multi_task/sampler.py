"""Which task each update is of, and which of its rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from easytransfer.data.batches import WINDOW_BATCHES

# First of what random numbers are drawn for.
_COUNTS, _UPDATES, _BATCHES, _TURNS = range(4)


def mixing_rates(rows: Sequence[int], temperature: float = 1.0, limit: int | None = None) -> np.ndarray:
    """Returns how often each task is drawn, float64 [tasks] of sum 1.

    With e_m rows of task m and r_m = min(e_m, K) / sum of min(e_n, K), the rates are r_m^(1/T) over their sum
    (Raffel et al. 2020, arXiv 1910.10683, section 3.5.2: examples-proportional and temperature-scaled mixing).

    Args:
        rows: e, at least 1 each.
        temperature: T; 1 is examples-proportional mixing.
        limit: K; None = no limit.
    """
    counted = np.minimum(np.asarray(rows, np.float64), np.inf if limit is None else limit)
    scaled = (counted / counted.sum()) ** (1 / temperature)
    return scaled / scaled.sum()


class TaskSampler:
    """Plans epochs in which every update learns from rows of one task.

    An epoch has as many batches as all rows fill. Of its n updates a task with the rate r has n r, rounded up or down
    by a number drawn for the epoch, so that the mean over epochs is n r. Rows of a task take their turns in a random
    order that goes on over epochs and is drawn anew in every round; those drawn together are sorted by length, so that
    batches have little padding.

    Args:
        rows: Of each task, numbers of its rows in the table, int [rows].
        rates: Of each task, of sum 1; see `mixing_rates`.
        lengths: Of all rows of the table, int [rows].
        seed: Seed of the plans.
        accumulated: Batches of an update.

    Example:
        >>> rows = [np.arange(12), np.arange(12, 16)]
        >>> sampler = TaskSampler(rows, mixing_rates([12, 4]), np.ones(16), seed=0)
        >>> sorted("b" if batch.min() >= 12 else "a" for batch in sampler.plan(0, size=4, workers=1))
        ['a', 'a', 'a', 'b']
    """

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        rates: np.ndarray,
        lengths: np.ndarray,
        seed: int,
        accumulated: int = 1,
    ) -> None:
        self.rows, self.rates = list(rows), np.asarray(rates, np.float64)
        self._lengths, self._seed, self._accumulated = np.asarray(lengths), seed % 2**63, accumulated

    def steps(self, size: int, workers: int) -> int:
        """Returns the number of batches of an epoch; see `Sampler.steps`."""
        return self._updates(size) * self._accumulated

    def plan(self, epoch: int, size: int, workers: int) -> list[np.ndarray]:
        """Returns the rows of the batches; see `Sampler.plan`. Batches of an update follow each other."""
        updates = self._updates(size)
        before = sum((self.counts(number, updates) for number in range(epoch)), np.zeros(len(self.rows), np.int64))
        groups: list[np.ndarray] = []
        for task, (done, count) in enumerate(zip(before, self.counts(epoch, updates), strict=True)):
            batches = self._batches(task, epoch, int(done), int(count), size)
            groups += list(batches.reshape(count, self._accumulated, size))
        order = self._random(_UPDATES, epoch).permutation(updates)
        return [batch for number in order for batch in groups[number]]

    def counts(self, epoch: int, updates: int) -> np.ndarray:
        """Returns how many of the updates of an epoch each task has, int64 [tasks] (systematic sampling)."""
        ends = np.concatenate([[0.0], np.cumsum(self.rates)])
        ends[-1] = 1.0
        return np.diff(np.ceil(updates * ends - self._random(_COUNTS, epoch).random())).astype(np.int64)

    def _updates(self, size: int) -> int:
        return -(-sum(map(len, self.rows)) // (size * self._accumulated))

    def _batches(self, task: int, epoch: int, done: int, count: int, size: int) -> np.ndarray:
        """Returns the batches of a task in an epoch, int [count * accumulated, size], in random order."""
        per_update = self._accumulated * size
        rows = self._turns(task, done * per_update, count * per_update)
        window = WINDOW_BATCHES * size
        parts = [rows[start : start + window] for start in range(0, len(rows), window)]
        parts = [part[np.argsort(self._lengths[part], kind="stable")] for part in parts]
        batches = np.concatenate([rows[:0], *parts]).reshape(-1, size)
        return self._random(_BATCHES, task, epoch).permutation(batches)

    def _turns(self, task: int, first: int, count: int) -> np.ndarray:
        """Returns the rows of a task whose turn it is, from number `first` on, int [count]."""
        rows = self.rows[task]
        rounds = range(first // len(rows), (first + count - 1) // len(rows) + 1)
        orders = [self._random(_TURNS, task, number).permutation(rows) for number in rounds]
        return np.concatenate([rows[:0], *orders])[first - rounds.start * len(rows) :][:count]

    def _random(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self._seed, *key]))
