"""Writers of TFRecord and Parquet tables. Their libraries are imported when used."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np

from easytransfer.data.binary_formats import import_pyarrow
from easytransfer.data.cell_text import plain_value
from easytransfer.data.table_writer import TableWriter


class ParquetWriter(TableWriter):
    """A Parquet file; the first batch decides the types."""

    def _start(self) -> None:
        self._arrow, self._parquet = import_pyarrow()
        self._handle = open(self._temporary, "wb")
        self._writer: Any = None

    def _write(self, batch: dict[str, Any], rows: int) -> None:
        arrays = {name: self._array(batch[name]) for name in self.columns}
        schema = self._writer.schema if self._writer else None
        table = self._arrow.table(arrays, schema=schema)
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._handle, table.schema)
        self._writer.write_table(table)

    def _array(self, column: Any) -> Any:
        """Keeps the width of NumPy numbers, also inside lists, which a list of Python numbers would lose."""
        if isinstance(column, np.ndarray) and column.ndim > 1 and column.dtype.kind in "fiu":
            array = self._arrow.array(np.ascontiguousarray(column).reshape(-1))
            for size in reversed(column.shape[1:]):
                ends = self._arrow.array(np.arange(0, len(array) + 1, size, dtype=np.int32))
                array = self._arrow.ListArray.from_arrays(ends, array)
            return array
        if isinstance(column, np.ndarray) and column.dtype.kind in "fiu":
            return self._arrow.array(column)
        return self._arrow.array([plain_value(value) for value in column])

    def _finish(self) -> None:
        if self._writer is None and self._open:
            empty = self._arrow.table({name: self._arrow.array([], self._arrow.string()) for name in self.columns})
            self._parquet.write_table(empty, self._handle)
        elif self._writer is not None:
            self._writer.close()
        self._handle.close()


class TfrecordWriter(TableWriter):
    """TFRecord of tf.train.Example: integers, floats and bytes as flat lists under the column's name."""

    def _start(self) -> None:
        import tensorflow as tf

        # TensorFlow reports a path it cannot open only when the first record is written.
        open(self._temporary, "wb").close()
        compression = "GZIP" if self.path.name.lower().endswith(".gz") else ""
        self._writer = tf.io.TFRecordWriter(str(self._temporary), compression)

    def _write(self, batch: dict[str, Any], rows: int) -> None:
        import tensorflow as tf

        try:
            for values in zip(*(batch[name] for name in self.columns), strict=True):
                feature = {name: _feature(value) for name, value in zip(self.columns, values, strict=True)}
                self._writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
        except tf.errors.OpError as error:
            raise OSError(errno.EIO, error.message) from error

    def _finish(self) -> None:
        import tensorflow as tf

        try:
            self._writer.close()
        except tf.errors.OpError as error:
            raise OSError(errno.EIO, error.message) from error


def _feature(value: Any) -> Any:
    import tensorflow as tf

    if isinstance(value, (str, bytes)):
        value = [value]
    array = np.asarray(value).reshape(-1)
    if array.size == 0:
        return tf.train.Feature()  # an empty list has no type, and readers take it for any
    if array.dtype.kind in "iub":
        return tf.train.Feature(int64_list=tf.train.Int64List(value=array.tolist()))
    if array.dtype.kind == "f":
        return tf.train.Feature(float_list=tf.train.FloatList(value=array.tolist()))
    texts = [item if isinstance(item, bytes) else str(item).encode("utf-8", "replace") for item in array.tolist()]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
