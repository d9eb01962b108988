"""Batches of the rows of one domain."""

from __future__ import annotations

import numpy as np


class RowSampler:
    """Plans epochs in which some rows of a table come once each, in a new order every time.

    Args:
        rows: Their numbers, int [rows].
        seed: Seed of the orders.

    Example:
        >>> [len(rows) for rows in RowSampler(np.arange(3, 8), seed=0).plan(0, size=4, workers=1)]
        [4, 1]
    """

    def __init__(self, rows: np.ndarray, seed: int) -> None:
        self.rows, self.seed = rows, seed % 2**63

    def steps(self, size: int, workers: int) -> int:
        """Returns the number of batches of an epoch; see `Sampler.steps`."""
        return -(-len(self.rows) // size)

    def plan(self, epoch: int, size: int, workers: int) -> list[np.ndarray]:
        """Returns the rows of the batches of an epoch; see `Sampler.plan`."""
        order = np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(self.rows)
        return [order[start : start + size] for start in range(0, len(order), size)]
