"""Binary tables: TFRecord files of tf.train.Example, and Parquet. Their libraries are imported when used."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from easytransfer.data.files import is_picture, open_binary
from easytransfer.data.lines import READ_BLOCK
from easytransfer.data.row_format import LazyTexts, Parsed, Problem, RowFormat, no_rows, parse_mappings
from easytransfer.data.schema import Column, ListForm, Schema
from easytransfer.data.values import MISSING_VALUE, WRONG_TYPE
from easytransfer.errors import ConfigError, DataError
from easytransfer.installing import install_line

# Of a record in messages and among bad rows: one with a picture in it has millions.
SHOWN_BYTES = 1000
_PROTO_LISTS = {
    "int": "int64_list",
    "float": "float_list",
    "str": "bytes_list",
    "base64": "bytes_list",
    "image": "bytes_list",
}
_LIST_TYPES = {"int64_list": "int", "float_list": "float", "bytes_list": "str"}


class TfrecordFormat(RowFormat):
    """TFRecord files of tf.train.Example, features matched to columns by name.

    Args:
        files: The table's files.
        schema: Declared columns; None takes the features of the first record, in alphabetical order: one value makes
            a column of single values, more make a variable-length list, and an encoded picture an image column.
    """

    def __init__(self, files: Sequence[str], schema: Schema | None) -> None:
        self.schema = schema or self._guess(files[0])
        # As the records hold the columns, while `schema` may say to take numbers as text.
        self._stored = self.schema

    def parse(self, records: Sequence[bytes]) -> Parsed:
        """Parses a block of records in one TensorFlow call; one by one only where that fails."""
        import tensorflow as tf

        kinds = {"int": tf.int64, "float": tf.float32}
        features = {column.name: tf.io.RaggedFeature(kinds.get(column.type, tf.string)) for column in self._stored}
        try:
            with tf.device("/cpu:0"):
                found = tf.io.parse_example(tf.constant(list(records), tf.string), features)
            lists = {name: _rows_of(value) for name, value in found.items()}
            rows: list[dict[str, Any] | None] = [
                dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)
            ]
            problems: dict[int, Problem] = {}
        except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
            # The message repeats the record, which need not be text.
            rows, problems = self._parse_one_by_one(records)
        for i, row in enumerate(rows):
            if row is not None:
                self._unwrap(i, row, problems)
        rows = [None if i in problems else row for i, row in enumerate(rows)]
        return parse_mappings(self.schema, rows, LazyTexts(records, _show), problems)

    def narrow(self, names: Sequence[str]) -> None:
        """Leaves out all columns but these."""
        super().narrow(names)
        self._stored = Schema(tuple(column for column in self._stored if column.name in names))

    def _unwrap(self, i: int, row: dict[str, Any], problems: dict[int, Problem]) -> None:
        """Takes single values out of their list; an absent feature looks like an empty list."""
        for column in self._stored:
            if column.is_list and column.type != "base64":
                continue
            values = row[column.name]
            if len(values) == 1:
                row[column.name] = values[0]
            elif column.type != "base64" or not values:
                reason = f"{MISSING_VALUE}: no feature {column.name!r}" if not values else f"{WRONG_TYPE}: a list"
                problems.setdefault(i, (column.name, reason))

    def _parse_one_by_one(self, records: Sequence[bytes]) -> tuple[list[dict[str, Any] | None], dict[int, Problem]]:
        import tensorflow as tf
        from google.protobuf.message import DecodeError

        rows: list[dict[str, Any] | None] = []
        problems: dict[int, Problem] = {}
        for i, record in enumerate(records):
            row: dict[str, Any] | None = None
            try:
                feature = tf.train.Example.FromString(record).features.feature
                row = {}
                for column in self._stored:
                    kind = feature[column.name].WhichOneof("kind") if column.name in feature else None
                    if kind not in (None, _PROTO_LISTS[column.type]):
                        problems[i] = (column.name, f"{WRONG_TYPE}: expected {_PROTO_LISTS[column.type]}, got {kind}")
                        row = None
                        break
                    row[column.name] = list(getattr(feature[column.name], kind).value) if kind else []
            except DecodeError:
                row = None
                problems[i] = ("", f"{WRONG_TYPE}: not a tf.train.Example")
            rows.append(row)
        return rows, problems

    def _records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, list[bytes]]]:
        import tensorflow as tf

        compression = "GZIP" if file.lower().endswith(".gz") else ""
        first = 1
        try:
            for records in tf.data.TFRecordDataset(file, compression_type=compression).batch(size).as_numpy_iterator():
                yield np.arange(first, first + len(records)), records.tolist()
                first += len(records)
        except tf.errors.DataLossError as error:
            raise DataError(f"{file} is damaged behind record {first - 1}: {error.message}") from error
        except tf.errors.OpError as error:
            raise DataError(f"cannot read {file}: {error.message}") from error

    def _count(self, file: str) -> int:
        """Walks over the record frames: 8 bytes length, 4 checksum, the record, 4 checksum."""
        records, packed = 0, file.lower().endswith(".gz")
        with open_binary(file) as stream:
            while head := stream.read(12):
                left = struct.unpack("<Q", head[:8])[0] + 4 if len(head) == 12 else 1
                # What the frame says of its length may be a lie, and then is neither sought nor read in one piece.
                if not packed and left <= os.path.getsize(file) - stream.tell():
                    stream.seek(left, 1)
                    left = 0
                while packed and left and (block := stream.read(min(left, READ_BLOCK))):
                    left -= len(block)
                if left:
                    raise DataError(f"{file} is cut off behind record {records}")
                records += 1
        return records

    def _guess(self, file: str) -> Schema:
        import tensorflow as tf
        from google.protobuf.message import DecodeError

        for _, records in self.records(file, 1):
            try:
                feature = tf.train.Example.FromString(records[0]).features.feature
            except DecodeError as error:
                raise DataError(f"record 1 of {file} is not a tf.train.Example") from error
            if not feature:
                raise DataError(f"record 1 of {file} has no features", fix="give --inputSchema")
            columns = []
            for name in sorted(feature):
                kind = feature[name].WhichOneof("kind") or "bytes_list"
                values = getattr(feature[name], kind).value
                picture = kind == "bytes_list" and len(values) == 1 and is_picture(values[0])
                type_ = "image" if picture else _LIST_TYPES[kind]
                columns.append(Column(name, type_, 1 if len(values) == 1 else None))  # type: ignore[arg-type]
            return Schema(tuple(columns))
        raise no_rows(file)


def _show(record: bytes) -> str:
    return repr(record[:SHOWN_BYTES])


def _rows_of(ragged: Any) -> list[list[Any]]:
    values, ends = ragged.values.numpy().tolist(), ragged.row_splits.numpy().tolist()
    return [values[start:end] for start, end in zip(ends, ends[1:], strict=False)]


class ParquetFormat(RowFormat):
    """Parquet files, columns matched by name.

    Args:
        files: The table's files.
        schema: Declared columns; None takes those of the first file.

    Raises:
        ConfigError: pyarrow is not installed, a file is `.gz`, or a declared column is absent.
    """

    def __init__(self, files: Sequence[str], schema: Schema | None) -> None:
        if any(file.lower().endswith(".gz") for file in files):
            raise ConfigError("Parquet files are compressed inside; .parquet.gz is not read", received=files[0])
        found = self._open(files[0]).schema_arrow
        columns = {field.name: _column_of(field) for field in found}
        self._nested = [field.name for field in found if import_pyarrow()[0].types.is_nested(field.type)]
        if schema is None:
            self.unusable = {field.name: f"has type {field.type}" for field in found if columns[field.name] is None}
            schema = Schema(tuple(column for column in columns.values() if column is not None))
        else:
            Schema(tuple(Column(name, "str") for name in columns)).require(schema.names, f"the columns of {files[0]}")
        self.schema = schema

    def take_text(self, columns: Mapping[str, ListForm]) -> None:
        """Reads columns as text; lists of structures and the like have a text as JSON only."""
        nested = [name for name in self._nested if name in self.unusable and columns.get(name) == "json"]
        self.schema = Schema((*self.schema, *(Column(name, "str") for name in nested)))
        self.unusable = {name: why for name, why in self.unusable.items() if name not in nested}
        super().take_text(columns)

    def parse(self, records: Sequence[dict[str, Any]]) -> Parsed:
        """Checks the values against the schema."""
        return parse_mappings(self.schema, records, LazyTexts(records, repr), {})

    def _records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
        first = 1
        source = self._open(file)
        Schema(tuple(Column(n, "str") for n in source.schema_arrow.names)).require(
            self.schema.names, f"the columns of {file}"
        )
        try:
            for batch in source.iter_batches(size, columns=self.schema.names):
                yield np.arange(first, first + batch.num_rows), batch.to_pylist()
                first += batch.num_rows
        except (import_pyarrow()[0].ArrowException, ValueError) as error:
            raise DataError(f"{file} is damaged behind row {first - 1}: {error}") from error
        if first - 1 != source.metadata.num_rows:
            # pyarrow ends without a word where the sizes in a damaged footer leave nothing to read.
            raise DataError(
                f"{file} is damaged: its footer tells of {source.metadata.num_rows} rows, and {first - 1} can be read"
            )

    def _count(self, file: str) -> int:
        return self._open(file).metadata.num_rows

    def _open(self, file: str) -> Any:
        pyarrow, parquet = import_pyarrow()
        try:
            return parquet.ParquetFile(file)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise DataError(f"cannot read {file} as Parquet: {error}") from error


def import_pyarrow() -> tuple[Any, Any]:
    """Returns the modules pyarrow and pyarrow.parquet.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError("Parquet tables need pyarrow, which is not installed", fix=install_line("parquet")) from error
    return pyarrow, parquet


def _column_of(field: Any) -> Column | None:
    """Returns the column that fits a type of Parquet, None where there is none."""
    types = import_pyarrow()[0].types
    kind, length = field.type, 1
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind, length = kind.value_type, None
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_integer(kind):
        return Column(field.name, "int", length)
    if types.is_floating(kind):
        return Column(field.name, "float", length)
    if types.is_binary(kind) or types.is_large_binary(kind):
        return Column(field.name, "image", length)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind) or types.is_decimal(kind):
        return Column(field.name, "str", length)
    return None
