"""Tables written beside their name and renamed when complete, so a half-written table is never seen."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from easytransfer.data.binary_writers import ParquetWriter, TfrecordWriter
from easytransfer.data.cell_text import TextCells, plain_value
from easytransfer.data.formats import FORMS, form_of
from easytransfer.data.table_writer import TableWriter, check_output
from easytransfer.errors import ConfigError

__all__ = ["TableWriter", "check_output", "open_writer"]


def open_writer(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    *,
    overwrite: bool = False,
    float_format: str | None = None,
    escape: bool = False,
    form: str | None = None,
) -> TableWriter:
    r"""Opens a table for writing; its suffix picks the form.

    `.csv` has commas, quotes and a header; `.jsonl`, `.parquet` and `.tfrecord` keep types and names; anything else is
    TSV without header. All but Parquet may end in `.gz`. In TSV and CSV a vector is written with `,` between its
    values and a matrix with `;` between its rows.

    Args:
        path: The table; its folder is created.
        columns: Columns to write, in this order.
        overwrite: Replace an existing file.
        float_format: Such as `%.4f`; None writes the shortest text that reads back as the same number.
        escape: Write tab, line breaks and backslash of TSV text as `\t`, `\n`, `\r` and `\\`. Without it they become
            spaces, counted in the writer's `replaced`.
        form: Form to use instead of the one the suffix says.

    Raises:
        ConfigError: The output exists, a column is named twice, or the form cannot be written.
        ResourceError: The folder cannot be written.
    """
    if not columns or len(set(columns)) < len(columns):
        raise ConfigError("output columns must be given, each once", received=",".join(columns))
    form = form or form_of(os.fspath(path))
    if form not in FORMS:
        raise ConfigError("unknown table form", received=form, accepted=FORMS)
    if form == "squad":
        raise ConfigError("SQuAD JSON is read but not written", received=os.fspath(path), accepted=FORMS[:-1])
    if form == "parquet" and os.fspath(path).lower().endswith(".gz"):
        raise ConfigError("Parquet files are compressed inside; .parquet.gz is not written", received=os.fspath(path))
    path = check_output(path, overwrite=overwrite)
    if form == "parquet":
        return ParquetWriter(path, columns)
    if form == "tfrecord":
        return TfrecordWriter(path, columns)
    if form == "jsonl":
        return JsonlWriter(path, columns)
    cells = TextCells(float_format, escape and form == "text", quoted=form == "csv")
    return (CsvWriter if form == "csv" else TsvWriter)(path, columns, cells)


class _LineWriter(TableWriter):
    """A text file, compressed when its name ends in `.gz`."""

    _stream: TextIO

    def _start(self) -> None:
        raw: Any = open(self._temporary, "wb")
        if self.path.name.lower().endswith(".gz"):
            # Without name and time in it, equal tables give equal files.
            raw = _ClosingGzip(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0)
        self._stream = io.TextIOWrapper(raw, encoding="utf-8", errors="replace", newline="")

    def _finish(self) -> None:
        self._stream.close()


class _ClosingGzip(gzip.GzipFile):
    """A gzip stream that owns the file below it."""

    def close(self) -> None:
        below = self.fileobj if self.myfileobj is None else None
        super().close()
        if below is not None:
            below.close()


class TsvWriter(_LineWriter):
    """Tab-separated lines without header or quotes."""

    def __init__(self, path: Path, columns: Sequence[str], cells: TextCells) -> None:
        self._cells = cells
        super().__init__(path, columns)

    @property
    def replaced(self) -> int:
        """Text cells in which tabs, line breaks or NUL were replaced by spaces."""
        return self._cells.replaced

    def _write(self, batch: dict[str, Any], rows: int) -> None:
        columns = [self._cells.column(batch[name]) for name in self.columns]
        self._stream.write("\n".join(map("\t".join, zip(*columns, strict=True))) + "\n")


class CsvWriter(TsvWriter):
    """Comma-separated lines with a header and RFC 4180 quoting."""

    def _start(self) -> None:
        super()._start()
        self._writer = csv.writer(self._stream, lineterminator="\n")
        self._writer.writerow(self.columns)

    def _write(self, batch: dict[str, Any], rows: int) -> None:
        self._writer.writerows(zip(*(self._cells.column(batch[name]) for name in self.columns), strict=True))


class JsonlWriter(_LineWriter):
    """One JSON object per line; values that JSON has no number for become null."""

    def _write(self, batch: dict[str, Any], rows: int) -> None:
        columns = [[plain_value(value) for value in batch[name]] for name in self.columns]
        for values in zip(*columns, strict=True):
            row = dict(zip(self.columns, values, strict=True))
            self._stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
