"""Tables of token ids, as `preprocess` writes them: read back, they are batched as if the text had just been encoded.

Columns are recognised by their names. `input_ids` makes a table one of ids; its real positions are those where
`input_mask` is 1, or without that column those up to the last id other than 0. Every other list of the same length has
the same real positions. Names that end in `_a` or `_b` belong to `input_ids_a` or `input_ids_b` in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.data.schema import Schema
from easytransfer.data.table import RowChunk

IDS, MASK = "input_ids", "input_mask"


def is_id_table(schema: Schema) -> bool:
    """Returns whether rows hold token ids instead of text."""
    return any(column.name.startswith(IDS) and column.type == "int" and column.is_list for column in schema)


def encode_ids(
    chunk: RowChunk, schema: Schema, labels: Sequence[str] = (), vocab_size: int | None = None
) -> EncodedTable:
    """Returns the accepted rows of a chunk as an application's `encode` would.

    Ids outside of the vocabulary, masks that are not ones followed by zeros, and rows without a token are bad rows.

    Args:
        chunk: Rows of an id table.
        schema: Its columns; besides those with several values per row, only `labels` are taken.
        labels: Columns with labels.
        vocab_size: Ids are below this number; None does not check.
    """
    lists = [column.name for column in schema if column.is_list and column.type in ("int", "float")]
    lengths = {name: _lengths(chunk, name, lists, vocab_size) for name in lists if name.startswith(IDS)}
    kept = np.flatnonzero(chunk.accepted)
    columns: dict[str, Ragged | np.ndarray] = {}
    for name in dict.fromkeys([*lists, *labels]):
        if name in lists and name.startswith(MASK):
            continue
        values = _array(chunk.columns[name], schema[name].type)[kept]
        ids = IDS + (name[-2:] if name.endswith(("_a", "_b")) else "")
        if name in lists and ids in lists and schema[name].length == schema[ids].length:
            columns[name] = _ragged(values, lengths[ids][kept])
        else:
            columns[name] = values
    return EncodedTable(columns, {MASK + name.removeprefix(IDS): name for name in lengths})


def _array(cells: Sequence[Any], kind: str) -> np.ndarray:
    """Returns the cells of a column as one array; lists of any length are filled with 0 behind their end."""
    dtype = np.int32 if kind == "int" else np.float32 if kind == "float" else object
    if not cells or not isinstance(cells[0], (list, np.ndarray)):
        return np.asarray(cells, dtype)
    rows = Ragged.from_lists(cells, dtype)
    return rows.padded(np.arange(len(rows)), int(rows.lengths.max(initial=0)))


def _ragged(values: np.ndarray, lengths: np.ndarray) -> Ragged:
    """Returns the first `lengths[i]` values of every row."""
    inside = np.arange(values.shape[1] if values.ndim > 1 else 0) < lengths[:, None]
    return Ragged(values[inside], np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))


def _lengths(chunk: RowChunk, name: str, lists: Sequence[str], vocab_size: int | None) -> np.ndarray:
    """Returns the number of real positions of every row, and rejects the rows that cannot be used."""
    ids = _array(chunk.columns[name], "int")
    mask_name = MASK + name.removeprefix(IDS)
    mask = _array(chunk.columns[mask_name], "int") if mask_name in lists else None
    # Without a mask, a row ends behind its last id other than 0.
    real = mask != 0 if mask is not None else np.flip(np.maximum.accumulate(np.flip(ids != 0, 1), 1), 1)
    lengths = real.sum(axis=1)
    if mask is not None and mask.shape != ids.shape:
        bad = np.ones(len(ids), bool)
        reason = f"wrong list length: {mask_name} and {name} differ"
    else:
        bad = (real != (np.arange(real.shape[1]) < lengths[:, None])).any(axis=1)
        reason = "not a mask: ones must come before zeros"
    for row in np.flatnonzero(bad):
        chunk.reject(int(row), mask_name, reason)
    for row in np.flatnonzero(lengths == 0):
        chunk.reject(int(row), name, "no token")
    limit = np.inf if vocab_size is None else vocab_size
    for row in np.flatnonzero(((ids < 0) | (ids >= limit)).any(axis=1)):
        worst = int(ids[row].min()) if ids[row].min() < 0 else int(ids[row].max())
        chunk.reject(int(row), name, f"id out of range: {worst} is not below vocab_size={vocab_size}")
    return lengths.astype(np.int64)
