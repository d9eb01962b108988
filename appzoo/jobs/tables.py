"""From table files to encoded rows, with every row accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from appzoo.base import App
from easytransfer.config.job import DataConfig
from easytransfer.data.batches import prefetch
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, RowChunk, RowCount, Table, open_table
from easytransfer.errors import ConfigError, DataError, did_you_mean

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
    return open_table(spec, schema=schema, data=data, bad_rows=bad_rows, needed=needed)


def names(spec: str | None) -> list[str]:
    """Returns the names of a comma list."""
    return [name.strip() for name in (spec or "").split(",") if name.strip()]


def chosen_columns(output_schema: str | None, available: Sequence[str], aliases: Iterable[str] = ()) -> list[str]:
    """Returns the columns `outputSchema` asks for, all when it is not given; `aliases` are suggested for typing errors.

    Raises:
        ConfigError: One of them is not available.
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
    return names(output_schema)


def output_form(data: DataConfig, output: str) -> str | None:
    """Returns `text` for a `.csv` output of a job whose `.csv` input is the original's TAB-separated form."""
    original = data.input_schema is not None and data.header == "none" and data.delimiter == "\t"
    return "text" if original and output.endswith((".csv", ".csv.gz")) else None


def quarantine_path(output: str) -> Path:
    """Returns where bad rows of a job go under `badRows=quarantine`: beside its output."""
    return Path(f"{output}.bad")


def encoded_chunks(
    app: App, table: Table, with_labels: bool, size: int = CHUNK_ROWS
) -> Iterator[tuple[RowChunk, EncodedTable]]:
    """Yields each chunk's accepted rows beside their encoding; reading and tokenizing run ahead in a thread."""

    def encode() -> Iterator[tuple[RowChunk, EncodedTable]]:
        for chunk in table.chunks(size=size):
            encoded = app.encode(chunk, with_labels)
            yield chunk.compact(), encoded

    return prefetch(encode(), depth=2)


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
    needed = app.input_columns() + ([app.config.data.label_name] if with_labels else [])
    table = open_input(app, spec, needed, bad_rows)
    parts = []
    for _, encoded in encoded_chunks(app, table, with_labels, size=min(CHUNK_ROWS, limit or CHUNK_ROWS)):
        parts.append(encoded)
        if limit and sum(map(len, parts)) >= limit:
            break
    if not sum(map(len, parts)):
        raise DataError(
            f"no usable row in {spec}",
            received=f"{table.count.read} rows read, {table.count.rejected} rejected",
            fix="check the path, the delimiter and the schema",
        )
    return EncodedRows(spec, EncodedTable.concat(parts), table.count, bad_rows.reasons)


def count_labels(app: App, spec: str) -> Counter[str]:
    """Counts the label cells of a table, for `labelEnumerateValues=auto`."""
    column = app.config.data.label_name
    # Bad rows are reported when the table is encoded; here they only must not count as labels.
    table = open_input(app, spec, [column], BadRows("skip"))
    counts: Counter[str] = Counter()
    for chunk in table.chunks(size=CHUNK_ROWS):
        counts.update(str(cell).strip() for cell in chunk.compact().columns[column])
    counts.pop("", None)
    return counts
