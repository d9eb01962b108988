"""Numbers as they stand in the table: vectors, matrices, or sequences of frames or regions of any length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from easytransfer.app.inputs.base import Encoded, Input
from easytransfer.data.encoded import Ragged
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf

WRONG_SHAPE = "wrong shape"


class ArrayInput(Input):
    """A column of numbers; with an open first axis every row may have another length, and `<name>_mask` marks it.

    A cell is a list of numbers, nested or flat, or an array; flat ones are cut into `shape`.

    Args:
        column: Table column, and name of the array of the model.
        shape: Shape of a row; None in first place for rows of any length.
        dtype: Of the array.
        lengths: Lengths of the sample rows where the first axis is open.

    Example:
        >>> ArrayInput("frames", [None, 4]).specs()["frames"]
        TensorSpec(shape=(None, None, 4), dtype=tf.float32, name=None)
    """

    def __init__(
        self,
        column: str,
        shape: Sequence[int | None],
        dtype: tf.DType = tf.float32,
        lengths: Sequence[int] = (1, 3, 2, 7),
    ) -> None:
        self.column, self.shape, self.dtype, self.lengths = column, tuple(shape), dtype, tuple(lengths)
        self.ragged = bool(self.shape) and self.shape[0] is None
        if None in self.shape[self.ragged :]:
            raise ValueError(f"only the first axis of a row may be open, not shape {list(self.shape)}")
        self.masks = {self.mask: column} if self.ragged else {}

    @property
    def mask(self) -> str:
        """Name of the mask of rows of any length."""
        return f"{self.column}_mask"

    def table_columns(self) -> list[str]:
        """Returns the one column."""
        return [self.column]

    def encode(self, chunk: RowChunk) -> Encoded:
        """Returns the numbers; cells that do not fit the shape are bad rows."""
        inner, kind = self.shape[self.ragged :], self.dtype.as_numpy_dtype
        rows = []
        for row, cell in enumerate(chunk.columns[self.column]):
            try:
                rows.append(np.asarray(cell, kind).reshape([-1 if self.ragged else 1, *inner]))
            except (TypeError, ValueError):
                chunk.reject(row, self.column, f"{WRONG_SHAPE}: {_shown(cell)} are not numbers {self._wanted()}")
                rows.append(np.zeros([1, *inner], kind))
        if not self.ragged:
            return Encoded({self.column: np.concatenate(rows)})
        lengths = np.array([len(row) for row in rows])
        for row in np.flatnonzero(lengths == 0):
            chunk.reject(int(row), self.column, f"{WRONG_SHAPE}: the row is empty")
        return Encoded({self.column: Ragged(np.concatenate(rows), np.concatenate([[0], np.cumsum(lengths)]))})

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the array, and its mask."""
        specs = {self.column: tf.TensorSpec([None, *self.shape], self.dtype)}
        return specs | {name: tf.TensorSpec([None, None], tf.int32) for name in self.masks}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns random rows, of several lengths where they may differ."""
        random, rows = np.random.default_rng(0), len(self.lengths)
        shape = [rows, *(max(self.lengths) if size is None else size for size in self.shape)]
        values = random.normal(size=shape) if self.dtype.is_floating else random.integers(0, 2, shape)
        found = {self.column: values.astype(self.dtype.as_numpy_dtype)}
        if self.ragged:
            real = np.arange(shape[1]) < np.array(self.lengths)[:, None]
            found[self.column][~real] = 0
            found[self.mask] = real.astype(np.int32)
        return found

    def _wanted(self) -> str:
        return "of shape " + " x ".join("any" if size is None else str(size) for size in self.shape)


def _shown(cell: Any) -> str:
    if isinstance(cell, list | tuple | np.ndarray):
        return f"{len(cell)} values"
    return repr(cell)[:40]
