"""From table files to encoded rows, with every row accounted for."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.jobs.text_counts import counted_since
from easytransfer.app.contract import App
from easytransfer.config.job import DataConfig
from easytransfer.data.batches import prefetch
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.files import expand, stamps
from easytransfer.data.held_out import TablePart
from easytransfer.data.id_tables import IDS, SEGMENTS, Limit, encode_ids, is_id_table
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, RowChunk, RowCount, Table, open_table
from easytransfer.data.table_store import Elsewhere, TableStore
from easytransfer.data.table_writer import distinct_columns
from easytransfer.errors import ConfigError, did_you_mean
from easytransfer.run.log import say, warn
from easytransfer.version import VERSION


@dataclass
class EncodedRows:
    """A whole table in memory, ready for batching."""

    spec: str
    encoded: EncodedTable
    count: RowCount
    reasons: Counter[str]
    # Counts of their texts, see `App.text_counts`; empty where there are none.
    text: Counter[str]
    # Which rows of the table these are; None for all.
    part: TablePart | None = None

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
    table.explode = app.explode
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
    limits = _id_limits(app)
    if "label_id" in labels and table.schema["label_id"].type not in ("int", "float"):
        raise ConfigError(
            "label_id of a table of token ids is the number of the label",
            received=str(table.schema["label_id"]),
            accepted="label_id:int:1",
        )

    def encode(chunk: RowChunk) -> EncodedTable:
        if app.labels and "label_id" in labels:
            _check_label_ids(chunk, len(app.labels))
        encoded = encode_ids(chunk, table.schema, labels, limits)
        label = encoded.columns.get("label_id")
        # A number to predict, or several labels at once, is a float whatever the table says.
        if isinstance(label, np.ndarray):
            scored = label.ndim > 1 or not app.labels
            encoded.columns["label_id"] = label.astype(np.float32 if scored else np.int32)
        return encoded

    return encode


def _id_limits(app: App) -> dict[str, Limit]:
    """Returns what the ids of a table must be below: the rows that the model has for them."""
    if hasattr(app, "vocabulary"):
        return {IDS: (len(app.vocabulary), "words")}
    if not hasattr(app, "encoder"):
        return {}
    config = app.encoder.config
    return {IDS: (config.vocab_size, "vocab_size"), SEGMENTS: (config.type_vocab_size, "type_vocab_size")}


def _check_label_ids(chunk: RowChunk, count: int) -> None:
    """Rejects rows whose label is no id of a class; in a list, which has a label for every token, -1 is none."""
    for row, cell in enumerate(chunk.columns["label_id"]):
        if not chunk.accepted[row]:
            continue
        several = isinstance(cell, (list, np.ndarray))
        lowest, values = (-1, cell) if several else (0, [cell])
        wrong = [label for label in values if not lowest <= label < count or label != int(label)]
        # Several labels of a row at once are ones and zeros, or probabilities.
        if wrong and not (several and isinstance(wrong[0], float)):
            chunk.reject(row, "label_id", f"unknown label: id {wrong[0]}; known: 0 to {count - 1}")


def encoded_chunks(
    app: App, table: Table, with_labels: bool, size: int | None = None
) -> Iterator[tuple[RowChunk, EncodedTable]]:
    """Yields each chunk's accepted rows beside their encoding; reading and tokenizing run ahead in a thread."""
    rows = encoder(app, table, with_labels)

    def encode() -> Iterator[tuple[RowChunk, EncodedTable]]:
        for chunk in table.chunks(size=size or app.chunk_rows):
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
    app: App,
    spec: str,
    with_labels: bool,
    bad_rows: BadRows | None = None,
    limit: int | None = None,
    store: TableStore | None = None,
    part: TablePart | None = None,
    watch: Callable[[RowChunk], None] | None = None,
) -> EncodedRows:
    """Reads and encodes a table.

    Args:
        app: Prepared application.
        spec: File, glob, folder or comma list.
        with_labels: Whether the label column is read.
        bad_rows: Policy and counts; stops at the first bad row when None.
        limit: Read about this many rows only, for `dryRun`.
        store: Takes the rows; in memory when None.
        part: Rows that are read; all when None.
        watch: Sees the accepted rows of every chunk.

    Raises:
        DataError: No row is left.
        Elsewhere: Another process writes them to disk.
    """
    bad_rows = bad_rows or BadRows("fail")
    table = open_input(app, spec, input_columns(app, spec, with_labels), bad_rows)
    table.part = part
    store, before, found = store or TableStore(None, {}, 0), app.text_counts.copy(), 0
    try:
        size = min(app.chunk_rows, limit or app.chunk_rows)
        with closing(encoded_chunks(app, table, with_labels, size=size)) as chunks:
            for rows, encoded in chunks:
                store.add(encoded)
                if watch is not None:
                    watch(rows)
                found += len(encoded)
                if limit and found >= limit:
                    break
        if not found:
            raise table.count.nothing_usable(spec, bad_rows.summary())
        text = counted_since(before, app.text_counts)
        notes = {"count": vars(table.count), "reasons": bad_rows.reasons, "text_counts": text}
        return EncodedRows(_named(spec, part), store.finish(notes), table.count, bad_rows.reasons, text, part)
    finally:
        store.close()


def load_stored_rows(
    app: App,
    spec: str,
    with_labels: bool,
    new_bad_rows: Callable[[], BadRows],
    store: TableStore,
    part: TablePart | None = None,
    watch: Callable[[RowChunk], None] | None = None,
) -> EncodedRows:
    """Reads and encodes a table, or takes what an earlier job or another worker of this machine left of it on disk.

    Args:
        app: Prepared application.
        spec: File, glob, folder or comma list.
        with_labels: Whether the label column is read.
        new_bad_rows: Starts the account of bad rows of a reading.
        store: Of this table.
        part: Rows that are read; all when None.
        watch: Sees the accepted rows of every chunk, where they are read here.

    Raises:
        DataError: No row is left.
    """
    found = store.stored()
    while found is None:
        with closing(new_bad_rows()) as bad_rows:
            try:
                return load_rows(app, spec, with_labels, bad_rows, store=store, part=part, watch=watch)
            except Elsewhere:
                found = store.wait()
    notes, text = found.notes, Counter(found.notes["text_counts"])
    app.text_counts.update(text)
    return EncodedRows(
        _named(spec, part), found.table, RowCount(**notes["count"]), Counter(notes["reasons"]), text, part
    )


def _named(spec: str, part: TablePart | None) -> str:
    return spec if part is None else f"{spec} ({part})"


@contextmanager
def evaluation_store(app: App, spec: str) -> Iterator[TableStore]:
    """Gives what takes the rows of a table that is read once.

    Files of a large one are removed at the end unless `data.cache_dir` keeps them; a table that is open stays readable.
    """
    data, limit = app.config.data, int(app.config.data.table_memory_mb * 10**6)
    if data.cache_dir is not None:
        yield TableStore(machine_folder(Path(data.cache_dir)) / "evaluate", table_key(app, spec), limit)
        return
    with tempfile.TemporaryDirectory(prefix="easytransfer-table-") as folder:
        yield TableStore(Path(folder), {}, limit)


def machine_folder(base: Path) -> Path:
    """Returns the folder for tables of this machine: several may share a disk, but not the memory of its files."""
    return base / os.uname().nodename


def table_key(app: App, spec: str, part: TablePart | None = None) -> dict[str, Any]:
    """Returns what the encoded rows of a table depend on: its files, settings, label names, the part that is read."""
    config = app.config
    settings = config.model_dump(mode="json", include={"data", "model"})
    for name in (
        "table_memory_mb",
        "cache_dir",
        "output_table",
        "merge",
        "train_table",
        "eval_table",
        "input_table",
        "slice_columns",
    ):
        settings["data"].pop(name)
    return {
        "version": VERSION,
        "application": config.model_name,
        "start": config.train.init_checkpoint_path,
        "files": stamps(expand(spec)),
        "beside": stamps(file for part in app.inputs for file in part.read_files()),
        "settings": settings,
        "labels": app.labels,
        "part": None if part is None else [str(part), hashlib.sha256(part.held_out.tobytes()).hexdigest()],
        # Rows that are copied aside must be copied for this run.
        "run": config.checkpoint_dir if config.data.bad_rows == "quarantine" else None,
    }


def values_of_column(app: App, spec: str, column: str, part: TablePart | None = None) -> Iterator[Any]:
    """Yields the cells of one column of a table, for labels or a vocabulary made from it.

    Args:
        app: Application whose inputs are known.
        spec: The table.
        column: The column.
        part: Rows that are read; all when None.

    Raises:
        DataError: No row can be read.
    """
    # Bad rows that are left out are counted when the table is encoded, not here.
    policy = "fail" if app.config.data.bad_rows == "fail" else "skip"
    table = open_input(app, spec, [column], BadRows(policy))
    table.part = part
    for chunk in table.chunks(size=app.chunk_rows):
        yield from chunk.compact().columns[column]
    if not table.count.accepted:
        raise table.count.nothing_usable(spec, table.bad_rows.summary())


def say_labels(app: App) -> None:
    """Says which classes there are, and how many rows each has where they were taken from the table."""
    labels, column = getattr(app.target, "labels", None), app.config.data.label_name
    if labels is None:
        return
    say(f"labels: {labels.describe_counts()}")
    if labels.counts[column] == 1:
        warn(f"one row has the class {column!r}, as the label column is called; a header needs --header=names")
