"""What separates the cells of a CSV table with a header, and what stands around them, told from its first lines."""

from __future__ import annotations

import csv
import io
import re
from itertools import islice
from typing import NamedTuple

from easytransfer.config.encoding import AUTO
from easytransfer.data.files import open_text, reading
from easytransfer.errors import DataError

DELIMITERS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
# What spreadsheets write into the first line to tell each other the separator.
SEPARATOR_LINE = re.compile(rb'"?sep=(.)"?\r?\n', re.IGNORECASE)
_SAMPLE, _MOST_ROWS = 1 << 18, 1000
# Share of the rows that must have as many cells as the header; the others may be bad rows.
_FITTING = 0.9


class Dialect(NamedTuple):
    """How cells are written.

    Attributes:
        delimiter: What stands between them.
        quote: What stands around those that hold delimiters or line breaks.
    """

    delimiter: str = ","
    quote: str = '"'

    def __str__(self) -> str:
        single = ", cells in single quotes" if self.quote == "'" else ""
        return f"{DELIMITERS.get(self.delimiter, repr(self.delimiter))} between cells{single}"


def csv_dialect(file: str, encoding: str = AUTO) -> Dialect:
    """Returns the dialect in which the header of a file has several cells, and nearly all first rows as many.

    Comma, semicolon, tab and vertical bar are tried. Where none of them fits, it is a comma and the table may have one
    column. Quotes are double ones unless all cells of the header are in single ones.

    Raises:
        DataError: The file cannot be read, or several separators fit.
    """
    with reading(file), open_text(file, encoding) as stream:
        begin = stream.read(_SAMPLE)
        whole = len(begin) < _SAMPLE
    if named := SEPARATOR_LINE.match(begin):
        return Dialect(named[1].decode("latin-1"))
    # Lines end where those of the table do: other marks, such as U+2028, are part of a cell.
    lines = list(io.StringIO(begin.decode("utf-8", "surrogateescape"), newline="\n"))
    lines = lines if whole else lines[:-1]
    fitting = [dialect for delimiter in DELIMITERS if (dialect := _fitting(lines, delimiter, whole))]
    if len(fitting) > 1:
        raise DataError(
            f"{file} can be cut into columns in several ways: {' or '.join(map(str, fitting))}",
            received="".join(lines[:1]).strip()[:80],
            fix="name the separator, such as --delimiter=','",
        )
    return fitting[0] if fitting else Dialect()


def _fitting(lines: list[str], delimiter: str, whole: bool) -> Dialect | None:
    """Returns the dialect with a delimiter, None where the lines do not fit it."""
    dialect = Dialect(delimiter)
    header, *rows = _rows(lines, dialect, whole) or [[]]
    if header and all(len(cell) > 1 and cell[0] == cell[-1] == "'" for cell in map(str.strip, header)):
        dialect = Dialect(delimiter, "'")
        header, *rows = _rows(lines, dialect, whole) or [[]]
    if len(header) < 2:
        return None
    return dialect if sum(len(row) == len(header) for row in rows) >= _FITTING * len(rows) else None


def _rows(lines: list[str], dialect: Dialect, whole: bool) -> list[list[str]]:
    """Returns the first rows, without empty ones; the last one of a sample may be cut off in quotes and is left out."""
    found: list[list[str]] = []
    reader = csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True)
    try:
        found.extend(row for row in islice(reader, _MOST_ROWS) if row)
    except csv.Error:
        return found
    return found if whole or len(found) == _MOST_ROWS else found[:-1]
