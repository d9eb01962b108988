"""How the rows of both tables are distributed over labels and over lengths, counted from the encoded tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from easytransfer.app.contract import App
from easytransfer.app.targets.labels import LabelTarget
from easytransfer.data.encoded import EncodedTable

# Rows whose labels are in memory at once.
_CHUNK = 1 << 16
# Parts of the range of lengths, or of numbers to predict, in which rows are counted.
_PARTS = 12


def distributions(app: App, tables: Mapping[str, EncodedTable]) -> dict[str, Any]:
    """Returns `labels_by_table` and `lengths_by_table` of a report, without what the application does not have.

    Each holds the `names` of what is counted, `tables` with the counts [names] of each table, and `rows`, of which
    these are shares: several labels of one row are counted each.

    Args:
        app: Application whose labels are known.
        tables: Tables by role, the one that is trained on first.
    """
    found = {}
    if isinstance(app.target, LabelTarget) and all("label_id" in table.columns for table in tables.values()):
        found["labels_by_table"] = _by_label(app.target, tables)
    if app.text_columns():
        lengths = {part: _row_lengths(table) for part, table in tables.items()}
        found["lengths_by_table"] = _counted(lengths, *_length_parts(lengths))
    return found


def _by_label(target: LabelTarget, tables: Mapping[str, EncodedTable]) -> dict[str, Any]:
    if target.names is None:
        values = {part: np.concatenate(list(_chunks(table))).reshape(-1) for part, table in tables.items()}
        low, high = (float(edge(list(map(edge, values.values())))) for edge in (np.min, np.max))
        edges = np.linspace(low, high, _PARTS + 1) if high > low else np.array([low, low])
        names = [f"{start:.4g} to {end:.4g}" for start, end in zip(edges[:-1], edges[1:], strict=True)]
        return _counted(values, names, edges)
    return {
        "names": target.names,
        "tables": {part: rows_by_label(table, len(target.names)).tolist() for part, table in tables.items()},
        "rows": {part: len(table) for part, table in tables.items()},
    }


def rows_by_label(table: EncodedTable, classes: int) -> np.ndarray:
    """Returns how many rows have each class, int64 [classes]; rows without a label have none."""
    counts = np.zeros(classes, np.int64)
    for labels in _chunks(table):
        if labels.ndim > 1:
            counts += (labels > 0).sum(axis=0)
        else:
            counts += np.bincount(labels[(labels >= 0) & (labels < classes)], minlength=classes)
    return counts


def _chunks(table: EncodedTable) -> Iterator[np.ndarray]:
    labels = table.columns["label_id"]
    for start in range(0, len(labels), _CHUNK):
        yield np.asarray(labels[start : start + _CHUNK])


def _row_lengths(table: EncodedTable) -> np.ndarray:
    """Returns the length of every row, of its longest example where it is cut into windows."""
    return table.row_lengths[np.flatnonzero(np.diff(table.row_of, prepend=-1))]


def _length_parts(lengths: Mapping[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
    """Returns names and edges of parts of the range of lengths, of equal width but for the last one."""
    low, high = (int(edge(list(map(edge, lengths.values())))) for edge in (np.min, np.max))
    width = -(-(high - low + 1) // _PARTS)
    starts = np.arange(low, high + 1, width)
    ends = np.minimum(starts + width - 1, high)
    names = [f"{start:,}" if start == end else f"{start:,} to {end:,}" for start, end in zip(starts, ends, strict=True)]
    return names, np.append(starts, high + 1)


def _counted(values: Mapping[str, np.ndarray], names: list[str], edges: np.ndarray) -> dict[str, Any]:
    return {
        "names": names,
        "tables": {part: np.histogram(each, edges)[0].tolist() for part, each in values.items()},
        "rows": {part: len(each) for part, each in values.items()},
    }
