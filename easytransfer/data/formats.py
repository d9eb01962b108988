"""Picks the reader of a table's form."""

from __future__ import annotations

import os
from collections.abc import Sequence

from easytransfer.config.job import DataConfig
from easytransfer.data.app_forms import AppFormat, common_reader, reader_of, refuse_encoding
from easytransfer.data.binary_formats import ParquetFormat, TfrecordFormat
from easytransfer.data.csv_dialect import Dialect, csv_dialect
from easytransfer.data.csv_format import CsvFormat
from easytransfer.data.files import real_path, table_suffix
from easytransfer.data.image_formats import FolderFormat, IdxFormat, NpzFormat, is_idx
from easytransfer.data.picture_folders import has_image_name
from easytransfer.data.row_format import RowFormat
from easytransfer.data.schema import Schema
from easytransfer.data.squad_format import SquadFormat
from easytransfer.data.text_formats import JsonlFormat, TsvFormat
from easytransfer.data.values import unescape
from easytransfer.errors import ConfigError
from easytransfer.run.log import say_once

FORMS = ("text", "csv", "jsonl", "tfrecord", "parquet", "squad")
# These are read only.
_IMAGE_FORMS = ("folder", "idx", "npz")
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
# Columns that a line names.
_MOST_NAMES = 10


def form_of(path: str) -> str:
    """Returns the form a file name suggests; `text` for names that suggest none."""
    return _FORM_OF_SUFFIX.get(table_suffix(path), "text")


def _form_to_read(path: str) -> str:
    """Returns the form of an input; some forms are read and never written."""
    if os.path.isdir(path) or has_image_name(path):
        return "folder"
    if is_idx(path):
        return "idx"
    return "npz" if table_suffix(real_path(path)) == ".npz" else form_of(path)


def names_columns(path: str) -> bool:
    """Returns whether a table at this path carries its own column names, so that no schema is needed."""
    if reader_of(path):
        return True
    return _form_to_read(path) not in ("text",) or path.endswith(".list_tfrecord")


def choose_format(
    files: Sequence[str], *, schema: Schema | None, data: DataConfig, form: str | None = None
) -> RowFormat:
    """Returns the reader for `files`; see `easytransfer.data.table.open_table` for the rules.

    Raises:
        ConfigError: The files have different forms, or their columns do not fit the schema.
        DataError: A file needed to learn the columns cannot be read.
    """
    if form is None and (ending := common_reader(files)) is not None:
        return AppFormat(files, schema, ending, data.encoding)
    forms = {_form_to_read(file): file for file in files}
    if form is None and len(forms) > 1:
        raise ConfigError("the table mixes files of different forms", received=", ".join(forms.values()))
    form = form or next(iter(forms))
    if form not in (*FORMS, *_IMAGE_FORMS):
        raise ConfigError("unknown table form", received=form, accepted=(*FORMS, *_IMAGE_FORMS))
    if form == "jsonl":
        return JsonlFormat(files, schema, data.encoding)
    if form == "squad":
        return SquadFormat(files, data.encoding)
    if form not in ("text", "csv"):
        refuse_encoding(data.encoding, form)
    if form == "tfrecord":
        return TfrecordFormat(files, schema)
    if form == "folder":
        return FolderFormat(schema)
    if form == "idx":
        return IdxFormat(files, schema)
    if form == "npz":
        return NpzFormat(files, schema)
    if form == "parquet":
        return ParquetFormat(files, schema)
    delimiter = unescape(data.delimiter)
    if not delimiter or "\n" in delimiter:
        raise ConfigError("the delimiter must not be empty or a line break", received=data.delimiter)
    if form == "csv" and (delimiter != _TAB or data.header == "names" or schema is None):
        return _quoted(files, schema, delimiter, data)
    return TsvFormat(files, schema, delimiter, data.header, data.escape, data.encoding)


def _quoted(files: Sequence[str], schema: Schema | None, delimiter: str, data: DataConfig) -> CsvFormat:
    # Without a delimiter of its own the table says which one it has.
    dialect = csv_dialect(files[0], data.encoding) if delimiter == _TAB else Dialect(delimiter)
    if len(dialect.delimiter) > 1:
        raise ConfigError("a quoted .csv table needs a delimiter of one character", received=data.delimiter)
    header = "names" if schema is None else data.header
    options = {"quote": dialect.quote, "encoding": data.encoding}
    found = CsvFormat(files, schema, dialect.delimiter, header, data.escape, **options)
    if delimiter == _TAB:
        say_once(f"{files[0]}: {dialect}, columns {_listed(found.names or ())}")
    return found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
