"""Outputs come back in table order although rows are batched by length."""

import numpy as np
import pytest

from appzoo.jobs.inference import outputs_in_order
from easytransfer.data.encoded import EncodedTable, Ragged


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
