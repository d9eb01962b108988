"""Joins tables of one form into one, for outputs that were written piece by piece or by several workers."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from easytransfer.data.binary_formats import import_pyarrow
from easytransfer.data.npy_tables import join_npy
from easytransfer.errors import ResourceError
from easytransfer.run.atomic import atomic_path, sync


def join_tables(sources: Sequence[Path], target: Path, form: str, columns: Sequence[str]) -> None:
    """Writes the rows of `sources`, in order, as one table that replaces `target` when it is complete.

    Args:
        sources: At least one table, none of them compressed.
        target: The table; compressed when its name ends in `.gz`.
        form: Form of all of them: `text`, `csv`, `jsonl`, `tfrecord`, `parquet`, or `npy` (see `npy_tables`).
        columns: Their columns.

    Raises:
        ResourceError: The disk is full or the file cannot be written.
    """
    try:
        if form == "npy":
            join_npy(sources, target, columns)
        elif form == "parquet":
            _join_parquet(sources, target)
        elif len(sources) == 1 and not _compressed(target):
            os.replace(sources[0], target)
            sync(target.parent)
        else:
            _join_bytes(sources, target, _header(columns) if form == "csv" else b"")
    except OSError as error:
        fix = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        raise ResourceError(f"cannot write {target}: {error.strerror or error}", fix=fix) from error


def _compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _header(columns: Sequence[str]) -> bytes:
    """Returns the first line of a CSV table."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(columns)
    return line.getvalue().encode("utf-8")


def _join_bytes(sources: Sequence[Path], target: Path, header: bytes) -> None:
    """Joins lines or records; `header` stays at the beginning of the first table only."""
    with atomic_path(target) as temporary, open(temporary, "wb") as raw:
        # Without name and time in it, equal tables give equal files.
        packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if _compressed(target) else None
        out: IO[bytes] = raw if packed is None else packed  # type: ignore[assignment]
        for number, source in enumerate(sources):
            with open(source, "rb") as piece:
                piece.seek(len(header) if number else 0)
                shutil.copyfileobj(piece, out, 1 << 20)
        if packed is not None:
            packed.close()


def _join_parquet(sources: Sequence[Path], target: Path) -> None:
    _, parquet = import_pyarrow()
    # The first table with rows decides the types.
    filled = [source for source in sources if parquet.read_metadata(source).num_rows] or [sources[0]]
    schema = parquet.read_schema(filled[0])
    with atomic_path(target) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for source in filled:
            writer.write_table(parquet.read_table(source).cast(schema))
