"""Outputs come back in table order although rows are batched by length."""

from itertools import groupby
from types import SimpleNamespace

import numpy as np
import pytest

from appzoo.jobs.inference import evaluated, evaluated_with_outputs, outputs_in_order
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.distributed.workers import Workers
from easytransfer.metrics.evaluator import MeanEvaluator


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_every_row_gets_its_own_output(batch_size):
    rows = [[7] * length for length in (5, 1, 4, 2, 9, 3, 1)]
    table = EncodedTable(
        {"input_ids": Ragged.from_lists(rows), "number": np.arange(len(rows))}, masks={"input_mask": "input_ids"}
    )
    seen = []

    def call(batch):
        seen.append(batch["input_ids"].shape)
        return {"number": batch["number"], "tokens": batch["input_ids"], "sum": batch["input_ids"].sum(axis=1)}

    outputs = outputs_in_order(table, call, batch_size)
    assert outputs["number"].tolist() == list(range(len(rows)))
    assert outputs["sum"].tolist() == [7 * len(row) for row in rows]
    assert [int((tokens == 7).sum()) for tokens in outputs["tokens"]] == [len(row) for row in rows]
    assert sum(shape[0] for shape in seen) == len(rows)
    assert [shape[1] for shape in seen] == sorted(shape[1] for shape in seen), "batched by length"


class SecondOfTwo(Workers):
    """Sees what both workers have collected; the first one's rows are the other batches."""

    rank, size = 1, 2

    def __init__(self, other):
        self._other = other

    def gather(self, value):
        return [self._other, value]


def test_an_evaluation_keeps_the_outputs_that_are_asked_for_and_workers_share_it():
    rows = [[7] * length for length in (5, 1, 4, 2, 9, 3, 1)]
    columns = {"input_ids": Ragged.from_lists(rows), "number": np.arange(len(rows))}
    table = EncodedTable(columns, masks={"input_mask": "input_ids"})
    app = SimpleNamespace(evaluator=lambda: MeanEvaluator("mean", lambda batch, outputs: outputs["sum"]))

    def call(batch):
        return {"number": batch["number"], "tokens": batch["input_ids"], "sum": batch["input_ids"].sum(axis=1)}

    expected = 7 * sum(map(len, rows)) / len(rows)
    evaluator, outputs = evaluated_with_outputs(app, table, call, 2, keep=3)
    assert evaluator.result() == {"mean": expected}
    assert outputs["number"].tolist() == [0, 1, 2]
    assert [int((tokens == 7).sum()) for tokens in outputs["tokens"]] == [5, 1, 4]
    assert evaluated_with_outputs(app, table, call, 2)[1] == {}
    # Batches 1 and 3 of 4 are the second worker's: lengths 2, 3 and 9; the first has 1, 1, 4 and 5.
    told: list[float] = []
    both = evaluated(app, table, call, 2, workers=SecondOfTwo((7.0 * 11, 4)), done=told.append)
    assert both.result() == {"mean": expected} and told == [0.5, 1.0]


def test_windows_of_a_row_follow_each_other_and_few_rows_have_some_in_two_shares():
    counts = np.random.default_rng(1).integers(1, 6, 2000)
    row_of = np.repeat(np.arange(2000), counts)
    lengths = np.random.default_rng(2).integers(1, 13, len(row_of))
    ids = Ragged.from_lists([[7] * int(length) for length in lengths])
    columns = {"input_ids": ids, "row": row_of}
    table = EncodedTable(columns, masks={"input_mask": "input_ids"}, row_of=row_of)
    shares = []

    class Rows:
        """Collects rows, one entry for windows that follow each other."""

        def __init__(self):
            self.rows = []

        def update(self, batch, outputs):
            self.rows += batch["row"].tolist()

        def state(self):
            return shares.append([row for row, _ in groupby(self.rows)])

        def merge(self, state):
            pass

    class Both(Workers):
        size = 2

        def __init__(self, rank):
            self.rank = rank

        def gather(self, value):
            return [value]

    for rank in range(2):
        evaluated(SimpleNamespace(evaluator=Rows), table, lambda batch: {"row": batch["row"]}, 4, workers=Both(rank))
    split = len(shares[0]) + len(shares[1]) - len(set(shares[0] + shares[1]))
    assert set(shares[0] + shares[1]) == set(range(2000)) and split < 2000 * 0.03
