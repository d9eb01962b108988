"""Every epoch of PK batches is counted, on one, two and four workers."""

from collections import Counter

import numpy as np
import pytest

from appzoo.person_reid.sampler import PkSampler
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import ConfigError

# 16 identities with 1 to 9 images, and 10 unlabelled rows in between.
SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 4, 4, 4, 2, 6, 4, 3]


def table(unlabelled: int = 10) -> EncodedTable:
    pids = np.concatenate([*(np.full(size, 100 + i) for i, size in enumerate(SIZES)), np.full(unlabelled, -1)])
    return EncodedTable({"pid": np.random.default_rng(0).permutation(pids).astype(np.int32)})


def identities_of(rows: np.ndarray, pids: np.ndarray, images: int = 4) -> list[int]:
    groups = pids[rows].reshape(-1, images)
    assert (groups == groups[:, :1]).all()
    return groups[:, 0].tolist()


@pytest.mark.parametrize("epoch", [0, 1, 7])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_batches_have_p_identities_with_k_images_and_every_image_comes(workers, epoch):
    encoded = table()
    pids = encoded.columns["pid"]
    sampler = PkSampler(pids, 4, seed=3)
    batches = [
        Batches(encoded, 32 // workers, shuffle=True, shard=(r, workers), sampler=sampler) for r in range(workers)
    ]
    groups = sum(-(-size // 4) for size in SIZES)
    assert [b.steps_per_epoch for b in batches] == [-(-groups // 8)] * workers
    seen: Counter[int] = Counter()
    for shares in zip(*(b.rows(epoch) for b in batches), strict=True):
        whole = [pid for rows in shares for pid in identities_of(rows, pids)]
        assert len(set(whole)) == len(whole) == 8
        for rows in shares:
            seen.update(rows.tolist())
            for group in rows.reshape(-1, 4):
                owner = pids[group[0]]
                # The same image twice in a group only where the identity has fewer.
                assert len(set(group.tolist())) == min(4, SIZES[owner - 100])
    assert seen.keys() == set(np.flatnonzero(pids >= 0).tolist())


def test_the_same_identities_and_images_whatever_the_number_of_workers():
    encoded = table()
    sampler = PkSampler(encoded.columns["pid"], 4, seed=3)
    plans = [sampler.plan(2, 32, workers) for workers in (1, 2, 4)]
    for one, two, four in zip(*plans, strict=True):
        assert sorted(one) == sorted(two) == sorted(four)
    # What two workers compute at once is what one computes as two accumulated batches.
    even = PkSampler(np.repeat(np.arange(1, 9), 4), 2, seed=1)
    halves, shares = even.plan(0, 8, 1), even.plan(0, 16, 2)
    for number, rows in enumerate(shares):
        for worker in range(2):
            np.testing.assert_array_equal(rows[worker::2], halves[2 * number + worker])


def test_epochs_differ_and_repeat_by_seed():
    pids = table().columns["pid"]
    first, again = PkSampler(pids, 4, seed=3), PkSampler(pids, 4, seed=3)
    np.testing.assert_array_equal(first.plan(5, 32, 1), again.plan(5, 32, 1))
    assert not np.array_equal(first.plan(5, 32, 1), first.plan(6, 32, 1))
    assert not np.array_equal(first.plan(5, 32, 1), PkSampler(pids, 4, seed=4).plan(5, 32, 1))


def test_an_identity_with_most_images_never_stands_alone():
    pids = np.concatenate([np.full(40, 1), np.full(4, 2), np.full(4, 3)])
    plan = PkSampler(pids, 4, seed=0).plan(0, 8, 1)
    assert len(plan) == 10
    assert all(len(set(identities_of(rows, pids))) == 2 for rows in plan)
    assert {row for rows in plan for row in rows} == set(range(48))


@pytest.mark.parametrize("workers", [1, 2])
def test_unlabelled_rows_take_turns_over_epochs(workers):
    pids = table().columns["pid"]
    sampler = PkSampler(pids, 4, seed=3, unlabelled=4, batch_size=20)
    size = 20 * workers
    rows = np.concatenate([sampler.plan(epoch, size, workers) for epoch in range(4)])
    turns = []
    for batch in rows:
        for worker in range(workers):
            share = batch[worker::workers]
            assert (pids[share[:16]] >= 0).all() and (pids[share[16:]] == -1).all()
            turns += share[16:].tolist()
    for start in range(0, len(turns) - 10, 10):
        assert sorted(turns[start : start + 10]) == np.flatnonzero(pids == -1).tolist()


def test_rows_for_something_else_are_left_out():
    pids = np.repeat([1, 2, 3, 4], 4)
    usable = pids != 3
    plan = PkSampler(pids, 2, seed=0, usable=usable).plan(0, 4, 1)
    assert set(pids[np.concatenate(plan)]) == {1, 2, 4}


@pytest.mark.parametrize(
    ("size", "workers", "text"),
    [
        (30, 1, "whole identities of 4"),
        (40, 3, "whole identities"),
        (80, 1, "a batch has 20 identities, and .* only 16"),
    ],
)
def test_what_cannot_be_made_is_refused(size, workers, text):
    with pytest.raises(ConfigError, match=text):
        PkSampler(table().columns["pid"], 4, seed=0).steps(size, workers)
    with pytest.raises(ConfigError, match="no unlabelled row"):
        PkSampler(np.array([1, 1]), 2, seed=0, unlabelled=2, batch_size=4)
