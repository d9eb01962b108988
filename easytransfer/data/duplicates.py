"""Rows that tables have twice, in one table or in two, with the same label or another: exactly, in bounded memory.

A row is known by 128 bits of a hash of its cells: two different rows are taken for one with a probability below 1e-18
in a billion rows.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

# Rows that are kept in memory before they go to disk, and the files there; one of them is in memory at a time.
MEMORY_ROWS = 1 << 20
_FILES = 256
_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("label", "<u8"), ("table", "<i4"), ("row", "<i8")])
_KEY_BYTES, _LABEL_BYTES = 16, 8
_NO_LABEL = bytes(_LABEL_BYTES)
# Pairs of rows that are named of each kind.
MOST_EXAMPLES = 5

# Two rows, each a table and a row number from 0.
Pair = tuple[tuple[int, int], tuple[int, int]]


@dataclass
class Within:
    """What one table repeats.

    Attributes:
        rows: All rows.
        repeated: Rows that are there before, with any label.
        conflicting: Rows that are there with another label, too.
        examples: Pairs of such rows.
    """

    rows: int = 0
    repeated: int = 0
    conflicting: int = 0
    examples: list[Pair] = field(default_factory=list)


@dataclass
class Between:
    """What a table has of one before it.

    Attributes:
        rows: Rows that the other table has, with any label.
        conflicting: Those of them that it has with other labels alone.
        examples: Pairs of such rows, that of the earlier table first.
    """

    rows: int = 0
    conflicting: int = 0
    examples: list[Pair] = field(default_factory=list)


@dataclass
class Repeats:
    """What tables have twice: each in itself, by number, and each pair (earlier, later)."""

    within: dict[int, Within]
    between: dict[tuple[int, int], Between]


class DuplicateFinder:
    """Takes the rows of tables and counts those that are alike; a context manager, which removes its files.

    Args:
        memory_rows: Rows that are kept in memory; more go to files of a temporary folder.
    """

    def __init__(self, memory_rows: int = MEMORY_ROWS) -> None:
        self._memory_rows = memory_rows
        self._waiting: list[np.ndarray] = []
        self._count = 0
        self._tables: set[int] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, table: int, rows: Sequence[int], contents: Iterable[Sequence[Any]], labels: Iterable[str]) -> None:
        """Adds rows.

        Args:
            table: Number of their table.
            rows: Their numbers there.
            contents: The cells of each that make it the same row as another.
            labels: The label of each; empty where there is none, which is no other label than any.
        """
        records = np.empty(len(rows), _RECORD)
        if not len(records):
            return
        keys = b"".join(_digest(content, _KEY_BYTES) for content in contents)
        halves = np.frombuffer(keys, "<u8").reshape(len(records), 2)
        records["high"], records["low"] = halves[:, 0], halves[:, 1]
        digests = b"".join(_digest((label,), _LABEL_BYTES) if label else _NO_LABEL for label in labels)
        records["label"] = np.frombuffer(digests, "<u8")
        records["table"], records["row"] = table, rows
        self._tables.add(table)
        self._waiting.append(records)
        self._count += len(records)
        if self._count >= self._memory_rows:
            self._spill()

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="easytransfer-rows-")
        records = np.concatenate(self._waiting)
        place = records["high"] % _FILES
        order = np.argsort(place, kind="stable")
        ends = np.searchsorted(place[order], np.arange(_FILES), side="right")
        for number, part in enumerate(np.split(records[order], ends[:-1])):
            with open(Path(self._folder.name, str(number)), "ab") as file:
                part.tofile(file)
        self._waiting, self._count = [], 0

    def result(self) -> Repeats:
        """Returns the counts of all rows added."""
        tables = sorted(self._tables)
        found = Repeats(
            {table: Within() for table in tables},
            {(first, second): Between() for first in tables for second in tables if first < second},
        )
        if self._folder is None:
            parts: Iterable[np.ndarray] = [np.concatenate(self._waiting)] if self._waiting else []
        else:
            self._spill_rest()
            parts = (np.fromfile(Path(self._folder.name, str(number)), _RECORD) for number in range(_FILES))
        for part in parts:
            _count(part, found)
        return found

    def _spill_rest(self) -> None:
        if self._waiting:
            self._spill()


def _digest(cells: Sequence[Any], size: int) -> bytes:
    """Hashes cells, each with its length before it, so that no two lists of cells have the same bytes."""
    digest = hashlib.blake2b(digest_size=size)
    for cell in cells:
        data = cell if isinstance(cell, bytes) else str(cell).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def _count(records: np.ndarray, found: Repeats) -> None:
    """Adds what is alike among rows that have all their equals among them."""
    records = np.sort(records, order=["high", "low", "label", "table", "row"])
    if not len(records):
        return
    changed = (np.diff(records["high"]) != 0) | (np.diff(records["low"]) != 0)
    # Numbers of the contents, and of the contents with their labels.
    group = np.concatenate([[0], np.cumsum(changed)])
    pair = np.concatenate([[0], np.cumsum(changed | (np.diff(records["label"]) != 0))])
    is_labelled = records["label"] != 0
    of_table = {table: np.flatnonzero(records["table"] == table) for table in found.within}
    for table, places in of_table.items():
        within = found.within[table]
        groups, sizes = np.unique(group[places], return_counts=True)
        within.rows += len(places)
        within.repeated += int((sizes - 1).sum())
        # A content has several labels where there are several numbers of it with a label.
        told = places[is_labelled[places]]
        with_labels = np.unique(np.stack([group[told], pair[told]]), axis=1)[0]
        several, kinds = np.unique(with_labels, return_counts=True)
        conflicting = told[np.isin(group[told], several[kinds > 1])]
        within.conflicting += len(conflicting)
        _exemplify(within.examples, records, group, pair, conflicting, conflicting)
    for (first, second), between in found.between.items():
        earlier, later = of_table[first], of_table[second]
        there = later[np.isin(group[later], group[earlier])]
        told = earlier[is_labelled[earlier]]
        other = there[is_labelled[there] & np.isin(group[there], group[told]) & ~np.isin(pair[there], pair[told])]
        between.rows += len(there)
        between.conflicting += len(other)
        _exemplify(between.examples, records, group, pair, told, other)


def _exemplify(
    examples: list[Pair],
    records: np.ndarray,
    group: np.ndarray,
    pair: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> None:
    """Adds pairs of rows of one content with two labels: one of the places `first`, one of `second`."""
    for place in second:
        if len(examples) >= MOST_EXAMPLES:
            return
        start = np.searchsorted(group[first], group[place])
        other = first[start] if start < len(first) else place
        if group[other] == group[place] and pair[other] != pair[place]:
            examples.append(tuple((int(records["table"][i]), int(records["row"][i])) for i in (other, place)))
