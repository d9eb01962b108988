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
FORM = 3
# Files of a column: its values, where the rows of a ragged one begin; and the row of each example.
VALUES, OFFSETS, ROWS = ".bin", ".offsets", ".rows"
# Columns of so few bytes a row (labels, numbers) are loaded whole: what looks at labels wants them as arrays.
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
        return _opened(self._folder, self._writer.finish({"key": self._key, "notes": notes}))

    def close(self) -> None:
        """Gives up what was not finished, for another process to write."""
        if self._writer is not None:
            self._writer.close()


@dataclass
class _File:
    """An array on its way to disk."""

    file: IO[bytes]
    dtype: np.dtype
    inner: tuple[int, ...]
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
        for old in _arrays(folder):
            old.unlink()
        self._files: dict[str, _File] = {}
        self._kinds: dict[str, str] = {}
        self._shape: dict[str, Any] = {}
        self._rows = self._examples = 0

    def add(self, part: EncodedTable) -> None:
        """Writes the values of a chunk."""
        if not self._kinds:
            self._kinds = {name: type(column).__name__ for name, column in part.columns.items()}
            self._shape = {"masks": part.masks, "pad_values": part.pad_values}
        if part.columns.keys() != self._kinds.keys():
            raise ValueError("tables to join have different columns")
        for name, column in part.columns.items():
            if isinstance(column, Ragged):
                self._append_offsets(name, column.offsets)
            self._append(name, VALUES, column.values if isinstance(column, Ragged) else column)
        self._append("examples", ROWS, part.row_of + self._rows)
        self._rows += part.row_count
        self._examples += len(part)

    def _append_offsets(self, name: str, offsets: np.ndarray) -> None:
        """Writes where rows end in the values of all chunks, which are not written yet, behind a 0."""
        before = self._files.get(f"{name}{VALUES}")
        offsets = np.asarray(offsets, np.int64)
        self._append(name, OFFSETS, offsets if before is None else offsets[1:] + before.rows)

    def _append(self, name: str, ending: str, values: np.ndarray) -> None:
        if values.dtype == object:
            raise DataError(
                "the table is larger than data.table_memory_mb, and objects of Python cannot go to disk",
                received=f"column {name}",
                fix="raise data.table_memory_mb, or keep them in a HostColumn",
            )
        path = f"{name}{ending}"
        if path not in self._files:
            self._files[path] = _File(open(self._folder / path, "wb"), values.dtype, values.shape[1:])  # noqa: SIM115
        known = self._files[path]
        if values.dtype != known.dtype or values.shape[1:] != known.inner:
            raise ValueError(f"column {name} changes from {known.dtype} to {values.dtype} or in shape")
        known.file.write(np.ascontiguousarray(values).data)
        known.rows += len(values)

    def finish(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Closes the files and returns what `table.json` says."""
        found = {name: self._files[f"{name}{VALUES}"] for name in self._kinds}
        columns = {
            name: {"kind": self._kinds[name], "dtype": file.dtype.str, "shape": [file.rows, *file.inner]}
            for name, file in found.items()
        }
        self._close_files()
        for path in [*_arrays(self._folder), self._folder]:
            sync(path)
        facts = {**facts, **self._shape, "examples": self._examples, "rows": self._rows, "columns": columns}
        # Written last, and all at once: a folder with it is complete, also after the power was cut.
        write_json(self._folder / FACTS, facts)
        self.close()
        return plain(facts)

    def close(self) -> None:
        """Closes the files and releases the folder."""
        self._close_files()
        self._lock.close()

    def _close_files(self) -> None:
        for known in self._files.values():
            known.file.close()


def _arrays(folder: Path) -> list[Path]:
    """Returns the files of columns."""
    return [path for ending in (VALUES, OFFSETS, ROWS) for path in folder.glob(f"*{ending}")]


def _size(column: Ragged | np.ndarray) -> int:
    return column.values.nbytes + column.offsets.nbytes if isinstance(column, Ragged) else column.nbytes


def _read_facts(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _opened(folder: Path, facts: dict[str, Any]) -> EncodedTable:
    examples = facts["examples"]
    columns: dict[str, Any] = {}
    for name, column in facts["columns"].items():
        columns[name] = values = DiskArray(folder / f"{name}{VALUES}", column["dtype"], tuple(column["shape"]))
        if column["kind"] in _RAGGED:
            offsets = DiskArray(folder / f"{name}{OFFSETS}", np.int64, (examples + 1,))
            columns[name] = _RAGGED[column["kind"]](values, offsets)
        elif values.nbytes <= SMALL_ROW * examples:
            columns[name] = values[:]
    several = facts["rows"] != examples
    row_of = DiskArray(folder / f"examples{ROWS}", np.int64, (examples,))[:] if several else None
    return EncodedTable(columns, facts["masks"], facts["pad_values"], row_of)
