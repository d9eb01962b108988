"""The base of all table writers: written beside the name, renamed when complete."""

from __future__ import annotations

import abc
import errno
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from easytransfer.config.paths import user_path
from easytransfer.errors import ConfigError, ResourceError, did_you_mean
from easytransfer.run.atomic import sync


def check_output(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Checks that a file can be written at `path`, and creates its folder.

    Raises:
        ConfigError: The path is a directory, or exists and `overwrite` is off.
        ResourceError: The folder cannot be created or written.
    """
    path = user_path(path)
    if path.is_dir():
        raise ConfigError(f"output {path} is a directory", fix="name a file in it")
    if path.exists() and not overwrite:
        raise ConfigError(f"output {path} exists", fix="choose another name or allow replacing it with --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot create folder {path.parent}: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ResourceError(f"folder {path.parent} is not writable")
    return path


def distinct_columns(columns: Sequence[str], appended: Sequence[str] = ()) -> list[str]:
    """Returns the columns of an output, those copied from the input last.

    Raises:
        ConfigError: A name stands twice, so that one of the two columns would not be written.
    """
    for where, names in (("outputSchema", columns), ("appendCols", appended)):
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ConfigError(f"{where} names a column twice", received=twice[0], fix="name it once")
    if taken := [name for name in appended if name in columns]:
        raise ConfigError(
            "appendCols names a column that is written already",
            received=taken[0],
            fix="leave it out of appendCols, or rename it in the input table or inputSchema",
        )
    return [*columns, *appended]


class TableWriter(abc.ABC):
    """Writes batches of columns to a file that appears under its name on `close`.

    Used as a context manager, an exception inside leaves no file behind.

    Attributes:
        path: The table.
        columns: Its columns.
        rows: Rows written so far.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = list(columns)
        self.rows = 0
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._open = True
        try:
            self._start()
        except OSError as error:
            raise self._failure(error) from error

    @property
    def replaced(self) -> int:
        """Text cells in which tabs, line breaks or NUL were replaced by spaces."""
        return 0

    def write(self, batch: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
        """Writes rows; columns of `batch` that the table does not have are left out.

        Args:
            batch: Equally long columns by name, each a list or an array whose first axis is the row.

        Raises:
            ConfigError: A column of the table is not in the batch.
            ResourceError: The disk is full or the file cannot be written.
            ValueError: Columns differ in length, or the writer is closed.
        """
        if not self._open:
            raise ValueError(f"writer of {self.path} is closed")
        for name in self.columns:
            if name not in batch:
                raise ConfigError(
                    f"output column {name!r} is not produced",
                    accepted=sorted(batch),
                    fix=did_you_mean(name, batch),
                )
        sizes = {name: len(batch[name]) for name in self.columns}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"columns differ in number of rows: {sizes}")
        rows = next(iter(sizes.values()))
        if not rows:
            return
        try:
            self._write({name: batch[name] for name in self.columns}, rows)
        except OSError as error:
            self.abort()
            raise self._failure(error) from error
        self.rows += rows

    def close(self) -> None:
        """Completes the file and gives it its name.

        Raises:
            ResourceError: The disk is full or the file cannot be written.
        """
        if not self._open:
            return
        try:
            self._finish()
            self._open = False
            sync(self._temporary)
            os.replace(self._temporary, self.path)
            sync(self.path.parent)
        except OSError as error:
            self.abort()
            raise self._failure(error) from error

    def abort(self) -> None:
        """Drops what was written."""
        if self._open:
            self._open = False
            try:
                self._finish()
            except OSError:
                pass  # the file is dropped anyway
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _failure(self, error: OSError) -> ResourceError:
        fix = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        return ResourceError(f"cannot write {self.path}: {error.strerror or error}", fix=fix)

    @abc.abstractmethod
    def _start(self) -> None:
        """Opens the temporary file."""

    @abc.abstractmethod
    def _write(self, batch: dict[str, Any], rows: int) -> None:
        """Writes the columns of the table."""

    @abc.abstractmethod
    def _finish(self) -> None:
        """Writes what is left and closes the temporary file."""
