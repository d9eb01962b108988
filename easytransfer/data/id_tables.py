"""Tables of token ids, as `preprocess` writes them: read back, they are batched as if the text had just been encoded.

Columns are recognised by their names. `input_ids` makes a table one of ids; its real positions are those where
`input_mask` is 1, or without that column those up to the last id other than 0. Every other list of the same length has
the same real positions. Names that end in `_a` or `_b` belong to `input_ids_a` or `input_ids_b` in the same way.
Records of a pre-training have `masked_lm_positions`, `masked_lm_ids` and `masked_lm_weights`: which pieces are hidden,
padded by weight 0, and what they were; `next_sentence_labels` is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.data.schema import Schema
from easytransfer.data.table import RowChunk
from easytransfer.errors import ConfigError

IDS, MASK, SEGMENTS, STARTS = "input_ids", "input_mask", "segment_ids", "word_starts"
HIDDEN_AT, HIDDEN_IDS, HIDDEN_WEIGHTS = "masked_lm_positions", "masked_lm_ids", "masked_lm_weights"
HIDDEN = (HIDDEN_AT, HIDDEN_IDS, HIDDEN_WEIGHTS)
FOLLOWS = "next_sentence_labels"
# What ids are below, and its name.
Limit = tuple[int, str]
_NO_LIMIT: Limit = (np.iinfo(np.int64).max, "")


def is_id_table(schema: Schema) -> bool:
    """Returns whether rows hold token ids instead of text."""
    return any(column.name.startswith(IDS) and column.type == "int" and column.is_list for column in schema)


def encode_ids(
    chunk: RowChunk, schema: Schema, labels: Sequence[str] = (), limits: Mapping[str, Limit] | None = None
) -> EncodedTable:
    """Returns the accepted rows of a chunk as an application's `encode` would.

    Ids the model has no row for, masks that are not ones followed by zeros, words that start or pieces that are hidden
    behind the end of their row, and rows without a token are bad rows.

    Args:
        chunk: Rows of an id table.
        schema: Its columns; besides those with several values per row, only `labels` are taken.
        labels: Columns with labels.
        limits: What ids are below and its name, by the beginning of the column's name; others are not checked.

    Raises:
        ConfigError: Columns of a pre-training are missing, or of another type.
    """
    limits = limits or {}
    lists = [column.name for column in schema if column.is_list and column.type in ("int", "float")]
    lengths = {name: _lengths(chunk, name, lists, limits.get(IDS)) for name in lists if name.startswith(IDS)}
    for name in lists:
        real = lengths.get(_ids_of(name))
        if real is not None and name.startswith(SEGMENTS) and SEGMENTS in limits:
            _reject_outside(chunk, name, real, *limits[SEGMENTS])
        elif real is not None and name in (STARTS, HIDDEN_AT):
            _reject_outside(chunk, name, None, real[:, None], "the tokens of the row")
        elif name == HIDDEN_IDS:
            _reject_outside(chunk, name, None, *limits.get(IDS, _NO_LIMIT))
    _check_hidden(chunk, [name for name in HIDDEN if name in lists])
    if FOLLOWS in labels:
        if schema[FOLLOWS].type != "int":
            raise ConfigError(f"{FOLLOWS} of a table of token ids is 0 or 1", received=str(schema[FOLLOWS]),
                              accepted=f"{FOLLOWS}:int:1", fix="declare the columns by inputSchema")  # fmt: skip
        for row, label in enumerate(chunk.columns[FOLLOWS]):
            if label not in (0, 1):
                chunk.reject(row, FOLLOWS, f"unknown label: {label} is neither 0 nor 1")
    kept = np.flatnonzero(chunk.accepted)
    columns: dict[str, Ragged | np.ndarray] = {}
    for name in dict.fromkeys([*lists, *labels]):
        if name in lists and name.startswith(MASK):
            continue
        values = _array(chunk.columns[name], schema[name].type)[kept]
        ids = _ids_of(name)
        if name in lists and ids in lists and schema[name].length == schema[ids].length:
            columns[name] = _ragged(values, lengths[ids][kept])
        else:
            columns[name] = values
    return EncodedTable(columns, {MASK + name.removeprefix(IDS): name for name in lengths})


def _check_hidden(chunk: RowChunk, names: Sequence[str]) -> None:
    """Rejects rows whose hidden pieces are not told in lists of one length, with weights 0 or 1."""
    if not names:
        return
    if len(names) < len(HIDDEN):
        raise ConfigError(
            f"the table has {', '.join(names)} alone", accepted=", ".join(HIDDEN), fix="take all of them, or none"
        )
    cells = [chunk.columns[name] for name in HIDDEN]
    for row, (places, ids, weights) in enumerate(zip(*cells, strict=True)):
        if not len(places) == len(ids) == len(weights):
            chunk.reject(row, HIDDEN_AT, f"wrong list length: {', '.join(HIDDEN)} differ")
        elif not np.isin(weights, (0, 1)).all():
            chunk.reject(row, HIDDEN_WEIGHTS, "not a weight: neither 0 nor 1")


def _ids_of(name: str) -> str:
    """Returns the name of the token ids that a column belongs to."""
    return IDS + (name[-2:] if name.endswith(("_a", "_b")) else "")


def _reject_outside(chunk: RowChunk, name: str, lengths: np.ndarray | None, limit: Any, what: str) -> None:
    """Rejects rows with ids that are not in [0, limit), of their first `lengths` if given."""
    ids = _array(chunk.columns[name], "int")
    if ids.ndim < 2:
        return
    counted = np.ones(ids.shape, bool) if lengths is None else np.arange(ids.shape[1]) < lengths[:, None]
    limit = np.broadcast_to(limit, ids.shape)
    for row in np.flatnonzero((counted & ((ids < 0) | (ids >= limit))).any(axis=1)):
        seen = ids[row][counted[row]]
        below = seen.min() < 0
        end = "below 0" if below else f"not below {what}={limit[row, 0]}"
        chunk.reject(int(row), name, f"id out of range: {seen.min() if below else seen.max()} is {end}")


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


def _lengths(chunk: RowChunk, name: str, lists: Sequence[str], limit: Limit | None) -> np.ndarray:
    """Returns the number of real positions of every row, and rejects the rows that cannot be used."""
    ids = _array(chunk.columns[name], "int")
    mask_name = MASK + name.removeprefix(IDS)
    mask = _array(chunk.columns[mask_name], "float") if mask_name in lists else None
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
    if mask is not None and mask.ndim > 1:
        for row in np.flatnonzero(((mask != 0) & (mask != 1)).any(axis=1)):
            wrong = mask[row][(mask[row] != 0) & (mask[row] != 1)][0]
            chunk.reject(int(row), mask_name, f"not a mask: {wrong:g} is neither 0 nor 1")
    for row in np.flatnonzero(lengths == 0):
        chunk.reject(int(row), name, "no token")
    _reject_outside(chunk, name, None, *(limit or _NO_LIMIT))
    return lengths.astype(np.int64)
