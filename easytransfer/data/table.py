"""Tables of any supported form as chunks of parsed rows, with exact account of every row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from easytransfer.config.job import DataConfig
from easytransfer.data.bad_rows import BadRows, RowCount
from easytransfer.data.files import expand
from easytransfer.data.formats import choose_format
from easytransfer.data.held_out import TablePart
from easytransfer.data.joined_format import JoinedFormat
from easytransfer.data.row_format import RowFormat
from easytransfer.data.schema import Column, ListForm, Schema

_CELL_END = re.compile(r"[\t,;|]")

__all__ = ["BadRows", "RowChunk", "RowCount", "Table", "open_table"]


class RowChunk:
    """Parsed rows of one file. Positions 0..n-1 of all columns belong together.

    Attributes:
        columns: Parsed cells by column name, each a list of n values.
        accepted: Which positions are still accepted, bool [n]; `len(chunk)` is their number.
        index: Row number in the whole table of each position, counted from 0 over all files, bad rows included.
        file: The file the rows are from.
        lines: Line (or record number) in the file of each position, from 1.
    """

    def __init__(
        self,
        columns: dict[str, list],
        *,
        file: str,
        lines: np.ndarray,
        index: np.ndarray,
        texts: Sequence[str],
        count: RowCount,
        bad_rows: BadRows,
        text_of: np.ndarray | None = None,
    ) -> None:
        self.columns = columns
        self.file = file
        self.lines = lines
        self.index = index
        self.accepted = np.ones(len(index), bool)
        self._texts = texts
        self._text_of = np.arange(len(index)) if text_of is None else text_of
        self._count = count
        self._bad_rows = bad_rows

    def __len__(self) -> int:
        return int(self.accepted.sum())

    def origin(self, i: int) -> str:
        """Returns `file:line` of position `i`."""
        return f"{self.file}:{int(self.lines[i])}"

    def reject(self, i: int, column: str, reason: str) -> None:
        """Turns position `i` into a bad row; a second time changes nothing.

        Args:
            i: Position in the columns.
            column: The column to blame.
            reason: What is wrong, as `kind: detail`; bad rows are counted by kind.

        Raises:
            DataError: Bad rows are not allowed, or there are too many of them.
        """
        if not self.accepted[i]:
            return
        self.accepted[i] = False
        self._count.accepted -= 1
        self._count.rejected += 1
        line, text = int(self.lines[i]), self._texts[int(self._text_of[i])]
        if line == 1 and column and column.lower() in _CELL_END.split(text.lower().strip()):
            # The kind of a reason ends at its first colon.
            joint = "; " if ": " in reason else ": "
            reason += f"{joint}the first line looks like a header, --header=skip leaves it out"
        self._bad_rows.add(self.file, line, column, reason, text)

    def explode(self, source: Sequence[int], columns: dict[str, list]) -> RowChunk:
        """Returns a chunk for rows that hold several examples each; every example counts as a row from now on.

        Args:
            source: The position here of each position there; every accepted row at least once, no rejected one.
            columns: Columns that are added or take the place of these, one value for each position there.
        """
        added = len(source) - len(self)
        self._count.read += added
        self._count.accepted += added
        place = np.asarray(source, np.int64)
        return RowChunk(
            {name: [cells[i] for i in source] for name, cells in self.columns.items() if name not in columns} | columns,
            file=self.file,
            lines=self.lines[place],
            index=self.index[place],
            texts=self._texts,
            count=self._count,
            bad_rows=self._bad_rows,
            text_of=self._text_of[place],
        )

    def compact(self) -> RowChunk:
        """Returns a chunk of the accepted rows only; rows rejected there are accounted for as well."""
        if self.accepted.all():
            return self
        keep = np.flatnonzero(self.accepted)
        return RowChunk(
            {name: [cells[i] for i in keep] for name, cells in self.columns.items()},
            file=self.file,
            lines=self.lines[keep],
            index=self.index[keep],
            texts=self._texts,
            count=self._count,
            bad_rows=self._bad_rows,
            text_of=self._text_of[keep],
        )


class Table:
    """A table that can be read any number of times; each reading reports its bad rows again.

    Attributes:
        schema: The columns that rows have.
        files: The files, in reading order.
        count: Rows read, accepted and rejected by the latest reading; final once it is finished.
        empty_text: Empty cells of text columns met by the latest reading, by column; they are allowed.
        position: Number of the row behind the latest chunk of the latest reading, to resume it there.
        explode: Applied to every chunk, for tables whose rows hold several examples each.
        part: Which rows are read; None for all. The others are in no count.
    """

    def __init__(self, row_format: RowFormat | JoinedFormat, files: Sequence[str], bad_rows: BadRows) -> None:
        self.files = list(files)
        self.bad_rows = bad_rows
        self.count = RowCount()
        self.empty_text: Counter[str] = Counter()
        self.position = 0
        self.explode: Callable[[RowChunk], RowChunk] | None = None
        self.part: TablePart | None = None
        self._format = row_format

    @property
    def schema(self) -> Schema:
        """The columns that rows have."""
        return self._format.schema

    @property
    def columns(self) -> list[Column]:
        """The columns that rows have, in table order."""
        return list(self._format.schema)

    def take_text(self, columns: Mapping[str, ListForm]) -> None:
        """Reads columns as text from now on, see `Column.as_text`.

        Raises:
            ConfigError: One of them holds lists or vectors.
        """
        self._format.take_text(columns)

    def require(self, names: Sequence[str], where: str) -> None:
        """Checks that columns can be read, see `RowFormat.require`.

        Raises:
            ConfigError: One of them cannot.
        """
        self._format.require(names, where)

    def narrow(self, names: Sequence[str]) -> None:
        """Leaves out all columns but these, whose cells then make no bad rows; formats may keep some they need."""
        self._format.narrow(names)

    def row_count(self) -> int:
        """Counts the rows, bad ones included, without parsing them; remembered while files do not change."""
        return sum(self._format.of(file).count(file) for file in self.files)

    def chunks(
        self, size: int = 4096, shard: tuple[int, int] = (0, 1), start: int = 0, stop: int | None = None
    ) -> Iterator[RowChunk]:
        """Reads the table.

        Args:
            size: Rows per chunk, at most; chunks do not span files.
            shard: (i, n) yields the rows whose number is i modulo n; the n shards are disjoint and complete.
            start: Row number to begin at, to resume an interrupted reading.
            stop: Row number to end before; None reads to the end.

        Yields:
            Chunks with at least one parsed row. Bad rows are reported to the table's `BadRows`.

        Raises:
            DataError: A file cannot be read, or a bad row is not allowed.
        """
        rank, shards = shard
        if size < 1 or not 0 <= rank < shards:
            raise ValueError(f"size {size} and shard {shard} are out of range")
        self.count, self.empty_text, self.position = RowCount(), Counter(), start
        count, empty = self.count, self.empty_text
        first = 0
        for file in self.files:
            row_format = self._format.of(file)
            for lines, records in row_format.records(file, size * shards):
                if stop is not None and first >= stop:
                    return
                index = np.arange(first, first + len(records))
                first += len(records)
                asked = (index % shards == rank) & (index >= start) & (index < (stop or first))
                mine = np.flatnonzero(asked if self.part is None else asked & self.part.keeps(index))
                if len(mine) == 0:
                    continue
                self.position = first if stop is None else min(first, stop)
                if len(mine) < len(records):
                    index, lines, records = index[mine], lines[mine], [records[i] for i in mine]
                parsed = row_format.parse(records)
                for name in self._format.missing(file):
                    parsed.columns[name] = [""] * len(records)
                if lines[0] == 1 and (reason := row_format.first_record_problem(records[0])) is not None:
                    parsed.problems[0] = ("", reason)
                count.read += len(records)
                count.accepted += len(records)
                empty.update(parsed.empty_text)
                chunk = RowChunk(
                    parsed.columns,
                    file=file,
                    lines=lines,
                    index=index,
                    texts=parsed.texts,
                    count=count,
                    bad_rows=self.bad_rows,
                )
                for i in sorted(parsed.problems):
                    chunk.reject(i, *parsed.problems[i])
                if len(chunk) and self.explode is not None:
                    chunk = self.explode(chunk.compact())
                if len(chunk):
                    yield chunk.compact()


def open_table(
    spec: str | Sequence[str],
    *,
    schema: Schema | None,
    data: DataConfig | None = None,
    bad_rows: BadRows | None = None,
    needed: Sequence[str] = (),
    texts: Mapping[str, ListForm] = MappingProxyType({}),
    form: str | None = None,
) -> Table:
    """Opens a table: a file, glob, directory, comma list of these, or a `*.list_csv`/`*.list_tfrecord` file.

    The file suffix picks the form: `.csv`, `.json` (SQuAD's), `.jsonl`, `.tfrecord`, `.parquet`, and TAB-separated
    text for all others; text and TFRecord files may be `.gz`. Pictures come as directories (each is a class), as
    `.png`, `.jpg`, `.bmp` and `.webp` files, as `...-idx3-ubyte` with the labels beside them, and as `.npz` arrays.

    A `.csv` file is read as in the original EasyTransfer,
    TAB-separated without header or quoting, when a schema is given and `header` is `none` (or `skip`) and `delimiter`
    is TAB; otherwise it has commas, quotes and a header.

    Args:
        spec: Where the table is.
        schema: Declared columns; None takes them from the file, which headerless text cannot give. Where `data` reads
            files in ways of their own, they have schemas of their own.
        data: Delimiter, header and escape settings; the defaults when None.
        bad_rows: Where bad rows go; None stops at the first one.
        needed: Columns the caller will read.
        texts: Columns whose cells are taken as text, whatever the table or `schema` says, and what becomes of lists in
            them; see `Column.lists`.
        form: Form to use instead of the one the suffix says: `text`, `csv`, `jsonl`, `tfrecord`, `parquet`,
            `squad`, `folder`, `idx` or `npz`.

    Raises:
        ConfigError: Columns are missing or unknown, or the form cannot be read.
        DataError: No file is found, or it cannot be read.
    """
    data = data or DataConfig()
    files = expand(spec)
    by_file = data.by_file(files)
    row_format = JoinedFormat(by_file) if by_file else choose_format(files, schema=schema, data=data, form=form)
    row_format.take_text(texts)
    row_format.require(needed, where=f"table {spec}" if schema is None else "the input schema")
    return Table(row_format, files, bad_rows or BadRows("fail"))
