"""Picks the reader of a table's form."""

from __future__ import annotations

from collections.abc import Sequence

from easytransfer.config.job import DataConfig
from easytransfer.data.binary_formats import ParquetFormat, TfrecordFormat
from easytransfer.data.cells import unescape
from easytransfer.data.files import table_suffix
from easytransfer.data.row_format import RowFormat
from easytransfer.data.schema import Schema
from easytransfer.data.squad_format import SquadFormat
from easytransfer.data.text_formats import CsvFormat, JsonlFormat, TsvFormat
from easytransfer.errors import ConfigError

FORMS = ("text", "csv", "jsonl", "tfrecord", "parquet", "squad")
_FORM_OF_SUFFIX = {
    ".csv": "csv",
    ".json": "squad",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
    ".parquet": "parquet",
}
_TAB = "\t"


def form_of(path: str) -> str:
    """Returns the form a file name suggests; `text` for names that suggest none."""
    return _FORM_OF_SUFFIX.get(table_suffix(path), "text")


def choose_format(
    files: Sequence[str], *, schema: Schema | None, data: DataConfig, form: str | None = None
) -> RowFormat:
    """Returns the reader for `files`; see `easytransfer.data.table.open_table` for the rules.

    Raises:
        ConfigError: The files have different forms, or their columns do not fit the schema.
        DataError: A file needed to learn the columns cannot be read.
    """
    forms = {form_of(file): file for file in files}
    if form is None and len(forms) > 1:
        raise ConfigError("the table mixes files of different forms", received=", ".join(forms.values()))
    form = form or next(iter(forms))
    if form not in FORMS:
        raise ConfigError("unknown table form", received=form, accepted=FORMS)
    if form == "jsonl":
        return JsonlFormat(files, schema)
    if form == "squad":
        return SquadFormat()
    if form == "tfrecord":
        return TfrecordFormat(files, schema)
    if form == "parquet":
        return ParquetFormat(files, schema)
    delimiter = unescape(data.delimiter)
    if not delimiter or "\n" in delimiter:
        raise ConfigError("the delimiter must not be empty or a line break", received=data.delimiter)
    if form == "csv" and (delimiter != _TAB or data.header == "names" or schema is None):
        return _quoted(files, schema, delimiter, data)
    return TsvFormat(files, schema, delimiter, data.header, data.escape)


def _quoted(files: Sequence[str], schema: Schema | None, delimiter: str, data: DataConfig) -> CsvFormat:
    delimiter = "," if delimiter == _TAB else delimiter
    if len(delimiter) > 1:
        raise ConfigError("a quoted .csv table needs a delimiter of one character", received=data.delimiter)
    return CsvFormat(files, schema, delimiter, "names" if schema is None else data.header, data.escape)
