"""Encoded tables of any size: kept in memory while they are small, and on disk beyond that."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from easytransfer.data.disk_array import DiskArray
from easytransfer.data.encoded import EncodedTable, HostColumn, Ragged
from easytransfer.errors import ConfigError, DataError, ResourceError
from easytransfer.run.atomic import plain, sync, write_json
from easytransfer.run.lock import FolderLock, is_locked

FACTS = "table.json"
# Part of every key: a folder written when `table.json` said other things is written anew.
FORM = 2
# Columns of so few bytes a row (labels, numbers) stay in memory: what looks at labels wants them as arrays.
SMALL_ROW = 16
_PAUSE_S = 0.2
# Columns whose rows differ in length, by what `table.json` calls them; all others are arrays.
_RAGGED = {kind.__name__: kind for kind in (Ragged, HostColumn)}


class Elsewhere(Exception):
    """The table is large, and another process writes it to disk."""


@dataclass
class StoredTable:
    """A table of an earlier reading.

    Attributes:
        table: Its rows.
        notes: What was noted with them.
    """

    table: EncodedTable
    notes: dict[str, Any]


class TableStore:
    """Takes encoded chunks and returns them as one table.

    A table beyond `limit` bytes goes to `folder`: one file of plain values for each column, closed by `table.json`. It
    is written by one of the processes that share the folder, and used by all of them, also by a later job.

    Args:
        folder: Where a large table goes; None keeps every table in memory.
        key: What the encoded rows depend on: a table with another key is written anew.
        limit: Bytes that may stay in memory.
        writes: Whether this process writes a large table, or waits for the one that does.
    """

    def __init__(self, folder: Path | None, key: dict[str, Any], limit: int, *, writes: bool = True) -> None:
        self._folder, self._limit, self._writes = folder, limit, writes
        self._key = plain({**key, "form": FORM})
        self._parts: list[EncodedTable] = []
        self._bytes = 0
        self._writer: _Writer | None = None

    def stored(self) -> StoredTable | None:
        """Returns the table of an earlier reading, None where there is none of this key."""
        if self._folder is None:
            return None
        facts = _read_facts(self._folder)
        if facts is None or facts["key"] != self._key:
            return None
        return StoredTable(_opened(self._folder, facts), facts["notes"])

    def wait(self) -> StoredTable | None:
        """Waits for the process that writes the table; None where it has ended without and this one may write."""
        while True:
            found = self.stored()
            if found is not None or (self._writes and not is_locked(self._folder)):
                return found
            time.sleep(_PAUSE_S)

    def add(self, part: EncodedTable) -> None:
        """Adds a chunk.

        Raises:
            Elsewhere: The table is large, and another process is the one to write it; see `wait`.
        """
        if self._writer is not None:
            self._writer.add(part)
            return
        # Small so far: it is not known before the last chunk whether the table stays in memory.
        self._parts.append(part)
        self._bytes += sum(map(_size, part.columns.values()))
        if self._folder is None or self._bytes <= self._limit:
            return
        waiting, self._parts, self._bytes = self._parts, [], 0
        if not self._writes:
            raise Elsewhere
        try:
            self._writer = _Writer(self._folder)
        # Another process has the lock of the folder and writes the table.
        except ResourceError:
            raise Elsewhere from None
        for earlier in waiting:
            self._writer.add(earlier)

    def finish(self, notes: dict[str, Any]) -> EncodedTable:
        """Returns the whole table; `notes` are kept with one that went to disk."""
        if self._writer is None:
            return EncodedTable.concat(self._parts)
        facts = self._writer.finish({"key": self._key, "notes": notes})
        return _opened(self._folder, facts)

    def close(self) -> None:
        """Gives up what was not finished, for another process to write."""
        if self._writer is not None:
            self._writer.close()


@dataclass
class _Column:
    """A column on its way to disk; `file` is None for one that stays in memory until the end."""

    kind: str
    dtype: np.dtype
    inner: tuple[int, ...]
    file: IO[bytes] | None
    rows: int = 0


class _Writer:
    """Appends chunks to the files of a folder that this process alone writes."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the folder for the encoded table cannot be made: {error.strerror}",
                received=str(folder),
                fix="name one that can be written in data.cache_dir",
            ) from None
        self._folder, self._lock = folder, FolderLock(folder)
        # `table.json` first: without it the rest is no table, whenever this process is killed or the machine stops.
        if (folder / FACTS).exists():
            (folder / FACTS).unlink()
            sync(folder)
        for old in [*folder.glob("*.bin"), *folder.glob("*.npy")]:
            old.unlink(missing_ok=True)
        self._columns: dict[str, _Column] = {}
        self._small: dict[str, list[np.ndarray]] = {"row_of": []}
        self._shape: dict[str, Any] = {}
        self._rows = 0

    def add(self, part: EncodedTable) -> None:
        """Writes the values of a chunk."""
        if not self._columns:
            self._columns = {name: self._new(name, column) for name, column in part.columns.items()}
            self._shape = {"masks": part.masks, "pad_values": part.pad_values}
        if part.columns.keys() != self._columns.keys():
            raise ValueError("tables to join have different columns")
        for name, column in part.columns.items():
            known, values = self._columns[name], column.values if isinstance(column, Ragged) else column
            # Lengths of rows are small and are needed at random when batches are planned: they stay in memory.
            if isinstance(column, Ragged):
                self._small[name].append(column.lengths)
            if known.file is None:
                self._small[name].append(column)
                continue
            if values.dtype != known.dtype or values.shape[1:] != known.inner:
                raise ValueError(f"column {name} changes from {known.dtype} to {values.dtype} or in shape")
            known.file.write(np.ascontiguousarray(values).data)
            known.rows += len(values)
        self._small["row_of"].append(part.row_of + self._rows)
        self._rows += part.row_count

    def _new(self, name: str, column: Ragged | np.ndarray) -> _Column:
        ragged = isinstance(column, Ragged)
        values = column.values if ragged else column
        self._small[name] = []
        small = not ragged and values.dtype.itemsize * int(np.prod(values.shape[1:])) <= SMALL_ROW
        if values.dtype == object:
            raise DataError(
                "the table is larger than data.table_memory_mb, and objects of Python cannot go to disk",
                received=f"column {name}",
                fix="raise data.table_memory_mb, or keep them in a HostColumn",
            )
        file = None if small else open(self._folder / f"{name}.bin", "wb")  # noqa: SIM115 - closed by finish
        return _Column(type(column).__name__, values.dtype, values.shape[1:], file)

    def finish(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Closes the files and returns what `table.json` says."""
        columns = {
            name: {"dtype": column.dtype.str, "kind": column.kind, "shape": [column.rows, *column.inner]}
            for name, column in self._columns.items()
        }
        for name, parts in self._small.items():
            if parts:
                np.save(self._folder / f"{name}.npy", np.concatenate(parts), allow_pickle=False)
        self._close_files()
        for file in [*self._folder.glob("*.bin"), *self._folder.glob("*.npy"), self._folder]:
            sync(file)
        facts = plain({**facts, **self._shape, "columns": columns})
        # Written last, and all at once: a folder with it is complete, also after the power was cut.
        write_json(self._folder / FACTS, facts)
        self.close()
        return facts

    def close(self) -> None:
        """Closes the files and releases the folder."""
        self._close_files()
        self._lock.close()

    def _close_files(self) -> None:
        for column in self._columns.values():
            if column.file is not None:
                column.file.close()


def _size(column: Ragged | np.ndarray) -> int:
    return column.values.nbytes + column.offsets.nbytes if isinstance(column, Ragged) else column.nbytes


def _read_facts(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _opened(folder: Path, facts: dict[str, Any]) -> EncodedTable:
    columns: dict[str, Any] = {}
    for name, column in facts["columns"].items():
        file, beside = folder / f"{name}.bin", folder / f"{name}.npy"
        if not file.exists():
            columns[name] = np.load(beside, allow_pickle=False)
            continue
        values = DiskArray(file, column["dtype"], tuple(column["shape"]))
        if column["kind"] in _RAGGED:
            lengths = np.load(beside, allow_pickle=False)
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
            columns[name] = _RAGGED[column["kind"]](values, offsets)
        else:
            columns[name] = values
    row_of = np.load(folder / "row_of.npy", allow_pickle=False)
    return EncodedTable(columns, facts["masks"], facts["pad_values"], row_of)
