"""Readers and writers of the Python API, under the original EasyTransfer's names.

A reader is a thin factory over `easytransfer.data.table.Table`: it yields chunks of rows, NumPy batches, or a plain
`tf.data.Dataset`. TensorFlow is imported only for the latter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from easytransfer.compat.pipeline import Process
from easytransfer.config.job import DataConfig
from easytransfer.data.encoded import Ragged
from easytransfer.data.files import read_file_list
from easytransfer.data.row_format import MemoryFormat
from easytransfer.data.schema import Column, Schema, parse_schema
from easytransfer.data.table import BadRows, RowChunk, Table, open_table
from easytransfer.data.text_formats import guess_column
from easytransfer.data.writers import open_writer
from easytransfer.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "BatchWriter",
    "BundleCSVReader",
    "BundleTFRecordReader",
    "CSVReader",
    "CSVWriter",
    "JsonlReader",
    "MemoryReader",
    "OdpsTableReader",
    "OdpsTableWriter",
    "ParquetReader",
    "TFRecordReader",
    "TFRecordWriter",
    "TableReader",
]

# Rows shuffled together when no buffer size is given; smaller tables are permuted as a whole.
MAX_SHUFFLE_ROWS = 100_000

# Where `bad_rows=quarantine` copies rows to when the reader is given no place: the current folder.
BAD_ROWS_FILE = "bad_rows.tsv"

# Knobs of the original's input pipeline that have no counterpart here.
_UNUSED = ("num_parallel_batches", "prefetch_buffer_size", "job_name", "num_threads", "thread_num")
_QUEUES = ("input_queue", "output_queue")

Batch = dict[str, "np.ndarray | Ragged"]


class Rows(dict):
    """Some rows as parsed cells by column name, each a list; what a reader hands on in a `ProcessExecutor`.

    Args:
        chunk: The rows with their origin.
    """

    def __init__(self, chunk: RowChunk) -> None:
        super().__init__(chunk.columns)
        self.chunk = chunk


class TableReader(Process):
    """Reads a table in batches; a source of `easytransfer.pipeline`, too.

    Example:
        >>> reader = MemoryReader([{"text": "a", "label": 1}], batch_size=1, input_schema="text:str:1,label:int:1")
        >>> [batch["label"].tolist() for batch in reader.batches()]
        [[1]]

    Args:
        input_glob: File, glob, directory or comma list of these.
        input_schema: Declared columns; None takes them from files that name their columns.
        is_training: Shuffle, in a new order in each epoch.
        batch_size: Rows per batch; the last one may be smaller.
        shuffle_buffer_size: Rows shuffled together; None = the whole table up to 100,000 rows.
        slice_id: This worker's slice, 0..slice_count - 1; slices are disjoint and complete.
        slice_count: Number of slices.
        seed: Seed of the orders.
        data: Delimiter, header, escape and bad-row settings.
        bad_rows: Where bad rows go; None does what `data` says, or stops at the first one.
        **unused: `output_queue` of a `ProcessExecutor`; other pipeline settings of the original have no effect.

    Raises:
        ConfigError: A setting is unknown or out of range, or the columns do not fit the files.
        DataError: No file is found.
    """

    form: ClassVar[str | None] = None
    # Settings and schema for readers that are given none: those of the running `base_model`.
    default_data: ClassVar[DataConfig | None] = None

    def __init__(
        self,
        input_glob: str | Sequence[str],
        input_schema: str | Schema | None = None,
        is_training: bool = False,
        batch_size: int = 32,
        shuffle_buffer_size: int | None = None,
        slice_id: int = 0,
        slice_count: int = 1,
        *,
        seed: int = 0,
        data: DataConfig | None = None,
        bad_rows: BadRows | None = None,
        **unused: Any,
    ) -> None:
        for name in unused:
            if name not in (*_UNUSED, *_QUEUES):
                known = ("shuffle_buffer_size", "slice_id", "slice_count", "seed", "data", "bad_rows", *_UNUSED)
                raise ConfigError(f"unknown reader setting {name!r}", fix=did_you_mean(name, known))
        if batch_size < 1 or not 0 <= slice_id < slice_count:
            raise ConfigError(
                "reader settings are out of range",
                received=f"batch_size={batch_size}, slice_id={slice_id}, slice_count={slice_count}",
                accepted="batch_size >= 1, 0 <= slice_id < slice_count",
            )
        super().__init__(type(self).__name__, output_queue=unused.get("output_queue"))
        self.is_training = is_training
        self.batch_size = batch_size
        self.shuffle_buffer_size = shuffle_buffer_size
        self.slice_id = slice_id
        self.slice_count = slice_count
        self.seed = seed
        data = data or self.default_data
        if bad_rows is None and data is not None:
            bad_rows = BadRows(data.bad_rows, data.max_bad_rows, BAD_ROWS_FILE)
        input_schema = input_schema or (data and data.input_schema)
        schema = parse_schema(input_schema) if isinstance(input_schema, str) else input_schema
        self._again = lambda bad_rows: self._open(input_glob, schema, data, bad_rows)
        self.table = self._again(bad_rows)
        self._pass: Iterator[RowChunk] | None = None

    def _open(self, source: Any, schema: Schema | None, data: DataConfig | None, bad_rows: BadRows | None) -> Table:
        return open_table(source, schema=schema, data=data, bad_rows=bad_rows, form=self.form)

    @property
    def columns(self) -> list[Column]:
        """The columns of the table."""
        return self.table.columns

    def __len__(self) -> int:
        """Rows of this slice, bad ones included; counted once per file size and modification time."""
        return len(range(self.slice_id, self.table.row_count(), self.slice_count))

    def chunks(self, size: int = 4096, start: int = 0) -> Iterator[RowChunk]:
        """Yields this slice in table order as chunks of up to `size` rows, beginning at row `start` of the table."""
        return self.table.chunks(size, (self.slice_id, self.slice_count), start)

    def batches(self, epoch: int = 0) -> Iterator[Batch]:
        """Yields one pass over this slice as NumPy batches; every accepted row appears once.

        Returns:
            Columns by name: int64 or float32 [batch] or [batch, length], text as objects, `*` columns as `Ragged`.
        """
        random = np.random.Generator(np.random.PCG64([self.seed % 2**63, epoch])) if self.is_training else None
        waiting: dict[str, list[Any]] = {column.name: [] for column in self.columns}
        first = self.columns[0].name
        window = self._window() if random is not None else self.batch_size
        for chunk in self.chunks():
            for name, values in waiting.items():
                values.extend(chunk.columns[name])
            if len(waiting[first]) >= window:
                waiting = yield from self._cut(waiting, random, keep_rest=True)
        yield from self._cut(waiting, random, keep_rest=False)

    def _window(self) -> int:
        if self.shuffle_buffer_size is not None:
            return max(self.shuffle_buffer_size, self.batch_size)
        return max(min(len(self), MAX_SHUFFLE_ROWS), self.batch_size)

    def _cut(self, rows: dict[str, list[Any]], random: np.random.Generator | None, keep_rest: bool) -> Iterator[Batch]:
        """Yields full batches of `rows`, shuffled; returns what is left over, or yields that too."""
        total = len(next(iter(rows.values())))
        order = range(total) if random is None else random.permutation(total).tolist()
        full = total - total % self.batch_size if keep_rest else total
        for start in range(0, full, self.batch_size):
            chosen = order[start : min(start + self.batch_size, full)]
            yield {column.name: column_array(column, [rows[column.name][i] for i in chosen]) for column in self.columns}
        return {name: [values[i] for i in order[full:]] for name, values in rows.items()}

    def cells(self, column: str) -> Iterator[Any]:
        """Yields the cells of a column in all rows that can be read; bad rows that are left out are not counted."""
        policy = "fail" if self.table.bad_rows.policy == "fail" else "skip"
        table = self._again(BadRows(policy))
        for chunk in table.chunks():
            yield from chunk.columns[column]
        if not table.count.accepted:
            raise table.count.nothing_usable(", ".join(table.files), table.bad_rows.summary())

    def process(self, in_data: None) -> Rows:
        """Returns the next `batch_size` rows of the table, as a stage of a `ProcessExecutor` does."""
        if self._pass is None:
            self._pass = self.chunks(self.batch_size)
        return Rows(next(self._pass))

    def dataset(self) -> tf.data.Dataset:
        """Returns one pass over this slice as a dataset of dict batches; passes over it differ in order in training.

        Text is tf.string, `*` columns are RaggedTensors [batch, None].
        """
        import tensorflow as tf

        passes = iter(range(2**62))

        def generate() -> Iterator[dict[str, Any]]:
            for batch in self.batches(next(passes)):
                yield {
                    name: tf.RaggedTensor.from_row_splits(tf.constant(value.values), value.offsets)
                    if isinstance(value, Ragged)
                    else value
                    for name, value in batch.items()
                }

        kinds = {"int": tf.int64, "float": tf.float32, "str": tf.string, "base64": tf.float32, "image": tf.string}
        signature: dict[str, Any] = {}
        for column in self.columns:
            if column.length is None:
                signature[column.name] = tf.RaggedTensorSpec(
                    [None, None], kinds[column.type], row_splits_dtype=tf.int64
                )
            else:
                shape = [None, column.length] if column.is_list else [None]
                signature[column.name] = tf.TensorSpec(shape, kinds[column.type])
        return tf.data.Dataset.from_generator(generate, output_signature=signature)


def column_array(column: Column, values: list[Any]) -> np.ndarray | Ragged:
    """Returns parsed cells as int64, float32 or object [rows] or [rows, length]; `*` columns ragged."""
    dtype = {"int": np.int64, "float": np.float32, "str": object, "base64": np.float32, "image": object}[column.type]
    if column.type == "image":  # one object each, also where all are arrays of one shape
        cells = np.empty(len(values), object)
        cells[:] = values
        return cells
    return Ragged.from_lists(values, dtype) if column.length is None else np.array(values, dtype)


class CSVReader(TableReader):
    """Text tables: TAB-separated without header when a schema is given, else `.csv` with a header."""


class TFRecordReader(TableReader):
    """TFRecord files of tf.train.Example."""

    form = "tfrecord"


class JsonlReader(TableReader):
    """JSON lines."""

    form = "jsonl"


class ParquetReader(TableReader):
    """Parquet files; needs the extra `parquet`."""

    form = "parquet"


class BundleCSVReader(CSVReader):
    """The text tables that a file list names, one per line."""

    def _open(self, source: Any, schema: Schema | None, data: DataConfig | None, bad_rows: BadRows | None) -> Table:
        return super()._open(read_file_list(source), schema, data, bad_rows)


class BundleTFRecordReader(TFRecordReader):
    """The TFRecord files that a file list names, sliced by worker.

    Args:
        input_glob: The file list.
        input_schema: Declared columns.
        is_training: Shuffle.
        batch_size: Rows per batch.
        worker_hosts: Comma list of workers; their number is the number of slices.
        task_index: Slice of this worker.
        distribution_strategy: Accepted for compatibility, without effect.
        **settings: As for `TableReader`.
    """

    def __init__(
        self,
        input_glob: str,
        input_schema: str | Schema | None = None,
        is_training: bool = False,
        batch_size: int = 32,
        worker_hosts: str | None = None,
        task_index: int = 0,
        distribution_strategy: str | None = None,
        **settings: Any,
    ) -> None:
        if worker_hosts:
            settings = {"slice_id": task_index, "slice_count": len(worker_hosts.split(",")), **settings}
        super().__init__(input_glob, input_schema, is_training, batch_size, **settings)

    def _open(self, source: Any, schema: Schema | None, data: DataConfig | None, bad_rows: BadRows | None) -> Table:
        return super()._open(read_file_list(source), schema, data, bad_rows)


class MemoryReader(TableReader):
    """Rows given as a list of dicts; without a schema the first row tells the columns."""

    def _open(self, source: Any, schema: Schema | None, data: DataConfig | None, bad_rows: BadRows | None) -> Table:
        if not source:
            raise DataError("MemoryReader got no row")
        schema = schema or Schema(tuple(_memory_column(name, value) for name, value in source[0].items()))
        return Table(MemoryFormat(source, schema), ["<memory>"], bad_rows or BadRows("fail"))


def _memory_column(name: str, value: Any) -> Column:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return guess_column(name, value)
    return Column(name, "int" if isinstance(value, (int, np.integer)) else "float")


class BatchWriter(Process):
    """Writes batches to a table; the last stage of a `ProcessExecutor`, too.

    Args:
        output_glob: The table; it appears when `close` is called.
        output_schema: Comma list of the columns to write, in order.
        overwrite: Replace an existing table; default: what the running application says.
        **unused: `input_queue` of a `ProcessExecutor`; other pipeline settings of the original have no effect.

    Raises:
        ConfigError: The output exists, or a setting is unknown.
        ResourceError: The folder cannot be written.
    """

    form: ClassVar[str] = "text"
    # For writers that are not told: the setting of the running `base_model`.
    default_overwrite: ClassVar[bool] = False

    def __init__(self, output_glob: str, output_schema: str, *, overwrite: bool | None = None, **unused: Any) -> None:
        for name in unused:
            if name not in (*_UNUSED, *_QUEUES, "slice_id"):
                raise ConfigError(f"unknown writer setting {name!r}", fix=did_you_mean(name, (*_UNUSED, "overwrite")))
        columns = [name.strip() for name in output_schema.split(",") if name.strip()]
        super().__init__(type(self).__name__, input_queue=unused.get("input_queue"))
        overwrite = self.default_overwrite if overwrite is None else overwrite
        self.writer = open_writer(output_glob, columns, overwrite=overwrite, form=self.form)

    def process(self, features: Mapping[str, Any]) -> None:
        """Writes one batch: lists, arrays or eager tensors by column name, the first axis being the row."""
        self.writer.write({name: v.numpy() if hasattr(v, "numpy") else v for name, v in features.items()})

    def close(self) -> None:
        """Completes the table and gives it its name; a second time changes nothing."""
        self.writer.close()

    destroy = close

    def abort(self) -> None:
        """Removes what was written."""
        self.writer.abort()


class CSVWriter(BatchWriter):
    """TAB-separated text without header, whatever the suffix, as the original writes it."""


class TFRecordWriter(BatchWriter):
    """TFRecord of tf.train.Example."""

    form = "tfrecord"


class OdpsTableReader:
    """Tables of Alibaba's table service, which only exist there.

    Raises:
        ConfigError: Always.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        raise ConfigError(
            "odps tables are not supported",
            fix="export the table to TSV or TFRecord and use CSVReader or TFRecordReader",
        )


class OdpsTableWriter(OdpsTableReader):
    """Tables of Alibaba's table service, which only exist there.

    Raises:
        ConfigError: Always.
    """
