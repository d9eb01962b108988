"""Model calls over encoded tables: batches sorted by length, outputs back in row order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from easytransfer.data.encoded import EncodedTable

Call = Callable[[dict[str, np.ndarray]], dict[str, Any]]


def outputs_in_order(table: EncodedTable, call: Call, batch_size: int, pad_multiple: int = 1) -> dict[str, np.ndarray]:
    """Calls a model on every row and returns its outputs in the order of the table.

    Rows are batched by length, so that little padding is computed. Outputs whose trailing shape depends on the batch
    (per-token ones) come back as object arrays with one array per row.

    Args:
        table: Encoded rows.
        call: Takes a batch and returns named arrays, rows first.
        batch_size: Rows per call.
        pad_multiple: Widths are rounded up to a multiple of this.
    """
    order = np.argsort(table.lengths, kind="stable")
    parts: dict[str, list[np.ndarray]] = {}
    for rows in _slices(order, batch_size):
        for name, value in call(table.batch(rows, pad_multiple=pad_multiple)).items():
            parts.setdefault(name, []).append(np.asarray(value))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return {name: _join(values)[back] for name, values in parts.items()}


def _slices(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _join(values: list[np.ndarray]) -> np.ndarray:
    if len({value.shape[1:] for value in values}) == 1:
        return np.concatenate(values)
    rows = [row for value in values for row in value]
    joined = np.empty(len(rows), object)
    joined[:] = rows
    return joined
