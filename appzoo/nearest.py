"""The nearest rows of a table of vectors, exactly: the table streams by; of equal scores the earlier row is first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from easytransfer.data.npy_tables import INDEX, npy_shards
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.data.values import read_number
from easytransfer.errors import ConfigError, DataError

# Queries, and rows of the table, that are compared at a time.
QUERIES, ROWS = 256, 4096
# Digits of a score that count; further ones depend on the order in which a product is summed up.
_DIGITS = 12


class Vectors(NamedTuple):
    """Some rows of a table of vectors.

    Attributes:
        names: What tells the rows, object [rows].
        values: float64 [rows, size].
        places: Where each row is, `file:line`.
    """

    names: np.ndarray
    values: np.ndarray
    places: list[str]

    def directions(self) -> np.ndarray:
        """Returns the vectors scaled to length 1.

        Raises:
            DataError: A vector has no direction.
        """
        lengths = np.linalg.norm(self.values, axis=1)
        wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if len(wrong):
            place, length = self.places[wrong[0]], lengths[wrong[0]]
            raise DataError(f"{place}: the vector has no direction: its length is {length:g}")
        return self.values / lengths[:, None]


# Takes queries [queries, size], rows [rows, size] and how many to find; returns scores [queries, found], the higher the
# nearer, and which row each is of. Of equal scores the earlier row must stand first.
Candidates = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def all_rows(queries: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the dot products with all rows, in their order."""
    scores = np.round(queries @ rows.T, _DIGITS)
    return scores, np.broadcast_to(np.arange(len(rows)), scores.shape)


def by_faiss(queries: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the `count` highest dot products by a flat index of FAISS, in float32.

    Of rows with the same score at the end of the list FAISS decides which are in it.
    """
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.ascontiguousarray(rows, np.float32))
    scores, found = index.search(np.ascontiguousarray(queries, np.float32), min(count, len(rows)))
    order = np.lexsort((found, -scores), axis=1)
    return np.take_along_axis(scores, order, axis=1).astype(np.float64), np.take_along_axis(found, order, axis=1)


class Nearest:
    """The `count` best rows of each query among all that were added.

    Args:
        queries: float64 [queries, size].
        count: How many to keep for each.
        candidates: How scores are computed.

    Attributes:
        scores: float64 [queries, kept], from the highest down; `kept` is `count`, or all rows where these are fewer.
        names: Names of the rows, object [queries, kept].
    """

    def __init__(self, queries: np.ndarray, count: int, candidates: Candidates = all_rows) -> None:
        self._queries, self._count, self._candidates = queries, count, candidates
        self.scores = np.zeros((len(queries), 0))
        self.names = np.zeros((len(queries), 0), object)

    def add(self, vectors: np.ndarray, names: np.ndarray) -> None:
        """Compares the next rows: float64 [rows, size], and their names, object [rows]."""
        kept = min(self._count, self.scores.shape[1] + len(vectors))
        scores, found = np.empty((len(self._queries), kept)), np.empty((len(self._queries), kept), object)
        for first in range(0, len(self._queries), QUERIES):
            some = slice(first, first + QUERIES)
            new, rows = self._candidates(self._queries[some], vectors, self._count)
            both = np.concatenate([self.scores[some], new], axis=1)
            # Stable, and what was kept is from earlier rows: of equal scores the first row wins.
            order = np.argsort(-both, axis=1, kind="stable")[:, :kept]
            known = np.concatenate([self.names[some], names[rows]], axis=1)
            scores[some], found[some] = (np.take_along_axis(values, order, axis=1) for values in (both, known))
        self.scores, self.names = scores, found


def vector_rows(spec: str, vector: str, name: str | None, schema: str | None = None) -> Iterator[Vectors]:
    """Yields the vectors of a table, at most `ROWS` at a time.

    Args:
        spec: A table, or a folder of `.npy` files.
        vector: Column of the vectors.
        name: Column that tells the rows; None takes their numbers from 1.
        schema: Columns of a table that does not name them.

    Raises:
        ConfigError: A column is missing.
        DataError: A cell is no vector, or one of another size than the first; the table is empty.
    """
    size, number = None, 0
    chunks = _of_arrays(spec, vector, name) if os.path.isfile(os.path.join(spec, INDEX)) else None
    for found in chunks or _of_table(spec, vector, name, schema):
        size = size or found.values.shape[1]
        if found.values.shape[1] != size:
            raise DataError(f"{found.places[0]}: {found.values.shape[1]} numbers in place of {size}")
        numbers = np.arange(number + 1, number + 1 + len(found.values)).astype(object)
        number += len(found.values)
        yield found if name is not None else found._replace(names=numbers)
    if not number:
        raise DataError(f"table {spec} is empty: it has no row")


def _of_arrays(spec: str, vector: str, name: str | None) -> Iterator[Vectors]:
    number = 0
    for shard in npy_shards(spec):
        for wanted in (vector, *([name] if name is not None else [])):
            if wanted not in shard:
                raise ConfigError(f"{spec} has no column {wanted!r}", accepted=list(shard))
        values, names = shard[vector], shard[vector if name is None else name]
        if values.ndim != 2:
            raise DataError(f"{spec}: column {vector!r} has arrays of shape {values.shape[1:]} in place of vectors")
        for first in range(0, len(values), ROWS):
            some = values[first : first + ROWS].astype(np.float64)
            places = [f"{spec}:{number + row}" for row in range(1, len(some) + 1)]
            number += len(some)
            yield Vectors(np.array([*names[first : first + ROWS].tolist(), None], object)[:-1], some, places)


def _of_table(spec: str, vector: str, name: str | None, schema: str | None) -> Iterator[Vectors]:
    declared = parse_schema(schema) if schema else None
    needed = [vector, *([name] if name is not None else [])]
    table = open_table(spec, schema=declared, bad_rows=BadRows("fail"), needed=needed)
    table.require(needed, where=f"table {spec}" if declared is None else "the schema")
    for chunk in table.chunks(size=ROWS):
        rows: list[np.ndarray] = []
        for row, cell in enumerate(chunk.columns[vector]):
            try:
                rows.append(_numbers(cell))
            except (ValueError, TypeError) as error:
                raise DataError(f"{chunk.origin(row)}: column {vector!r}: {error}") from None
            if len(rows[-1]) != len(rows[0]):
                raise DataError(f"{chunk.origin(row)}: {len(rows[-1])} numbers in place of {len(rows[0])}")
        if rows:
            names = np.array([*chunk.columns[vector if name is None else name], None], object)[:-1]
            yield Vectors(names, np.stack(rows), [chunk.origin(row) for row in range(len(rows))])


def _numbers(cell: Any) -> np.ndarray:
    """Returns the numbers of a cell: a list or an array, or text with commas between them."""
    values = [read_number(part) for part in cell.split(",")] if isinstance(cell, str) else cell
    return np.asarray(values, np.float64).reshape(-1)


def whole(parts: Sequence[Vectors] | Iterator[Vectors]) -> Vectors:
    """Returns all rows of a table at once."""
    found = list(parts)
    places = [place for part in found for place in part.places]
    return Vectors(
        np.concatenate([part.names for part in found]), np.concatenate([part.values for part in found]), places
    )
