"""Text tables: tab-separated lines, quoted CSV and JSON lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from easytransfer.config.json_text import parse_json
from easytransfer.data.cells import (
    COLUMN_COUNT,
    EMPTY_LINE,
    INVALID_UTF8,
    NUL_CHARACTER,
    WRONG_TYPE,
    convert_cells,
)
from easytransfer.data.files import open_text
from easytransfer.data.lines import READ_BLOCK, count_lines, decode_lines, line_blocks
from easytransfer.data.row_format import Parsed, Problem, RowFormat, finish_column, no_rows, parse_mappings
from easytransfer.data.schema import Column, Schema
from easytransfer.errors import ConfigError, DataError

INVALID_JSON = "invalid JSON"
BAD_QUOTING = "bad quoting"

_SPACES = re.compile(r" {2,}")
_SURROGATE = re.compile("[\udc80-\udcff]")


class DelimitedFormat(RowFormat):
    """Lines with a fixed number of cells; the base of the unquoted and the quoted form.

    Args:
        files: The table's files; the first gives the header.
        schema: Declared columns; None makes every column of the header a text column.
        delimiter: Between cells.
        header: `none`, `skip` (first line ignored) or `names` (first line names the columns).
        escape: Decode escapes in text cells.

    Raises:
        ConfigError: No schema and no header, or a declared column is not in the header.
        DataError: The header cannot be read.
    """

    def __init__(self, files: Sequence[str], schema: Schema | None, delimiter: str, header: str, escape: bool) -> None:
        self.delimiter = delimiter
        self.header = header
        self.escape = escape
        names = self._header(files[0]) if header == "names" else None
        if schema is None:
            if names is None:
                raise ConfigError(
                    f"the columns of {files[0]} are unknown",
                    fix="declare them with --inputSchema=name:type:length,... or use --header=names",
                )
            schema = Schema(tuple(Column(name, "str") for name in names))
        elif names is not None:
            Schema(tuple(Column(name, "str") for name in names)).require(schema.names, f"the header of {files[0]}")
        self.schema = schema
        self.names = names
        self.width = len(names or schema)
        self._places = [names.index(column.name) for column in schema] if names else list(range(len(schema)))

    def _counting_key(self) -> tuple[Any, ...]:
        return (type(self).__name__, self.delimiter, self.header != "none")

    def _header(self, file: str) -> list[str]:
        for _, records in RowFormat.records(self, file, 1):
            names = self._names(records[0])
            if len(set(names)) < len(names) or not all(names):
                raise DataError(f"the header of {file} has empty or repeated names", received=", ".join(names))
            return names
        raise no_rows(file)

    def records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, Sequence[Any]]]:
        """Yields (line numbers, raw records) in blocks of up to `size`, behind the header."""
        behind_header = self.header == "none"
        for lines, records in super().records(file, size):
            if not behind_header:
                behind_header = True
                if self.names is not None and self._names(records[0]) != self.names:
                    raise DataError(f"the header of {file} differs from the first file's", accepted=self.names)
                lines, records = lines[1:], records[1:]
            if len(records):
                yield lines, records

    def _names(self, record: Any) -> list[str]:
        """Returns the column names that a header record gives."""
        raise NotImplementedError

    def _finish(self, cells: Sequence[Sequence[str]], texts: Sequence[str], problems: dict[int, Problem]) -> Parsed:
        """Converts split records to columns; adds the records whose number of cells is wrong to `problems`."""
        if set(map(len, cells)) != {self.width}:
            for i, row in enumerate(cells):
                if len(row) != self.width and i not in problems:
                    problems[i] = ("", self._miscounted(len(row), texts[i]))
        result = Parsed({}, texts, problems)
        good = [i for i in range(len(cells)) if i not in problems] if problems else range(len(cells))
        by_place = list(zip(*([cells[i] for i in good] if problems else cells), strict=True)) or [()] * self.width
        for column, place in zip(self.schema, self._places, strict=True):
            values, bad = convert_cells(column, by_place[place], self.escape)
            for k, reason in bad.items():
                problems.setdefault(good[k], (column.name, reason))
            finish_column(result, column.name, good, values, len(cells), column.type == "str" and column.length == 1)
        return result

    def _miscounted(self, found: int, text: str) -> str:
        if not text.strip("\r\n"):
            return EMPTY_LINE
        shown = {"\t": "TAB"}.get(self.delimiter, repr(self.delimiter))
        hint = self._other_separator(text)
        return f"{COLUMN_COUNT}: expected {self.width}, got {found} (separator {shown})" + (f"; {hint}" if hint else "")

    def _other_separator(self, text: str) -> str | None:
        """Returns what to do about a row that has the right number of cells when it is read in another way."""
        if "\r" in text:
            return "the lines end in CR alone: convert them to LF"
        for delimiter, flag in (("\t", "tab"), (",", ","), (";", "';'"), ("|", "'|'")):
            if delimiter != self.delimiter and text.count(delimiter) == self.width - 1 > 0:
                return f"it has {self.width} cells with --delimiter={flag}"
        if len(_SPACES.split(text.strip())) == self.width > 1:
            return "its cells seem to be set apart by spaces: put one TAB between them"
        return None


class TsvFormat(DelimitedFormat):
    """Unquoted lines: UTF-8, one row per line, cells between delimiters taken as they are."""

    def parse(self, records: Sequence[bytes]) -> Parsed:
        """Decodes and splits a block of lines at once; line by line only where that fails."""
        lines, problems = decode_lines(records)
        delimiter = self.delimiter
        return self._finish([line.split(delimiter) for line in lines], lines, problems)

    def _names(self, record: bytes) -> list[str]:
        try:
            return [name.strip() for name in record.decode("utf-8").rstrip("\r\n").split(self.delimiter)]
        except UnicodeDecodeError as error:
            raise DataError("the header is not valid UTF-8", received=ascii(record[:80])) from error

    def _records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, list[bytes]]]:
        with open_text(file) as stream:
            yield from line_blocks(stream, size)

    def _count(self, file: str) -> int:
        return max(0, count_lines(file) - (self.header != "none"))


class _CsvRecord(NamedTuple):
    cells: list[str]
    text: str
    error: str | None


class CsvFormat(DelimitedFormat):
    """CSV with RFC 4180 quoting: a cell in double quotes may hold delimiters, line breaks and doubled quotes."""

    def parse(self, records: Sequence[_CsvRecord]) -> Parsed:
        """Converts split records."""
        problems: dict[int, Problem] = {}
        texts = [record.text for record in records]
        joined = "".join(texts)
        suspicious = "\0" in joined or _SURROGATE.search(joined) is not None
        for i, record in enumerate(records):
            if suspicious and "\0" in record.text:
                problems[i] = ("", NUL_CHARACTER)
            elif suspicious and _SURROGATE.search(record.text):
                problems[i] = ("", INVALID_UTF8)
                texts[i] = record.text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            elif record.error is not None:
                problems[i] = ("", f"{BAD_QUOTING}: {record.error}")
        return self._finish([record.cells for record in records], texts, problems)

    def _names(self, record: _CsvRecord) -> list[str]:
        if record.error is not None or _SURROGATE.search(record.text):
            raise DataError("the CSV header has bad quoting or invalid UTF-8", received=record.text[:80])
        return [name.strip() for name in record.cells]

    def _records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, list[_CsvRecord]]]:
        with open_text(file) as stream:
            rows = _read_csv(stream, self.delimiter)
            while block := list(islice(rows, size)):
                yield np.array([line for line, _ in block]), [record for _, record in block]

    def _count(self, file: str) -> int:
        with open_text(file) as stream:
            quoted = any(b'"' in block for block in iter(lambda: stream.read(READ_BLOCK), b""))
        if not quoted:
            return max(0, count_lines(file) - (self.header != "none"))
        with open_text(file) as stream:
            return max(0, sum(1 for _ in _read_csv(stream, self.delimiter)) - (self.header != "none"))


class JsonlFormat(RowFormat):
    """One JSON object per line, keys matched to columns by name.

    Args:
        files: The table's files.
        schema: Declared columns; None takes the keys of the first row: lists become lists of their type, everything
            else text.
    """

    def __init__(self, files: Sequence[str], schema: Schema | None) -> None:
        self.schema = schema or self._guess(files[0])

    def parse(self, records: Sequence[bytes]) -> Parsed:
        """Parses lines one by one."""
        lines, problems = decode_lines(records)
        rows: list[dict[str, Any] | None] = [None] * len(lines)
        for i, line in enumerate(lines):
            if i in problems:
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                problems[i] = ("", f"{INVALID_JSON}: {error}" if line.strip() else EMPTY_LINE)
                continue
            if isinstance(row, dict):
                rows[i] = row
            else:
                problems[i] = ("", f"{WRONG_TYPE}: expected a JSON object, got {type(row).__name__}")
        return parse_mappings(self.schema, rows, lines, problems)

    def _records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, list[bytes]]]:
        with open_text(file) as stream:
            yield from line_blocks(stream, size)

    def _count(self, file: str) -> int:
        return count_lines(file)

    def _guess(self, file: str) -> Schema:
        for _, records in self.records(file, 1):
            try:
                row = parse_json(records[0].decode("utf-8"))
            except ValueError as error:
                raise DataError(f"{file}:1: {INVALID_JSON}: {error}") from error
            if not isinstance(row, dict) or not row:
                raise DataError(f"{file}:1: expected a JSON object with at least one key")
            return Schema(tuple(guess_column(name, value) for name, value in row.items()))
        raise no_rows(file)


def guess_column(name: str, value: Any) -> Column:
    """Returns the column that a Python value suggests: lists keep their element type, all else is text."""
    if not isinstance(value, (list, tuple)):
        return Column(name, "str")
    kinds = {type(item) for item in value}
    return Column(name, "int" if kinds <= {int} else "float" if kinds <= {int, float} else "str", None)


def _read_csv(stream: BinaryIO, delimiter: str) -> Iterator[tuple[int, _CsvRecord]]:
    """Yields (first line, record)."""
    # A cell may be a whole document; the module's own limit is 128 KB.
    csv.field_size_limit(1 << 24)
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in stream:
            taken.append(line.decode("utf-8", "surrogateescape"))
            yield taken[-1]

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    first = 1
    while True:
        cells: list[str] = []
        problem: str | None = None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = str(error)
        yield first, _CsvRecord(cells or [""], "".join(taken).rstrip("\r\n"), problem)
        first += len(taken)
        taken.clear()
