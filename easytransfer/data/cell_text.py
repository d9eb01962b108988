"""Values to the text of a cell, a whole column at once where its type allows."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from easytransfer.data.bad_rows import ESCAPES

_UNSAFE = re.compile(r"[\t\n\r\0]+")
_NUL = re.compile("\0+")


class TextCells:
    """Formats columns for text tables.

    Args:
        float_format: `%` format of floats; None = the shortest text that reads back as the same number.
        escape: Escape what a TSV cell cannot hold, instead of replacing it by a space.
        quoted: The table quotes its cells, so only NUL has to go.
    """

    def __init__(self, float_format: str | None, escape: bool, quoted: bool = False) -> None:
        self.float_format = float_format
        self.escape = escape
        self.quoted = quoted
        self.replaced = 0

    def column(self, values: Sequence[Any] | np.ndarray) -> list[str]:
        """Returns the text of every cell: vectors with `,` between values, matrices with `;` between rows."""
        if isinstance(values, np.ndarray) and values.dtype.kind in "iufb" and values.ndim <= 3:
            return self._array(values)
        kinds = set(map(type, values))
        if kinds == {str}:
            return self._texts(list(values))
        if kinds == {int}:
            return list(map(str, values))
        if kinds == {float}:
            return self._array(np.asarray(values))
        return [self._cell(value) for value in values]

    def _array(self, values: np.ndarray) -> list[str]:
        texts = self._numbers(values)
        if values.ndim == 1:
            return texts
        if values.ndim == 2:
            return [",".join(row) for row in texts]
        return [";".join(map(",".join, matrix)) for matrix in texts]

    def _numbers(self, values: np.ndarray) -> Any:
        """Returns the texts of an array as nested lists."""
        if values.dtype.kind == "b":
            return np.where(values, "true", "false").tolist()
        if values.dtype.kind == "f" and self.float_format is not None:
            flat = [self.float_format % number for number in values.reshape(-1).tolist()]
            return np.array(flat, object).reshape(values.shape).tolist()
        return values.astype(str).tolist()

    def _texts(self, cells: list[str]) -> list[str]:
        joined = "".join(cells)
        if self.escape:
            return [cell.replace("\0", " ").translate(ESCAPES) for cell in cells]
        unsafe = _NUL if self.quoted else _UNSAFE
        if not unsafe.search(joined):
            return cells
        self.replaced += sum(1 for cell in cells if unsafe.search(cell))
        return [unsafe.sub(" ", cell) for cell in cells]

    def _cell(self, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str):
            return self._texts([value])[0]
        if isinstance(value, (list, tuple)):
            nested = bool(value) and isinstance(value[0], (list, tuple, np.ndarray))
            return (";" if nested else ",").join(self.column(value))
        array = np.asarray(value)
        if array.dtype.kind in "iufb" and array.ndim <= 2:
            return self._array(array[None])[0]
        if array.ndim:
            return self._cell(array.tolist())
        return self._texts([str(value)])[0]


def plain_value(value: Any) -> Any:
    """Returns a value as JSON has it; a 32-bit float keeps its short form, NaN and infinity become None."""
    if isinstance(value, (np.ndarray, list, tuple)):
        return [plain_value(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.floating):
        value = float(str(value))
    elif isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
