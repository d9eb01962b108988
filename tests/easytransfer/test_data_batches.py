"""Encoded tables against plain Python lists; the batch plan as properties."""

import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easytransfer.data.batches import Batches, prefetch
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.errors import DataError

EXPECTED_FIRST_BATCH = [482, 170, 249, 309, 428, 352, 209, 234]
ROWS = st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=8)


def table_of(lengths):
    """Row i holds the number i `lengths[i]` times, so that a batch shows where its rows are from."""
    ids = Ragged.from_lists([[i] * n for i, n in enumerate(lengths)], np.int32)
    return EncodedTable({"input_ids": ids, "row": np.arange(len(lengths))}, {"input_mask": "input_ids"})


# Ragged and EncodedTable ------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(ROWS, st.data())
def test_ragged_is_a_list_of_lists(rows, data):
    ragged = Ragged.from_lists(rows)
    indices = data.draw(st.lists(st.integers(-len(rows), len(rows) - 1), max_size=10))
    assert len(ragged) == len(rows) and ragged.lengths.tolist() == [len(row) for row in rows]
    assert [ragged[i].tolist() for i in range(len(rows))] == rows
    taken = ragged.take(indices)
    assert [taken[i].tolist() for i in range(len(indices))] == [rows[i] for i in indices]
    assert ragged.padded(indices, 7, pad=-1).tolist() == [rows[i] + [-1] * (7 - len(rows[i])) for i in indices]


def test_ragged_edges():
    assert Ragged.from_lists([]).take([]).values.shape == (0,)
    ragged = Ragged(np.arange(6).reshape(3, 2), np.array([0, 1, 3]))
    assert ragged.padded([1, 0], 2).tolist() == [[[2, 3], [4, 5]], [[0, 1], [0, 0]]]
    with pytest.raises(ValueError, match="length 2 does not fit into width 1"):
        ragged.padded([1], 1)
    with pytest.raises(IndexError):
        ragged.take([2])


def test_batch_by_hand():
    table = EncodedTable(
        {
            "ids": Ragged.from_lists([[1, 2, 3], [], [4]]),
            "tags": Ragged.from_lists([[7], [8, 8], []]),
            "y": np.array([5, 6, 7]),
        },
        masks={"mask": "ids"},
        pad_values={"tags": -1},
    )
    assert len(table) == 3 and table.lengths.tolist() == [3, 0, 1]
    batch = table.batch([2, 0], pad_multiple=2, size=3)
    assert batch["ids"].tolist() == [[4, 0, 0, 0], [1, 2, 3, 0], [4, 0, 0, 0]]
    assert batch["mask"].tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]] and batch["mask"].dtype == np.int32
    assert batch["tags"].tolist() == [[-1, -1], [7, -1], [-1, -1]]
    assert batch["y"].tolist() == [7, 5, 7]
    assert batch["example_weight"].tolist() == [1, 1, 0] and batch["example_weight"].dtype == np.float32
    only_padding = table.batch([], size=2, width_of=[0])
    assert only_padding["ids"].shape == (2, 8) and only_padding["example_weight"].tolist() == [0, 0]
    assert table.batch([1])["ids"].shape == (1, 8)
    assert table.take([1, 0]).lengths.tolist() == [0, 3]
    with pytest.raises(ValueError):
        table.batch([0, 1], size=1)


def test_lengths_sum_over_masked_columns():
    ragged = Ragged.from_lists([[1], [1, 1]])
    table = EncodedTable({"a": ragged, "b": ragged, "c": ragged}, {"mask_a": "a", "mask_b": "b"})
    assert table.lengths.tolist() == [2, 4]
    assert EncodedTable({"x": np.zeros((3, 2))}).lengths.tolist() == [1, 1, 1]


def test_row_lengths_are_those_of_the_longest_example():
    ids = Ragged.from_lists([[0] * n for n in (3, 1, 2, 2, 5, 4)])
    table = EncodedTable({"ids": ids}, {"mask": "ids"}, row_of=np.array([0, 0, 1, 2, 2, 2]))
    assert table.row_lengths.tolist() == [3, 3, 2, 5, 5, 5]
    assert EncodedTable({"ids": ids}, {"mask": "ids"}).row_lengths.tolist() == [3, 1, 2, 2, 5, 4]


@given(ROWS, ROWS)
def test_concat_is_list_addition(first, second):
    parts = [EncodedTable({"x": Ragged.from_lists(rows), "n": np.arange(len(rows))}) for rows in (first, second)]
    joined = EncodedTable.concat(parts)
    assert [joined.columns["x"][i].tolist() for i in range(len(joined))] == first + second
    assert joined.columns["n"].tolist() == [*range(len(first)), *range(len(second))]


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="differ in number of rows"):
        EncodedTable({"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(ValueError, match="needs a ragged column"):
        EncodedTable({"a": np.zeros(2)}, {"mask": "a"})
    with pytest.raises(ValueError, match="different columns"):
        EncodedTable.concat([EncodedTable({"a": np.zeros(2)}), EncodedTable({"b": np.zeros(2)})])
    with pytest.raises(ValueError, match="nothing to join"):
        EncodedTable.concat([])


# Batches ----------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=300),
    batch_size=st.integers(1, 7),
    workers=st.integers(1, 4),
    shuffle=st.booleans(),
    seed=st.integers(-5, 2**40),
    epoch=st.integers(0, 3),
)
def test_all_workers_together_see_every_row_once(lengths, batch_size, workers, shuffle, seed, epoch):
    table = table_of(lengths)
    seen = []
    shapes = []
    for rank in range(workers):
        batches = Batches(table, batch_size, shuffle=shuffle, seed=seed, shard=(rank, workers))
        epoch_batches = list(batches.epoch(epoch))
        assert len(epoch_batches) == batches.steps_per_epoch
        shapes.append([batch["input_ids"].shape for batch in epoch_batches])
        for batch, rows in zip(epoch_batches, batches.rows(epoch), strict=True):
            real = batch["row"][batch["example_weight"] > 0]
            np.testing.assert_array_equal(real, rows)
            seen.extend(real)
            assert len(batch["row"]) <= batch_size
            np.testing.assert_array_equal(batch["input_mask"].sum(1), np.array(lengths)[batch["row"]])
            np.testing.assert_array_equal(batch["input_ids"], batch["row"][:, None] * batch["input_mask"])
    assert sorted(seen) == list(range(len(lengths)))
    # The workers of one step must run the same shapes, or one waits for another forever.
    assert all(shape == shapes[0] for shape in shapes)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=200), start=st.integers(0, 60), epoch=st.integers(0, 2)
)
def test_start_gives_the_tail_of_the_same_epoch(lengths, start, epoch):
    batches = Batches(table_of(lengths), 4, shuffle=True, seed=3)
    whole, tail = list(batches.epoch(epoch))[start:], list(batches.epoch(epoch, start))
    assert len(whole) == len(tail)
    for a, b in zip(whole, tail, strict=True):
        assert a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_order_depends_on_seed_and_epoch_only():
    lengths = np.random.default_rng(0).integers(1, 40, 500)

    def order(seed, epoch):
        return np.concatenate(Batches(table_of(lengths), 8, shuffle=True, seed=seed).rows(epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    # A fixed plan must not change between versions, or stopped runs do not resume where they were.
    assert order(1, 0)[:8] == EXPECTED_FIRST_BATCH


def test_examples_of_a_row_meet_in_one_worker_when_evaluating():
    """Evaluators keep the windows of a row until the last has come: rows in two shares would be kept to the end."""
    counts = np.random.default_rng(1).integers(1, 5, 300)
    row_of = np.repeat(np.arange(300), counts)
    ids = Ragged.from_lists([[0] * n for n in np.random.default_rng(2).integers(1, 13, len(row_of))])
    table = EncodedTable({"ids": ids}, {"mask": "ids"}, row_of=row_of)
    shares = [Batches(table, 16, shuffle=False, shard=(rank, 2)).rows() for rank in range(2)]
    seen = [set(row_of[np.concatenate(share)].tolist()) for share in shares]
    assert sorted(np.concatenate([*shares[0], *shares[1]]).tolist()) == list(range(len(row_of)))
    assert len(seen[0] & seen[1]) <= 2 * len(shares[0])
    assert (counts > 1).sum() > 4 * len(shares[0])


def test_global_batches_do_not_depend_on_the_number_of_workers():
    table = table_of(np.random.default_rng(1).integers(1, 40, 333))
    one = Batches(table, 12, shuffle=True, seed=5).plan(2)
    three = Batches(table, 4, shuffle=True, seed=5, shard=(1, 3)).plan(2)
    assert all(np.array_equal(a, b) for a, b in zip(one, three, strict=True))


def test_rows_of_a_batch_are_a_fair_draw():
    """Which rows land in the short last batch must not depend on their length."""
    table = table_of(np.arange(105))
    last = [Batches(table, 10, shuffle=True, seed=seed).plan(0)[-1] for seed in range(400)]
    assert {len(rows) for rows in last} == {5}
    assert abs(np.mean(last) - 52) < 3  # standard error of 2000 draws of 0..104 is 0.7


def test_bucketing_pads_little_on_sst2(shared_data):
    path = shared_data / "sst2" / "train.tsv"
    words = []
    for chunk in open_table(str(path), schema=parse_schema("content:str:1,label:str:1")).chunks():
        words.extend(len(text.split()) for text in chunk.columns["content"])
    table = table_of(words)
    bucketed = Batches(table, 32, shuffle=True, pad_multiple=8)
    share = 1 - sum(words) / sum(batch["input_ids"].size for batch in bucketed.epoch(0))
    chosen = np.random.default_rng(0).permutation(len(words))
    plain = 1 - sum(words) / sum(table.batch(chosen[i : i + 32])["input_ids"].size for i in range(0, len(words), 32))
    print(f"padding on SST-2, batch 32: {share:.1%} in buckets, {plain:.1%} without")
    assert share < 0.2 < plain


def test_settings_are_checked():
    with pytest.raises(DataError, match="no usable row"):
        Batches(table_of([]), 4, shuffle=False)
    for settings_ in ({"batch_size": 0}, {"batch_size": 2, "shard": (2, 2)}):
        with pytest.raises(ValueError, match="out of range"):
            Batches(table_of([1]), shuffle=False, **settings_)


# prefetch ---------------------------------------------------------------------------------------------------


def test_prefetch_keeps_order_and_runs_ahead():
    made = []

    def numbers():
        for i in range(20):
            made.append(i)
            yield i

    iterator = prefetch(numbers(), depth=3)
    assert next(iterator) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 4 <= len(made) <= 6
    assert list(iterator) == list(range(1, 20))


def test_prefetch_raises_the_producers_error_after_its_items():
    def failing():
        yield 1
        raise DataError("row 2 is bad")

    iterator = prefetch(failing())
    assert next(iterator) == 1
    with pytest.raises(DataError, match="row 2 is bad"):
        next(iterator)


def test_prefetch_stops_when_the_consumer_does():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    iterator = prefetch(endless(), depth=2)
    next(iterator)
    iterator.close()
    assert closed.wait(5) and threading.active_count() == before


class Pairs:
    """Two equal rows in each batch; the batches of an epoch begin with its number."""

    def steps(self, size, workers):
        return 3

    def plan(self, epoch, size, workers):
        return [np.full(size, (epoch + step) % 5) for step in range(3)]


def test_a_sampler_makes_the_plan_in_place_of_the_shuffled_table():
    table = table_of([1] * 5)
    batches = [Batches(table, 1, shuffle=True, shard=(rank, 2), sampler=Pairs()) for rank in range(2)]
    assert [each.steps_per_epoch for each in batches] == [3, 3]
    assert [[rows.tolist() for rows in each.rows(4)] for each in batches] == [[[4], [0], [1]]] * 2
    assert [batch["row"].tolist() for batch in batches[0].epoch(1, start=1)] == [[2], [3]]
