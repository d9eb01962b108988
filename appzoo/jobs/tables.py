"""From table files to encoded rows, with every row accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.base import App
from easytransfer.config.job import DataConfig, JobConfig
from easytransfer.data.batches import prefetch
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.files import expand, real_path
from easytransfer.data.id_tables import encode_ids, is_id_table
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, RowChunk, RowCount, Table, open_table
from easytransfer.data.table_writer import distinct_columns
from easytransfer.errors import ConfigError, did_you_mean
from easytransfer.run.environment import input_records
from easytransfer.run.log import say, warn

# Rows decoded and tokenized at a time: large enough for the tokenizer's threads, small enough to stay in cache.
CHUNK_ROWS = 8192


@dataclass
class EncodedRows:
    """A whole table in memory, ready for batching."""

    spec: str
    encoded: EncodedTable
    count: RowCount
    reasons: Counter[str]

    def summary(self) -> dict[str, object]:
        """Returns the row account for reports."""
        return {
            "table": self.spec,
            "read": self.count.read,
            "accepted": self.count.accepted,
            "rejected": self.count.rejected,
            "reasons": dict(self.reasons),
        }


def open_input(app: App, spec: str, needed: list[str], bad_rows: BadRows) -> Table:
    """Opens a table with the configured schema; a column that is needed but missing is an error."""
    data = app.config.data
    schema = parse_schema(data.input_schema) if data.input_schema else None
    if is_id_table(schema or open_table(spec, schema=None, data=data).schema):
        return open_table(spec, schema=schema, data=data, bad_rows=bad_rows, needed=needed)
    table = open_table(spec, schema=schema, data=data, bad_rows=bad_rows, needed=needed, texts=app.text_columns())
    if schema is None and needed:
        table.narrow(needed)
    table.spread = app.spread
    return table


def names(spec: str | None) -> list[str]:
    """Returns the names of a comma list."""
    return [name.strip() for name in (spec or "").split(",") if name.strip()]


def chosen_columns(output_schema: str | None, available: Sequence[str], aliases: Iterable[str] = ()) -> list[str]:
    """Returns the columns `outputSchema` asks for, all when it is not given; `aliases` are suggested for typing errors.

    Raises:
        ConfigError: One of them is not available, or named twice.
    """
    if output_schema is None:
        return list(available)
    for name in names(output_schema):
        if name not in available:
            raise ConfigError(
                "outputSchema names a column there is none of",
                received=name,
                accepted=available,
                fix=did_you_mean(name, [*available, *aliases]),
            )
    return distinct_columns(names(output_schema))


def output_form(data: DataConfig, output: str) -> str | None:
    """Returns `text` for a `.csv` output of a job whose `.csv` input is the original's TAB-separated form."""
    original = data.input_schema is not None and data.header == "none" and data.delimiter == "\t"
    return "text" if original and output.endswith((".csv", ".csv.gz")) else None


def quarantine_path(output: str) -> Path:
    """Returns where bad rows of a job go under `badRows=quarantine`: beside its output."""
    return Path(f"{output}.bad")


def input_columns(app: App, spec: str, with_labels: bool) -> list[str]:
    """Returns the columns of a table that the application reads: texts, or token ids where the table holds these."""
    data = app.config.data
    schema = parse_schema(data.input_schema) if data.input_schema else open_input(app, spec, [], BadRows("skip")).schema
    if is_id_table(schema):
        return [*(app.label_columns if with_labels else ())]
    return app.input_columns() + (app.label_inputs() if with_labels else [])


def encoder(app: App, table: Table, with_labels: bool) -> Callable[[RowChunk], EncodedTable]:
    """Returns what encodes a chunk: the application, or nothing but checks where the table holds token ids."""
    if not is_id_table(table.schema):
        return lambda chunk: app.encode(chunk, with_labels)
    labels = app.label_columns if with_labels else ()
    vocabulary = getattr(getattr(app, "encoder", None), "config", None)
    vocab_size = getattr(vocabulary, "vocab_size", None)

    def encode(chunk: RowChunk) -> EncodedTable:
        if app.labels and "label_id" in labels and not table.schema["label_id"].is_list:
            _check_label_ids(chunk, len(app.labels))
        encoded = encode_ids(chunk, table.schema, labels, vocab_size)
        label = encoded.columns.get("label_id")
        # A number to predict, or several labels at once, is a float whatever the table says.
        if isinstance(label, np.ndarray) and (label.ndim > 1 or not app.labels):
            encoded.columns["label_id"] = label.astype(np.float32)
        return encoded

    return encode


def _check_label_ids(chunk: RowChunk, count: int) -> None:
    for row, label in enumerate(chunk.columns["label_id"]):
        if chunk.accepted[row] and not 0 <= label < count:
            chunk.reject(row, "label_id", f"unknown label: id {label}; known: 0 to {count - 1}")


def encoded_chunks(
    app: App, table: Table, with_labels: bool, size: int = CHUNK_ROWS
) -> Iterator[tuple[RowChunk, EncodedTable]]:
    """Yields each chunk's accepted rows beside their encoding; reading and tokenizing run ahead in a thread."""
    rows = encoder(app, table, with_labels)

    def encode() -> Iterator[tuple[RowChunk, EncodedTable]]:
        for chunk in table.chunks(size=size):
            encoded = rows(chunk)
            yield chunk.compact(), encoded

    return prefetch(encode(), depth=2)


def job_bad_rows(data: DataConfig, path: Path | None) -> BadRows:
    """Returns the bad-row policy of a job that reads a whole table.

    Args:
        data: Policy and limit.
        path: Where bad rows are copied to under `quarantine`, in place of those an earlier start copied; None = they
            are only counted, because nothing or another worker writes.
    """
    if path is not None:
        path.unlink(missing_ok=True)
    policy = "skip" if path is None and data.bad_rows == "quarantine" else data.bad_rows
    return BadRows(policy, data.max_bad_rows, path)


def load_rows(
    app: App, spec: str, with_labels: bool, bad_rows: BadRows | None = None, limit: int | None = None
) -> EncodedRows:
    """Reads and encodes a table.

    Args:
        app: Prepared application.
        spec: File, glob, folder or comma list.
        with_labels: Whether the label column is read.
        bad_rows: Policy and counts; stops at the first bad row when None.
        limit: Read about this many rows only, for `dryRun`.

    Raises:
        DataError: No row is left.
    """
    bad_rows = bad_rows or BadRows("fail")
    table = open_input(app, spec, input_columns(app, spec, with_labels), bad_rows)
    parts = []
    for _, encoded in encoded_chunks(app, table, with_labels, size=min(CHUNK_ROWS, limit or CHUNK_ROWS)):
        parts.append(encoded)
        if limit and sum(map(len, parts)) >= limit:
            break
    if not sum(map(len, parts)):
        raise table.count.nothing_usable(spec, bad_rows.summary())
    return EncodedRows(spec, EncodedTable.concat(parts), table.count, bad_rows.reasons)


def column_cells(app: App, spec: str, column: str) -> Iterator[Any]:
    """Yields the cells of one column of a table, for labels or a vocabulary made from it."""
    # Bad rows that are left out are counted when the table is encoded, not here.
    policy = "fail" if app.config.data.bad_rows == "fail" else "skip"
    table = open_input(app, spec, [column], BadRows(policy))
    for chunk in table.chunks(size=CHUNK_ROWS):
        yield from chunk.compact().columns[column]
    if not table.count.accepted:
        raise table.count.nothing_usable(spec, table.bad_rows.summary())


def say_labels(app: App) -> None:
    """Says which classes there are, and how many rows each has where they were taken from the table."""
    labels, column = app.label_map, app.config.data.label_name
    if labels is None:
        return
    say(f"labels: {labels.describe_counts()}")
    if labels.counts[column] == 1:
        warn(f"one row has the class {column!r}, as the label column is called; a header needs --header=names")


def table_records(config: JobConfig) -> list[dict[str, Any]]:
    """Returns a record of every file of the tables of a training, by which it knows them again when it goes on."""
    tables = {"training": config.data.train_table, "evaluation": config.data.eval_table}
    return input_records({name: map(real_path, expand(spec)) for name, spec in tables.items() if spec})
