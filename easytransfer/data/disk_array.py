"""A column that stays in a file: rows are read when they are taken, and none are kept."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np


class DiskArray:
    """A read-only array [rows, ...] in a file of plain values, taken by row like an array of NumPy.

    Rows are read with `pread` and not mapped into memory, so that what was read does not count as memory of the
    process. It may be read in several threads at once.

    Args:
        path: The file.
        dtype: Type of the values, as they are in the file.
        shape: Shape of the whole array.

    Raises:
        ValueError: The file has another size.

    Example:
        >>> np.arange(6, dtype=np.int32).tofile("values.bin")
        >>> DiskArray("values.bin", np.int32, (3, 2))[[2, 0]]
        array([[4, 5], [0, 1]], dtype=int32)
    """

    def __init__(self, path: str | Path, dtype: Any, shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.shape = Path(path), np.dtype(dtype), tuple(shape)
        self.ndim, self.size = len(self.shape), int(np.prod(self.shape))
        self.nbytes = self.size * self.dtype.itemsize
        self._row_bytes = self.nbytes // self.shape[0] if self.shape[0] else 0
        self._file = os.open(self.path, os.O_RDONLY)
        found = os.fstat(self._file).st_size
        if found != self.nbytes:
            raise ValueError(f"{self.path} has {found} bytes, {self.nbytes} were written")

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def head(self, rows: int) -> DiskArray:
        """Returns the first rows as an array on disk."""
        found = copy.copy(self)
        found._file = os.dup(self._file)
        found.shape = (min(rows, len(self)), *self.shape[1:])
        found.size = int(np.prod(found.shape))
        found.nbytes = found.size * self.dtype.itemsize
        return found

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Returns the rows that an integer, a slice, an array of integers or an array of truth values names."""
        if isinstance(key, tuple):
            whole = () if isinstance(key[0], int | np.integer) else (slice(None),)
            return self[key[0]][(*whole, *key[1:])]
        rows = _places(key, len(self)) if isinstance(key, int | np.integer | slice) else np.asarray(key)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        flat = rows.reshape(-1).astype(np.int64)
        if flat.size and not (-len(self) <= int(flat.min()) and int(flat.max()) < len(self)):
            raise IndexError(f"row index out of range for {len(self)} rows")
        return self._read(flat % max(len(self), 1)).reshape((*rows.shape, *self.shape[1:]))[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Reads rows; neighbours in one go."""
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if not len(rows) or not self._row_bytes:
            return out
        begins = np.concatenate([[0], np.flatnonzero(np.diff(rows) != 1) + 1, [len(rows)]])
        view = memoryview(out).cast("B")
        for begin, end in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
            self._fill(view[begin * self._row_bytes : end * self._row_bytes], int(rows[begin]) * self._row_bytes)
        return out

    def _fill(self, target: memoryview, position: int) -> None:
        while target:
            count = os.preadv(self._file, [target], position)
            if not count:
                raise OSError(f"{self.path} ends too early: it was changed while it is used")
            target, position = target[count:], position + count


def _places(key: int | np.integer | slice, rows: int) -> np.ndarray:
    """Returns which of `rows` rows a number or a slice names, without an entry for those it does not."""
    found = range(rows)[key]
    return np.asarray(found) if isinstance(found, int) else np.arange(found.start, found.stop, found.step)
