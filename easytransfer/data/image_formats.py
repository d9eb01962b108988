"""Tables of pictures that are no text: directories by class, picture files, idx files and npz arrays."""

from __future__ import annotations

import math
import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from easytransfer.data.files import is_bomb, open_binary, real_path
from easytransfer.data.lines import READ_BLOCK
from easytransfer.data.picture_folders import files_below
from easytransfer.data.row_format import LazyTexts, Parsed, RowFormat, parse_mappings
from easytransfer.data.schema import Column, Schema
from easytransfer.errors import DataError

IMAGE, LABEL = "image", "label"
_IDX_NAME = re.compile(r"[-.]idx\d-ubyte(\.gz)?$")
_IDX_UINT8 = 8
# Rows, height, width and channels.
MOST_SIZES = 4
# What arrays of pictures, of labels and of the names of classes are called, the part of a data set left out.
_ARRAY_NAMES = {
    IMAGE: ("image", "images", "x", "data"),
    LABEL: ("label", "labels", "y", "target"),
    "names": ("class_names", "label_names", "target_names"),
}
Row = dict[str, Any]
# What NumPy and the zip module raise for files that are damaged, or made to deceive.
_DAMAGED = (
    *(ValueError, TypeError, LookupError, SyntaxError, OverflowError, RuntimeError, MemoryError, OSError, EOFError),
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
)


class _ImageFormat(RowFormat):
    """Rows with the columns `image` and, where it is known, `label`; a declared schema chooses among them."""

    def _declare(self, own: Sequence[Column], schema: Schema | None, where: str) -> None:
        found = Schema(tuple(own))
        if schema is not None:
            found.require(schema.names, where)
        self.schema = schema or found

    def parse(self, records: Sequence[Row]) -> Parsed:
        """Checks the values against the schema."""
        return parse_mappings(self.schema, records, LazyTexts(records, _show), {})

    def _records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, list[Row]]]:
        rows, first = self._rows(file), 1
        while block := list(islice(rows, size)):
            yield np.arange(first, first + len(block)), block
            first += len(block)

    def _rows(self, file: str) -> Iterator[Row]:
        raise NotImplementedError

    def _count(self, file: str) -> int:
        return sum(1 for _ in self._rows(file))


def _show(row: Row) -> str:
    shape = getattr(row[IMAGE], "shape", None)
    picture = row[IMAGE] if shape is None else f"array {list(shape)}"
    return f"{picture}\t{row[LABEL]}" if LABEL in row else str(picture)


class FolderFormat(_ImageFormat):
    """Directories of pictures, each a class named like the directory, or single pictures named by their directory.

    The column `image` is the path relative to where the directory (or the file) stands. Every file of a directory is a
    row; those that are no pictures become bad rows where they are decoded.

    Args:
        schema: Declared columns, of `image` and `label`; None takes both.
    """

    def __init__(self, schema: Schema | None) -> None:
        self._declare((Column(IMAGE, "image"), Column(LABEL, "str")), schema, "a table of picture files")

    def _rows(self, file: str) -> Iterator[Row]:
        if os.path.isdir(file):
            above, label = os.path.dirname(file), os.path.basename(file)
            for path in files_below(file):
                yield {IMAGE: os.path.relpath(path, above or "."), LABEL: label}
        else:
            yield {IMAGE: os.path.basename(file), LABEL: Path(file).resolve().parent.name}

    def _counting_key(self) -> tuple[Any, ...]:
        # A directory's time says nothing of its subdirectories, so its count is never taken from an earlier reading.
        return (type(self).__name__, id(self))


def is_idx(path: str) -> bool:
    """Returns whether a file is named like the idx files of MNIST, such as `train-images-idx3-ubyte.gz`."""
    return _IDX_NAME.search(os.path.basename(path).lower()) is not None


class IdxFormat(_ImageFormat):
    """Files of uint8 pictures in the idx form of MNIST, labels in the file whose name says `labels` and `idx1`.

    Args:
        files: The files with the pictures.
        schema: Declared columns, of `image` and, where there are labels, `label`; None takes all.
    """

    def __init__(self, files: Sequence[str], schema: Schema | None) -> None:
        columns = [Column(IMAGE, "image")]
        if all(self._labels(file) for file in files):
            columns.append(Column(LABEL, "int"))
        self._declare(
            columns, schema, f"the columns of {files[0]} (labels are read from the `labels-idx1` file beside)"
        )

    @staticmethod
    def _labels(file: str) -> str | None:
        folder, name = os.path.split(file)
        other = os.path.join(folder, name.replace("images", "labels").replace("idx3", "idx1"))
        return other if other != file and os.path.exists(other) else None

    def _rows(self, file: str) -> Iterator[Row]:
        images, beside = read_idx(file), self._labels(file)
        if beside is None:
            yield from ({IMAGE: image} for image in images)
            return
        labels = read_idx(beside)
        if labels.shape != images.shape[:1]:
            raise DataError(f"{file} has {len(images)} pictures and {beside} has {len(labels)} labels")
        yield from ({IMAGE: image, LABEL: int(label)} for image, label in zip(images, labels, strict=True))

    def _count(self, file: str) -> int:
        with open_binary(file) as stream:
            return _idx_shape(file, stream.read(8), 1)[0]


def _idx_shape(file: str, head: bytes, dimensions: int | None = None) -> tuple[int, ...]:
    """Reads the sizes from the beginning of an idx file: two zero bytes, type, number of sizes, big-endian sizes."""
    if len(head) < 8 or head[:2] != b"\0\0" or head[2] != _IDX_UINT8:
        raise DataError(f"{file} is not an idx file of bytes", received=repr(head[:4]))
    count = head[3] if dimensions is None else dimensions
    if len(head) < 4 + 4 * count:
        raise DataError(f"{file} is cut off in its head")
    return struct.unpack(f">{count}I", head[4 : 4 + 4 * count])


def read_idx(file: str) -> np.ndarray:
    """Returns the uint8 array of an idx file, decompressed where its name ends in `.gz`.

    Raises:
        DataError: It is no such file, or shorter or longer than its head says.
    """
    with open_binary(file) as stream:
        head = stream.read(4)
        head += stream.read(4 * head[3]) if len(head) == 4 else b""
        shape = _idx_shape(file, head)
        # One byte more than there should be tells a longer file, and a small gzip file of zeros fills no memory.
        body = _read_at_most(stream, math.prod(shape) + 1)
    try:
        # Also NumPy looks at the sizes: of nothing there cannot be exabytes either.
        if 1 <= len(shape) <= MOST_SIZES:
            return np.frombuffer(body, np.uint8).reshape(shape)
    except ValueError:
        pass
    raise DataError(f"{file} holds {len(body)} bytes where its head says {list(shape)[:MOST_SIZES]}")


def _read_at_most(stream: BinaryIO, size: int) -> bytes:
    """Reads in blocks, because memory for a size that is a lie would be taken at once."""
    blocks = []
    while size and (block := stream.read(min(size, READ_BLOCK))):
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)


class NpzFormat(_ImageFormat):
    """Arrays of pictures [rows, height, width(, channels)] and of labels [rows] in one `.npz` file.

    Arrays are `image` or `x` and `label` or `y`, or one of their usual other names; `file.npz#train` takes those that
    end in `_train`. An array `class_names` gives the names of the classes whose numbers the labels are.

    Args:
        files: Entries of `expand`.
        schema: Declared columns; None takes what there is.

    Raises:
        DataError: A file is damaged or has no pictures.
    """

    def __init__(self, files: Sequence[str], schema: Schema | None) -> None:
        arrays = self._arrays(files[0])
        columns = [Column(IMAGE, "image")]
        if LABEL in arrays:
            text = "names" in arrays or arrays[LABEL].dtype.kind in "US"
            columns.append(Column(LABEL, "str" if text else "int"))
        self._declare(columns, schema, f"the columns of {files[0]}")

    def _arrays(self, file: str) -> dict[str, np.ndarray]:
        path = real_path(file)
        part = file[len(path) + 1 :]
        try:
            if not zipfile.is_zipfile(path):
                raise ValueError("it is no archive")
            with np.load(path, allow_pickle=False) as stored:
                if is_bomb(sum(part.file_size for part in stored.zip.infolist()), os.path.getsize(path)):
                    raise ValueError("it unpacks to hundreds of times its size")
                chosen = {meaning: _find(stored.files, names, part) for meaning, names in _ARRAY_NAMES.items()}
                if chosen[IMAGE] is None:
                    fix = "name a part, as in `file.npz#train`" if not part else None
                    raise DataError(f"{file} has no array of pictures", received=", ".join(stored.files), fix=fix)
                found = {meaning: stored[name] for meaning, name in chosen.items() if name is not None}
        except _DAMAGED as error:
            raise DataError(f"{path} is not an .npz file of plain arrays: {error}") from error
        rows = found[IMAGE].shape[:1]
        if found[IMAGE].ndim < 3 or (LABEL in found and found[LABEL].shape not in (rows, (*rows, 1))):
            shapes = {name: list(array.shape) for name, array in found.items()}
            raise DataError(f"{file}: pictures are [rows, height, width(, channels)], labels [rows]", received=shapes)
        if "names" in found:
            found["names"] = found["names"].reshape(-1)
        return found

    def _rows(self, file: str) -> Iterator[Row]:
        arrays = self._arrays(file)
        if LABEL not in arrays:
            yield from ({IMAGE: image} for image in arrays[IMAGE])
            return
        labels, names = arrays[LABEL].reshape(len(arrays[IMAGE])).tolist(), arrays.get("names")
        if names is not None:
            known = dict(enumerate(map(str, names.tolist())))
            labels = [known.get(label, f"{label} (class_names has {len(known)})") for label in labels]
        yield from ({IMAGE: image, LABEL: label} for image, label in zip(arrays[IMAGE], labels, strict=True))


def _find(stored: Sequence[str], names: Sequence[str], part: str) -> str | None:
    wanted = [f"{name}_{part}" for name in names] if part else list(names)
    if part and names is _ARRAY_NAMES["names"]:
        wanted += names
    return next((name for name in wanted if name in stored), None)
