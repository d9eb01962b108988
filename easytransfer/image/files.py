"""Cells of picture columns to the bytes of files, several at a time, and back."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from easytransfer.config.paths import expand_home

# The kinds of bad cells; a detail follows after a colon.
UNREADABLE = "cannot read the image file"
BAD_DATA_TEXT = "bad data: text"
TOO_LARGE = "image too large"
# An encoded picture of more bytes is not read: at 8 bytes a pixel it would be beyond any useful `max_pixels`.
MOST_BYTES = 1 << 28
_THREADS = 8

Result = TypeVar("Result")


def load_each(cells: Sequence[Any], load: Callable[[Any], Result]) -> list[Result | str]:
    """Returns what `load` makes of every cell, or the reason of the ValueError it raises; files in several threads."""

    def loaded(cell: Any) -> Result | str:
        try:
            return load(cell)
        except ValueError as error:
            return str(error)

    if all(isinstance(cell, np.ndarray) for cell in cells):
        return [loaded(cell) for cell in cells]
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "decode") as threads:
        return list(threads.map(loaded, cells, chunksize=16))


def decode_cell(cell: str | bytes, folder: str, decode: Callable[[bytes], Result]) -> Result:
    """Returns what `decode` makes of the bytes of a cell.

    Args:
        cell: Encoded bytes, `data:` text, or a path.
        folder: What relative paths are relative to.
        decode: Raises ValueError with `kind: detail` where it cannot.

    Raises:
        ValueError: There are no bytes, or they cannot be decoded; the message is the reason shown to the user, with the
            file where there is one.
    """
    if isinstance(cell, bytes):
        if not cell.startswith(b"data:"):
            return decode(cell)
        # TFRecord files have text as bytes.
        cell = cell.decode("ascii", "backslashreplace")
    if cell.startswith("data:"):
        return decode(_of_data_text(cell))
    try:
        path = os.path.join(folder, expand_home(cell))
    except ValueError as error:
        raise ValueError(f"{UNREADABLE}: {error}") from error
    data = _read(path)
    try:
        return decode(data)
    except ValueError as error:
        kind, _, detail = str(error).partition(": ")
        raise ValueError(f"{kind}: {path}: {detail}" if detail else f"{kind}: {path}") from error


def _read(path: str) -> bytes:
    try:
        if os.path.getsize(path) <= MOST_BYTES:
            with open(path, "rb") as file:
                return file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{UNREADABLE}: {path}: {reason}") from error
    raise ValueError(f"{TOO_LARGE}: {path} has more than {MOST_BYTES} bytes")


def _of_data_text(text: str) -> bytes:
    head, _, body = text.partition(",")
    if not head.endswith(";base64"):
        raise ValueError(f"{BAD_DATA_TEXT}: it begins {text[:30]!r}, data:image/png;base64,... is read")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise ValueError(f"{BAD_DATA_TEXT}: {error}") from None


def data_text(encoded: bytes, kind: str = "image/png") -> str:
    """Returns the `data:` text of a file, which is a cell of a picture column in every form of table."""
    return f"data:{kind};base64,{base64.b64encode(encoded).decode('ascii')}"
