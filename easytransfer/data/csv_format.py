"""CSV tables with quoted cells."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from easytransfer.data.bad_rows import SHOWN_CHARACTERS
from easytransfer.data.csv_dialect import SEPARATOR_LINE
from easytransfer.data.files import open_text
from easytransfer.data.lines import READ_BLOCK, count_lines
from easytransfer.data.row_format import Parsed, Problem
from easytransfer.data.text_formats import DelimitedFormat
from easytransfer.data.values import INVALID_UTF8, NUL_CHARACTER, TO_UTF8
from easytransfer.errors import DataError
from easytransfer.run.log import warn

BAD_QUOTING = "bad quoting"
# More lines than this inside one pair of quotes that makes no row stop the job, whatever `badRows` says.
MOST_QUOTED_LINES = 100

_SURROGATE = re.compile("[\udc80-\udcff]")


class _CsvRecord(NamedTuple):
    cells: list[str]
    text: str
    error: str | None


class CsvFormat(DelimitedFormat):
    """CSV with RFC 4180 quoting: a cell in quotes may hold delimiters, line breaks and doubled quotes.

    Args:
        quote: The quote; other arguments as of `DelimitedFormat`.
    """

    def __init__(self, *args: Any, quote: str = '"', **options: Any) -> None:
        self.quote = quote
        super().__init__(*args, **options)

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
                problems[i] = ("", f"{INVALID_UTF8}: {TO_UTF8}")
                texts[i] = record.text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            elif record.error is not None:
                problems[i] = ("", f"{BAD_QUOTING}: {record.error}")
        return self._finish([record.cells for record in records], texts, problems)

    def _names(self, record: _CsvRecord) -> list[str]:
        if record.error is not None or _SURROGATE.search(record.text):
            raise DataError("the CSV header has bad quoting or invalid UTF-8", received=record.text[:80], fix=TO_UTF8)
        return [name.strip() for name in record.cells]

    def _records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, list[_CsvRecord]]]:
        with open_text(file, self.encoding) as stream:
            rows = self._rows(stream, file)
            while block := list(islice(rows, size)):
                yield np.array([line for line, _ in block]), [record for _, record in block]

    def _count(self, file: str) -> int:
        with open_text(file, self.encoding) as stream:
            plain = SEPARATOR_LINE.match(stream.peek(16)) is None  # type: ignore[attr-defined]
            plain = plain and not any(
                self.quote.encode() in block for block in iter(lambda: stream.read(READ_BLOCK), b"")
            )
        if plain:
            return max(
                0, count_lines(file, blank_end=self.width == 1, encoding=self.encoding) - (self.header != "none")
            )
        with open_text(file, self.encoding) as stream:
            return max(0, sum(1 for _ in self._rows(stream, file)) - (self.header != "none"))

    def advice(self) -> str | None:
        """Returns how a header of one column is cut into several."""
        if self.names is not None and len(self.names) == 1 and "\t" in self.names[0]:
            return "its columns are set apart by TAB: give it a name that ends in .tsv, and --header=names"
        return super().advice()

    def _rows(self, stream: BinaryIO, file: str) -> Iterator[tuple[int, _CsvRecord]]:
        """Yields (first line, record), without empty lines at the end.

        Where quotes take several lines and what comes of it is no row, each of the lines is a record of its own, so
        that all of them are counted.

        Raises:
            DataError: Too many lines are lost in this way.
        """
        skipped = self._skip_separator_line(stream, file)
        empty: list[tuple[int, _CsvRecord]] = []
        for line, record in _read_csv(stream, self.delimiter, self.quote):
            line += skipped
            if not record.text and self.width != 1:
                empty.append((line, record))
                continue
            yield from empty
            empty.clear()
            if "\n" not in record.text:
                yield line, record
                continue
            lines = record.text.split("\n")
            broken, swallowed = self._is_broken(record), self._hold_rows(lines)
            if len(lines) > MOST_QUOTED_LINES and (broken or swallowed):
                raise DataError(
                    f"{file}:{line}: {BAD_QUOTING}: a quote that is opened there takes {len(lines)} lines, more than "
                    f"the {MOST_QUOTED_LINES} that may be lost",
                    received=lines[0][:SHOWN_CHARACTERS],
                    fix='close the quote, or write a quote inside of a quoted cell as ""',
                )
            if not broken:
                if swallowed:
                    _tell(f"{file}:{line}: a cell in quotes holds {len(lines)} lines like rows; is a quote not closed?")
                yield line, record
            else:
                reason = record.error or f"{len(record.cells)} cells, expected {self.width}"
                reason = f"{reason}; a quote is opened in line {line} and takes {len(lines)} lines"
                yield from ((line + i, _CsvRecord([""], text.rstrip("\r"), reason)) for i, text in enumerate(lines))

    def _is_broken(self, record: _CsvRecord) -> bool:
        return record.error is not None or (self.width > 0 and len(record.cells) != self.width)

    def _hold_rows(self, lines: Sequence[str]) -> bool:
        """Returns whether most lines in quotes look like rows of the table rather than like a text."""
        like_rows = sum(text.count(self.delimiter) == self.width - 1 for text in lines)
        return self.width > 1 and len(lines) > 2 and like_rows > len(lines) / 2

    def _skip_separator_line(self, stream: BinaryIO, file: str) -> int:
        """Reads over a first line such as `sep=;` and returns how many lines these are."""
        found = SEPARATOR_LINE.match(stream.peek(16))  # type: ignore[attr-defined]
        if found is None:
            return 0
        named = found[1].decode("latin-1")
        if named != self.delimiter:
            raise DataError(
                f"the first line of {file} says that {named!r} separates its cells",
                received=self.delimiter,
                fix=f"read it with --delimiter='{named}'",
            )
        stream.readline()
        return 1


@functools.lru_cache(maxsize=1024)
def _tell(text: str) -> None:
    """Warns, but once where a table is read several times."""
    warn(text)


def _read_csv(stream: BinaryIO, delimiter: str, quote: str) -> Iterator[tuple[int, _CsvRecord]]:
    """Yields (first line, record)."""
    # A cell may be a whole document; the module's own limit is 128 KB.
    csv.field_size_limit(1 << 24)
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in stream:
            taken.append(line.decode("utf-8", "surrogateescape"))
            yield taken[-1]

    reader = csv.reader(lines(), delimiter=delimiter, quotechar=quote, strict=True)
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
