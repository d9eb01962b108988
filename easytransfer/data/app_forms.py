"""Forms of tables that applications bring with them: readers of foreign files, writers of official result files.

An application folder may hold `readers.py` with `READERS` and `writers.py` with `WRITERS`, functions by the ending of a
file name; one with a `/` behind is the ending of a folder. They are registered when the application is named, and used
wherever tables are.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from easytransfer.config.encoding import AUTO
from easytransfer.data.files import FOLDER_ENDINGS, ending_of
from easytransfer.data.row_format import LazyTexts, Parsed, RowFormat, no_rows, parse_mappings
from easytransfer.data.schema import Column, Schema
from easytransfer.data.text_formats import guess_column
from easytransfer.errors import ConfigError, DataError
from easytransfer.run.atomic import atomic_path

Row = dict[str, Any]


@dataclass(frozen=True)
class BadRecord:
    """What a reader yields in place of a row it cannot make: a bad row, counted like those of other tables.

    Attributes:
        column: The column to blame; empty for the whole row.
        reason: What is wrong, as `kind: detail`.
        text: The record as read, or the beginning of it, to show and to set aside.
    """

    column: str
    reason: str
    text: str


# Takes a path to its rows, each a value by column name; what it raises for a damaged file is a ValueError or OSError.
# One that reads text in any encoding has a parameter `encoding`, see `files.open_text`.
Reader = Callable[..., Iterator[Row | BadRecord]]
# Writes rows to a path.
Writer = Callable[[Path, Iterator[Row]], None]

_readers: dict[str, Reader] = {}
_writers: dict[str, Writer] = {}


def register(readers: Mapping[str, Reader], writers: Mapping[str, Writer]) -> None:
    """Makes the forms of an application known; `readers` and `writers` are by the ending of a file name."""
    _readers.update(readers)
    _writers.update(writers)
    FOLDER_ENDINGS.update(ending for ending in readers if ending.endswith("/"))


@contextmanager
def read_like(endings: Mapping[str, str]) -> Iterator[None]:
    """Context in which files with further endings are read as those with other ones, whatever they are elsewhere."""
    before = dict(_readers)
    _readers.update({ending: before[other] for ending, other in endings.items()})
    try:
        yield
    finally:
        _readers.clear()
        _readers.update(before)


def reader_of(path: str) -> str | None:
    """Returns the ending of a file name that a registered reader reads, None where there is none."""
    return ending_of(path, _readers)


def common_reader(files: Sequence[str]) -> str | None:
    """Returns an ending whose reader reads all of the files, None where they have none in common."""
    endings = [reader_of(file) for file in files]
    readers = {None if ending is None else _readers[ending] for ending in endings}
    return endings[0] if len(readers) == 1 else None


def writer_of(path: str) -> str | None:
    """Returns the ending of a file name that a registered writer writes, None where there is none."""
    return ending_of(path, _writers)


def write_rows(ending: str, sources: Sequence[Path], target: Path) -> None:
    """Writes the rows of JSON lines tables, in order, by a registered writer."""

    def rows() -> Iterator[Row]:
        for source in sources:
            with open(source, encoding="utf-8") as file:
                yield from map(json.loads, file)

    with atomic_path(target) as temporary:
        _writers[ending](temporary, rows())


def refuse_encoding(encoding: str, form: str) -> None:
    """Refuses an encoding for tables that have none of their choice.

    Raises:
        ConfigError: It is given.
    """
    if encoding != AUTO:
        raise ConfigError(f"--encoding does not apply to tables of the form {form}", fix="leave it out")


def _column(name: str, value: Any) -> Column:
    is_picture = isinstance(value, str) and value.startswith("data:image/")
    return Column(name, "image") if is_picture else guess_column(name, value)


class AppFormat(RowFormat):
    """Rows that a registered reader makes.

    Args:
        files: The table's files.
        schema: Declared columns; None takes the keys of the first row.
        ending: Of the names of the files.
        encoding: Of the files.

    Raises:
        ConfigError: An encoding is given to a reader that takes none.
    """

    def __init__(self, files: Sequence[str], schema: Schema | None, ending: str, encoding: str = AUTO) -> None:
        self._reader, self._ending, self._encoding = _readers[ending], ending, encoding
        if "encoding" in inspect.signature(self._reader).parameters:
            self._reader = functools.partial(self._reader, encoding=encoding)
        else:
            refuse_encoding(encoding, ending)
        self.schema = schema or self._guess(files[0])

    def _guess(self, file: str) -> Schema:
        bad = None
        for _, records in self.records(file, 1):
            if not isinstance(records[0], BadRecord):
                return Schema(tuple(_column(name, value) for name, value in records[0].items()))
            bad = bad or records[0]
        if bad is not None:
            raise DataError(f"no record of {file} can be read; the first: {bad.reason}", received=bad.text)
        raise no_rows(file)

    def parse(self, records: Sequence[Row | BadRecord]) -> Parsed:
        """Checks the values against the schema."""
        bad = {i: (record.column, record.reason) for i, record in enumerate(records) if isinstance(record, BadRecord)}
        rows = [None if isinstance(record, BadRecord) else record for record in records]
        return parse_mappings(self.schema, rows, LazyTexts(records, _shown), bad)

    def _records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, list[Row | BadRecord]]]:
        rows, first = self._reader(file), 1
        while block := self._block(rows, size):
            yield np.arange(first, first + len(block)), block
            first += len(block)

    @staticmethod
    def _block(rows: Iterator[Row | BadRecord], size: int) -> list[Row | BadRecord]:
        try:
            return list(islice(rows, size))
        except ValueError as error:
            raise DataError(str(error), fix="correct the file") from error

    def _count(self, file: str) -> int:
        return sum(1 for _ in self._reader(file))

    def _counting_key(self) -> tuple[Any, ...]:
        return (type(self).__name__, self._ending, self._encoding)


def _shown(record: Row | BadRecord) -> str:
    return record.text if isinstance(record, BadRecord) else repr(record)
