"""Text tables: tab-separated lines and JSON lines; quoted CSV is in `csv_format`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from easytransfer.config.encoding import AUTO
from easytransfer.config.json_text import parse_json
from easytransfer.data.files import open_text
from easytransfer.data.lines import count_lines, decode_lines, line_blocks
from easytransfer.data.row_format import Parsed, Problem, RowFormat, finish_column, no_rows, parse_mappings
from easytransfer.data.schema import Column, Schema
from easytransfer.data.values import COLUMN_COUNT, EMPTY_LINE, HEADER_LINE, TO_UTF8, WRONG_TYPE, convert_cells
from easytransfer.errors import ConfigError, DataError

INVALID_JSON = "invalid JSON"

_SPACES = re.compile(r" {2,}")
_DELIMITERS = {"\t": "tab", ",": ",", ";": "';'", "|": "'|'"}
_ONE_A_LINE = "write one JSON object a line, without a list around them"
_USE_HEADER = "--header=names takes the columns from it, --header=skip leaves it out"


class DelimitedFormat(RowFormat):
    """Lines with a fixed number of cells; the base of the unquoted and the quoted form.

    Args:
        files: The table's files; the first gives the header.
        schema: Declared columns; None makes every column of the header a text column.
        delimiter: Between cells.
        header: `none`, `skip` (first line ignored) or `names` (first line names the columns).
        escape: Decode escapes in text cells.
        encoding: Of the files; see `files.open_text`.

    Raises:
        ConfigError: No schema and no header, or a declared column is not in the header.
        DataError: The header cannot be read.
    """

    def __init__(
        self,
        files: Sequence[str],
        schema: Schema | None,
        delimiter: str,
        header: str,
        escape: bool,
        encoding: str = AUTO,
    ) -> None:
        self.delimiter, self.encoding = delimiter, encoding
        self.header = header
        self.escape = escape
        self.width = 0
        self.names = names = self._header(files[0]) if header == "names" else None
        if names is not None:
            self.unusable = {n: "stands in its header twice" for n, count in Counter(names).items() if count > 1}
        if schema is None:
            if names is None:
                raise ConfigError(
                    f"the columns of {files[0]} are unknown",
                    fix="declare them with --inputSchema=name:type:length,... or use --header=names",
                )
            # A column without a name, such as a saved index, cannot be asked for.
            named = [name for name in names if name and name not in self.unusable]
            self.schema = Schema(tuple(Column(name, "str") for name in named))
        else:
            self.schema = schema
        if schema is not None and names is not None:
            self._require_in_header(files[0])
        self.width = len(names or self.schema)

    def _require_in_header(self, file: str) -> None:
        """Checks that the declared columns are those of the header."""
        declared, names = self.schema, self.names or []
        self.schema = Schema(tuple(Column(name, "str") for name in dict.fromkeys(names) if name))
        self.require(declared.names, f"the header of {file}")
        self.schema, self.unusable = declared, {}

    def advice(self) -> str | None:
        """Returns the separator that cuts a header of one column into several."""
        only = self.names[0] if self.names is not None and len(self.names) == 1 else ""
        for delimiter in _DELIMITERS:
            if delimiter != self.delimiter and delimiter in only:
                return f"the header has {only.count(delimiter) + 1} columns {self._with(delimiter)}"
        return None

    def _with(self, delimiter: str) -> str:
        """Says how the table is read with another separator."""
        return f"with --delimiter={_DELIMITERS[delimiter]}"

    def first_record_problem(self, record: Any) -> str | None:
        """Returns what to do about a first line with the declared names, which is no row."""
        try:
            found = self._names(record) if self.header == "none" else []
        except DataError:
            return None
        if self._are_names(found):
            return f"{HEADER_LINE}: {_USE_HEADER}"
        # A table of one column takes any line as it is, also one with other separators.
        for delimiter in _DELIMITERS if len(found) == self.width == 1 else ():
            if delimiter in found[0] and self._are_names(found[0].split(delimiter)):
                return f"{HEADER_LINE}: read the table {self._with(delimiter)} --header=names"
        return None

    def _are_names(self, cells: Sequence[str]) -> bool:
        found = {cell.strip().strip('"').casefold() for cell in cells}
        return {name.casefold() for name in self.schema.names} <= found

    def _counting_key(self) -> tuple[Any, ...]:
        return (type(self).__name__, self.delimiter, self.header != "none", self.width, self.encoding)

    def _header(self, file: str) -> list[str]:
        for _, records in RowFormat.records(self, file, 1):
            names = self._names(records[0])
            if not any(names):
                raise DataError(f"the header of {file} has no names", fix="--header=none where it has no header")
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
        for number, column in enumerate(self.schema):
            place = number if self.names is None else self.names.index(column.name)
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
        for delimiter in _DELIMITERS:
            if delimiter != self.delimiter and text.count(delimiter) == self.width - 1 > 0:
                named = " --header=names" if self.header == "none" and self._are_names(text.split(delimiter)) else ""
                return f"it has {self.width} cells {self._with(delimiter)}{named}"
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
            raise DataError("the header is not valid UTF-8", received=ascii(record[:80]), fix=TO_UTF8) from error

    def _records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, list[bytes]]]:
        with open_text(file, self.encoding) as stream:
            yield from line_blocks(stream, size, blank_end=self.width == 1)

    def _count(self, file: str) -> int:
        lines = count_lines(file, blank_end=self.width == 1, encoding=self.encoding)
        return max(0, lines - (self.header != "none"))


class JsonlFormat(RowFormat):
    """One JSON object per line, keys matched to columns by name.

    Args:
        files: The table's files.
        schema: Declared columns; None takes the keys of the first row: lists become lists of their type, everything
            else text.
        encoding: Of the files; see `files.open_text`.
    """

    def __init__(self, files: Sequence[str], schema: Schema | None, encoding: str = AUTO) -> None:
        self.encoding = encoding
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
        with open_text(file, self.encoding) as stream:
            yield from line_blocks(stream, size)

    def _count(self, file: str) -> int:
        return count_lines(file, encoding=self.encoding)

    def _counting_key(self) -> tuple[Any, ...]:
        return (type(self).__name__, self.encoding)

    def _guess(self, file: str) -> Schema:
        for _, records in self.records(file, 1):
            try:
                row = parse_json(records[0].decode("utf-8"))
            except ValueError as error:
                raise DataError(f"{file}:1: {INVALID_JSON}: {error}", fix=_ONE_A_LINE) from error
            if not isinstance(row, dict) or not row:
                raise DataError(f"{file}:1: expected a JSON object with at least one key", fix=_ONE_A_LINE)
            return Schema(tuple(guess_column(name, value) for name, value in row.items()))
        raise no_rows(file)


def guess_column(name: str, value: Any) -> Column:
    """Returns the column that a Python value suggests: lists keep their element type, all else is text."""
    if not isinstance(value, (list, tuple)):
        return Column(name, "str")
    kinds = {type(item) for item in value}
    return Column(name, "int" if kinds <= {int} else "float" if kinds <= {int, float} else "str", None)
