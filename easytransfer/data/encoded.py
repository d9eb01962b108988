"""Encoded rows in memory: ragged integer columns that become padded batches in a few NumPy calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np

# How Python decodes what is no valid UTF-8 because of a lone half of a surrogate pair.
_HALVES = "surrogatepass"
# Of JSON, without spaces.
_TIGHT = (",", ":")


@dataclass
class Ragged:
    """A column whose rows differ in length; row i is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: All rows end to end, [total, ...].
        offsets: Where each row starts, int64 [rows + 1]; the last entry is `total`.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[Any] | np.ndarray], dtype: Any = np.int32) -> Ragged:
        """Builds the column from one sequence per row."""
        rows = list(rows)
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=offsets[1:])
        parts = [np.asarray(row, dtype) for row in rows if len(row)]
        return cls(np.concatenate(parts) if parts else np.zeros(0, dtype), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        row = range(len(self))[row]
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Length of every row, int64 [rows]."""
        return np.diff(self.offsets)

    def take(self, indices: Any) -> Ragged:
        """Returns the rows at `indices` [n], in that order, as a column of its own."""
        indices = np.asarray(indices, np.int64)
        starts, lengths = self._spans(indices)
        offsets = np.zeros(len(indices) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        # Rows that lie end to end are copied as one piece.
        ends = starts + lengths
        apart = starts[1:] != ends[:-1]
        begins, stops = np.append(starts[:1], starts[1:][apart]), np.append(ends[:-1][apart], ends[-1:])
        pieces = [self.values[begin:stop] for begin, stop in zip(begins.tolist(), stops.tolist(), strict=True)]
        return type(self)(np.concatenate([self.values[:0], *pieces]), offsets)

    def padded(self, indices: Any, width: int, pad: float = 0) -> np.ndarray:
        """Returns rows `indices` [n] as one array [n, width, ...], filled with `pad` behind each row's end.

        Raises:
            ValueError: A row is longer than `width`.
        """
        return self._padded(*self._spans(np.asarray(indices, np.int64)), width, pad)

    def _padded(self, starts: np.ndarray, lengths: np.ndarray, width: int, pad: float) -> np.ndarray:
        if lengths.size and int(lengths.max()) > width:
            raise ValueError(f"a row of length {int(lengths.max())} does not fit into width {width}")
        out = np.full((len(starts), width, *self.values.shape[1:]), pad, self.values.dtype)
        # Where the rows hold values: both sides of the assignment below go through these places row by row.
        inside = np.arange(width) < lengths[:, None]
        out[inside] = self.values[(starts[:, None] + np.arange(width))[inside]]
        return out

    def _spans(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if indices.size and not (-len(self) <= int(indices.min()) and int(indices.max()) < len(self)):
            raise IndexError(f"row index out of range for {len(self)} rows")
        # Negative positions count from the end, as in NumPy: for -1, offsets[-1 + 1] would be the start of the column.
        indices = indices % max(len(self), 1)
        starts, ends = self.offsets[np.stack([indices, indices + 1], axis=1)].T
        return starts, ends - starts


class HostColumn(Ragged):
    """A column of texts, numbers, or lists and dicts of them, which stays on the host: the model never sees it.

    Each value is kept as JSON in UTF-8, in memory as on disk, so that a table of any size may have such columns and
    its values do not depend on where it is. Tuples come back as lists. A batch has the values as dtype object [rows].

    Attributes:
        values: JSON of all values end to end, uint8 [total].
        offsets: Where each begins, int64 [rows + 1].

    Example:
        >>> HostColumn.of(["a text", (3, 0)])[1]
        [3, 0]
    """

    @classmethod
    def of(cls, values: Iterable[Any]) -> HostColumn:
        """Builds the column from one value per row.

        Raises:
            TypeError: JSON has no such value, as for arrays.
            ValueError: A number is NaN or infinite.
        """
        # Half of a surrogate pair has no UTF-8, and a table may have one.
        rows = [
            json.dumps(value, ensure_ascii=False, allow_nan=False, separators=_TIGHT).encode("utf-8", _HALVES)
            for value in values
        ]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(rows), np.uint8), offsets)

    def __getitem__(self, row: int) -> Any:
        return _value(super().__getitem__(row).tobytes())

    def objects(self, indices: Any) -> np.ndarray:
        """Returns the values of the rows at `indices` [n], in that order, dtype object [n]."""
        chosen = self.take(indices)
        raw, found = chosen.values.tobytes(), np.empty(len(chosen), object)
        for place, (begin, end) in enumerate(pairwise(chosen.offsets.tolist())):
            found[place] = _value(raw[begin:end])
        return found


def _value(raw: bytes) -> Any:
    return json.loads(raw.decode("utf-8", _HALVES))


class EncodedTable:
    """Columns of encoded examples: one per accepted row of a table, or several where a long row is cut into windows.

    Args:
        columns: `Ragged` columns, or arrays whose first axis is the example. A `HostColumn` stays on the host.
        masks: Name of a mask that `batch` adds -> `Ragged` column it marks the real positions of.
        pad_values: Value behind the end of the rows of a `Ragged` column, 0 where not given.
        row_of: The row each example belongs to, int [examples], not decreasing; one example per row when None.

    Attributes:
        row_count: Number of rows.

    Raises:
        ValueError: Columns differ in examples, `row_of` does not fit, or a mask names no `Ragged` column.
    """

    def __init__(
        self,
        columns: Mapping[str, Ragged | np.ndarray],
        masks: Mapping[str, str] | None = None,
        pad_values: Mapping[str, float] | None = None,
        row_of: np.ndarray | None = None,
    ) -> None:
        self.columns = dict(columns)
        self.masks = dict(masks or {})
        self.pad_values = dict(pad_values or {})
        sizes = {name: len(column) for name, column in self.columns.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"columns differ in number of rows: {sizes}")
        for mask, source in self.masks.items():
            if not isinstance(self.columns.get(source), Ragged):
                raise ValueError(f"mask {mask!r} needs a ragged column {source!r}")
        self._examples = next(iter(sizes.values()), 0)
        self.row_count, self._row_of = self._examples, None if row_of is None else np.asarray(row_of, np.int64)
        if self._row_of is None:
            return
        # 0 where a row goes on, 1 where the next one begins; any other step would leave out a row or go back.
        steps = np.diff(self._row_of, prepend=-1)
        if len(self._row_of) != self._examples or (steps < 0).any() or (steps > 1).any():
            raise ValueError("row_of must name the row of every example, in order and none left out")
        self.row_count = int(self._row_of[-1]) + 1 if self._examples else 0

    def __len__(self) -> int:
        return self._examples

    @property
    def row_of(self) -> np.ndarray:
        """The row each example belongs to, int64 [examples]."""
        return np.arange(self._examples) if self._row_of is None else self._row_of

    @property
    def lengths(self) -> np.ndarray:
        """Real positions per row, summed over the columns that have a mask; ones without masks; int64 [rows]."""
        sources = dict.fromkeys(self.masks.values())
        if not sources:
            return np.ones(len(self), np.int64)
        return reduce(np.add, (self.columns[name].lengths for name in sources))

    @property
    def row_lengths(self) -> np.ndarray:
        """Of every example the largest of `lengths` in its row, so that sorting by them keeps rows together; int64."""
        lengths = self.lengths
        if self._row_of is None or not len(self):
            return lengths
        return np.maximum.reduceat(lengths, np.flatnonzero(np.diff(self._row_of, prepend=-1)))[self._row_of]

    def take(self, indices: Any) -> EncodedTable:
        """Returns the examples at `indices` [n], in that order, each as a row of its own."""
        indices = np.asarray(indices, np.int64)
        columns = {
            name: column.take(indices) if isinstance(column, Ragged) else column[indices]
            for name, column in self.columns.items()
        }
        return EncodedTable(columns, self.masks, self.pad_values)

    def head(self, rows: int) -> EncodedTable:
        """Returns the examples of the first `rows` rows, this table where it has no more; values are not copied."""
        if self.row_count <= rows:
            return self
        count = int(np.searchsorted(self.row_of, rows))
        columns = {name: _first(column, count) for name, column in self.columns.items()}
        row_of = None if self._row_of is None else self._row_of[:count]
        return EncodedTable(columns, self.masks, self.pad_values, row_of)

    @classmethod
    def concat(cls, tables: Iterable[EncodedTable]) -> EncodedTable:
        """Joins tables with the same columns, in order.

        Raises:
            ValueError: No table is given, or their columns differ.
        """
        tables = list(tables)
        if not tables:
            raise ValueError("nothing to join")
        first = tables[0]
        if any(table.columns.keys() != first.columns.keys() for table in tables):
            raise ValueError("tables to join have different columns")
        columns = {name: _join([table.columns[name] for table in tables]) for name in first.columns}
        if all(table._row_of is None for table in tables):
            return cls(columns, first.masks, first.pad_values)
        starts = np.cumsum([0] + [table.row_count for table in tables])
        row_of = np.concatenate([table.row_of + start for table, start in zip(tables, starts, strict=False)])
        return cls(columns, first.masks, first.pad_values, row_of)

    def batch(
        self, indices: Any, *, pad_multiple: int = 8, size: int | None = None, width_of: Any = None
    ) -> dict[str, np.ndarray]:
        """Gathers rows into arrays the model takes.

        Args:
            indices: Rows of the batch, [n].
            pad_multiple: `Ragged` columns are padded to the batch's longest row, rounded up to a multiple of this.
            size: Rows of the result; missing ones have weight 0 and repeat the first of `indices`, or of `width_of`
                or the table when there is none.
            width_of: Rows that decide the padded width instead of `indices`: the whole global batch, so that the
                slices of all workers have one shape.

        Returns:
            Every column [size, ...] or [size, width, ...], the values of the host as dtype object [size], the masks as
            int32 [size, width], and `example_weight` float32 [size], 1 for real rows.

        Raises:
            ValueError: `size` is below the number of rows, or filling is asked of an empty table.
        """
        indices = np.asarray(indices, np.int64)
        size = len(indices) if size is None else size
        if size < len(indices) or (size and not len(self)):
            raise ValueError(f"cannot make {size} rows of {len(indices)} indices into a table of {len(self)} rows")
        weight = np.zeros(size, np.float32)
        weight[: len(indices)] = 1.0
        width_rows = np.asarray(() if width_of is None else width_of, np.int64)
        fill = next((rows[0] for rows in (indices, width_rows) if len(rows)), 0)
        indices = np.concatenate([indices, np.full(size - len(indices), fill, np.int64)])
        # The rows that fill the batch are padded like any other, so their lengths count, too.
        width_rows = np.concatenate([indices, width_rows])
        result: dict[str, np.ndarray] = {}
        filled: dict[str, np.ndarray] = {}
        for name, column in self.columns.items():
            if isinstance(column, HostColumn):
                result[name] = column.objects(indices)
            elif isinstance(column, Ragged):
                starts, lengths = column._spans(width_rows)
                width = _rounded_width(lengths, pad_multiple)
                result[name] = column._padded(starts[:size], lengths[:size], width, self.pad_values.get(name, 0))
                filled[name] = np.arange(width) < lengths[:size, None]
            else:
                result[name] = column[indices]
        for mask, source in self.masks.items():
            result[mask] = filled[source].astype(np.int32)
        result["example_weight"] = weight
        return result


def device_arrays(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of a batch that can become tensors: the values of a `HostColumn` stay on the host."""
    return {name: value for name, value in batch.items() if value.dtype != object}


def _rounded_width(lengths: np.ndarray, multiple: int) -> int:
    """Longest of the rows, rounded up; at least one position, since models reduce over it."""
    return -(-int(lengths.max(initial=1)) // multiple) * multiple


def _first(column: Any, count: int) -> Any:
    if isinstance(column, Ragged):
        return type(column)(column.values, column.offsets[: count + 1])
    return column[:count] if isinstance(column, np.ndarray) else column.head(count)


def _join(parts: list[Ragged | np.ndarray]) -> Ragged | np.ndarray:
    if not isinstance(parts[0], Ragged):
        return np.concatenate(parts)
    ends = np.cumsum([0] + [part.offsets[-1] for part in parts])
    offsets = [np.zeros(1, np.int64)] + [part.offsets[1:] + end for part, end in zip(parts, ends, strict=False)]
    return type(parts[0])(np.concatenate([part.values for part in parts]), np.concatenate(offsets))
