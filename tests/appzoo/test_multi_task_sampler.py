"""Which task each update is of: rates by hand and by the formula of the paper, counts, turns of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from appzoo.multi_task.sampler import TaskSampler, mixing_rates


@pytest.mark.parametrize(
    ("rows", "temperature", "limit", "expected"),
    [
        ([800, 200], 1.0, None, [0.8, 0.2]),
        # The square roots of 0.8 and 0.2 are as 2 to 1.
        ([800, 200], 2.0, None, [2 / 3, 1 / 3]),
        ([800, 200], 1.0, 200, [0.5, 0.5]),
        # min(e, K) is 400, 200, 100; r^(1/2) is as 2, sqrt 2, 1.
        ([10**9, 200, 100], 2.0, 400, np.array([2, 2**0.5, 1]) / (3 + 2**0.5)),
        ([800, 200], 1e9, None, [0.5, 0.5]),
    ],
)
def test_rates_are_those_of_the_paper(rows, temperature, limit, expected):
    np.testing.assert_allclose(mixing_rates(rows, temperature, limit), expected, rtol=1e-6)


def sampler_of(sizes: list[int], accumulated: int = 1, seed: int = 5, **options: Any) -> TaskSampler:
    ends = np.cumsum([0, *sizes])
    rows = [np.arange(a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    lengths = np.random.default_rng(0).integers(3, 40, ends[-1])
    return TaskSampler(rows, mixing_rates(sizes, **options), lengths, seed, accumulated)


def tasks_of(plan: list[np.ndarray], sizes: list[int]) -> np.ndarray:
    """The task of each batch; every batch has rows of one."""
    ends = np.cumsum(sizes)
    of = [np.searchsorted(ends, batch, side="right") for batch in plan]
    assert all((each == each[0]).all() for each in of)
    return np.array([each[0] for each in of])


@pytest.mark.parametrize("options", [{}, {"temperature": 4.0}, {"limit": 30}])
def test_updates_come_as_often_as_the_rates_say(options):
    sizes = [230, 70, 9]
    sampler, rates = sampler_of(sizes, **options), mixing_rates(sizes, **options)
    assert sampler.steps(8, 1) == 39  # 309 rows, 8 at a time
    counts = np.stack([np.bincount(tasks_of(sampler.plan(e, 8, 1), sizes), minlength=3) for e in range(20)])
    assert (counts.sum(axis=1) == 39).all()
    assert (np.abs(counts - 39 * rates) < 1).all()
    counts = np.stack([sampler.counts(epoch, 39) for epoch in range(400)])
    # The number of an epoch is n r rounded up or down: its deviation is at most 1/2, that of the mean 1/2 / sqrt(400).
    np.testing.assert_allclose(counts.mean(axis=0), 39 * rates, atol=4 * 0.5 / 400**0.5)
    orders = {tuple(tasks_of(sampler.plan(e, 8, 1), sizes)) for e in range(4)}
    assert len(orders) == 4


def test_rows_of_a_task_take_turns_over_epochs():
    sizes = [41, 10]
    sampler = sampler_of(sizes, temperature=2.0)
    seen = np.zeros(51, int)
    for epoch in range(5):
        for batch in sampler.plan(epoch, 4, 1):
            np.add.at(seen, batch, 1)
        for rows in (seen[:41], seen[41:]):
            assert rows.max() - rows.min() <= 1
    assert seen[41:].min() > seen[:41].max()  # its rate is above its share


def test_a_plan_is_of_seed_and_epoch_alone_and_workers_share_it():
    first, again, other = sampler_of([33, 20]), sampler_of([33, 20]), sampler_of([33, 20], seed=6)
    plan = [batch.tolist() for batch in first.plan(3, 6, 1)]
    assert plan == [batch.tolist() for batch in again.plan(3, 6, 2)]
    assert plan != [batch.tolist() for batch in other.plan(3, 6, 1)]
    lengths = np.random.default_rng(0).integers(3, 40, 53)
    spread = np.mean([np.ptp(lengths[batch]) for batch in first.plan(3, 6, 1)])
    assert spread < 0.5 * np.ptp(lengths), "rows of like length are together"


def test_batches_of_an_update_are_of_one_task():
    sizes = [50, 21]
    sampler = sampler_of(sizes, accumulated=3)
    assert sampler.steps(4, 1) == 18  # 71 rows, 12 in an update
    for epoch in range(3):
        of = tasks_of(sampler.plan(epoch, 4, 1), sizes).reshape(-1, 3)
        assert (of == of[:, :1]).all() and len(np.unique(of)) == 2
