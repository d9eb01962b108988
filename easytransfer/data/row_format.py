"""What every table form supplies: its columns, raw records, and their parsing."""

from __future__ import annotations

import abc
import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from easytransfer.data.files import reading, real_path
from easytransfer.data.schema import ListForm, Schema
from easytransfer.data.values import MISSING_VALUE, convert_values
from easytransfer.errors import ConfigError, DataError

Problem = tuple[str, str]


@dataclass
class Parsed:
    """Parsed records.

    Attributes:
        columns: One value per record in every column; anything where the record is bad.
        texts: The records as read, to show and to quarantine.
        problems: (column, reason) of bad records by position.
        empty_text: Empty cells of text columns, by column.
    """

    columns: dict[str, list[Any]]
    texts: Sequence[str]
    problems: dict[int, Problem] = field(default_factory=dict)
    empty_text: Counter[str] = field(default_factory=Counter)


class LazyTexts(Sequence[str]):
    """Records as text, made only for those that are asked for."""

    def __init__(self, records: Sequence[Any], show: Callable[[Any], str]) -> None:
        self._records = records
        self._show = show

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: Any) -> Any:
        return self._show(self._records[i])


class RowFormat(abc.ABC):
    """Reads one table form. Raw records are cheap to skip; parsing happens for the rows of one worker only.

    Attributes:
        schema: The columns that can be read.
        unusable: Further columns, each with what is in the way of those who ask for it.
    """

    schema: Schema
    unusable: Mapping[str, str] = MappingProxyType({})

    def of(self, file: str) -> RowFormat:
        """Returns what reads a file; see `JoinedFormat`."""
        return self

    def missing(self, file: str) -> Sequence[str]:
        """Returns columns of the table that a file does not have; see `JoinedFormat`."""
        return ()

    def require(self, names: Sequence[str], where: str) -> None:
        """Checks that columns can be read.

        Raises:
            ConfigError: One of them cannot.
        """
        for name in names:
            if name in self.unusable:
                raise ConfigError(f"column {name!r} of {where} {self.unusable[name]}", accepted=self.schema.names)
        missing = [name for name in names if name not in self.schema]
        self.schema.require(missing, where, self.advice() if missing else None)

    def take_text(self, columns: Mapping[str, ListForm]) -> None:
        """Reads columns as text from now on; see `Column.as_text`."""
        self.schema = self.schema.as_text(columns)

    def narrow(self, names: Sequence[str]) -> None:
        """Leaves out all columns but these: what nobody reads may hold anything."""
        self.schema = Schema(tuple(column for column in self.schema if column.name in names))

    def advice(self) -> str | None:
        """Returns what to do where a column is missing because the table is read in the wrong way."""
        return None

    def first_record_problem(self, record: Any) -> str | None:
        """Returns why the first record of a file is no row, None where it may be one."""
        return None

    def records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, Sequence[Any]]]:
        """Yields (line numbers, raw records) in blocks of up to `size`.

        Raises:
            DataError: The file cannot be read on.
        """
        with reading(file):
            yield from self._records(file, size)

    def count(self, file: str) -> int:
        """Returns the number of records of `file`; counted once per file size and modification time."""
        with reading(file):
            status = os.stat(real_path(file))
            return _counted(self, os.path.abspath(file), status.st_size, status.st_mtime_ns)

    @abc.abstractmethod
    def parse(self, records: Sequence[Any]) -> Parsed:
        """Parses raw records."""

    @abc.abstractmethod
    def _records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, Sequence[Any]]]:
        """`records`, free to raise file errors."""

    @abc.abstractmethod
    def _count(self, file: str) -> int:
        """Counts the records of `file`."""

    def _counting_key(self) -> tuple[Any, ...]:
        """What besides the file's content changes its number of records."""
        return (type(self).__name__,)

    def __hash__(self) -> int:
        return hash(self._counting_key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowFormat) and self._counting_key() == other._counting_key()


@functools.lru_cache(maxsize=4096)
def _counted(row_format: RowFormat, file: str, size: int, modified: int) -> int:
    return row_format._count(file)


def parse_mappings(
    schema: Schema, rows: Sequence[dict[str, Any] | None], texts: Sequence[str], problems: dict[int, Problem]
) -> Parsed:
    """Parses records whose values are matched to columns by name; None marks a record that is bad already."""
    result = Parsed({}, texts, dict(problems))
    good = [i for i, row in enumerate(rows) if row is not None]
    for column in schema:
        values, bad = convert_values(column, [rows[i].get(column.name) for i in good])  # type: ignore[union-attr]
        for k, reason in bad.items():
            if reason == MISSING_VALUE and column.name not in rows[good[k]]:  # type: ignore[operator]
                reason = f"{MISSING_VALUE}: no key {column.name!r}"
            result.problems.setdefault(good[k], (column.name, reason))
        finish_column(result, column.name, good, values, len(rows), column.type == "str" and column.length == 1)
    return result


def finish_column(result: Parsed, name: str, good: Sequence[int], values: list[Any], rows: int, is_text: bool) -> None:
    """Puts the values of the records at `good` into place, and counts empty text in records without a problem."""
    if len(good) < rows:
        spread: list[Any] = [None] * rows
        for i, value in zip(good, values, strict=True):
            spread[i] = value
        values = spread
    result.columns[name] = values
    if is_text and (empty := values.count("")):
        result.empty_text[name] = empty


class MemoryFormat(RowFormat):
    """Rows given as a list of dicts."""

    def __init__(self, rows: Sequence[dict[str, Any]], schema: Schema) -> None:
        self.rows = rows
        self.schema = schema

    def count(self, file: str) -> int:
        """Returns the number of rows given."""
        return len(self.rows)

    def parse(self, records: Sequence[Any]) -> Parsed:
        """Checks the values against the schema."""
        return parse_mappings(self.schema, records, LazyTexts(records, repr), {})

    def _records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, Sequence[Any]]]:
        for start in range(0, len(self.rows), size):
            block = self.rows[start : start + size]
            yield np.arange(start + 1, start + 1 + len(block)), block

    def _count(self, file: str) -> int:
        return len(self.rows)


def no_rows(file: str) -> DataError:
    """Returns the error for a file whose columns cannot be told because it has no row."""
    return DataError(
        f"{file} is empty: it has no row to take the columns from", fix="give --inputSchema or a file with rows"
    )
