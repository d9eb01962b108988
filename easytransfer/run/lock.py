"""Who may write a folder: one training at a time, on a disk that has room."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from pathlib import Path
from typing import IO

from easytransfer.errors import ResourceError
from easytransfer.run import log

_LOCK_FILE = ".lock"
_PAUSE_S = 0.1


class FolderLock:
    """An exclusive lock on a folder, released by `close` or by the system however the process ends.

    Args:
        folder: An existing folder.

    Raises:
        ResourceError: Another process holds the lock.
        OSError: The lock file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] = open(folder / _LOCK_FILE, "a+", encoding="utf-8")  # noqa: SIM115 - kept open
        try:
            # More than once, as `is_locked` of another process holds the lock for a moment.
            _flock(self._file, attempts=3)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown process"
            self._file.close()
            raise ResourceError(
                f"another training uses {folder} ({holder})", fix="wait for it or choose another checkpointDir"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                self._file.close()
                raise
            log.warn(f"the file system of {folder} has no locks; make sure that one training at a time uses it")
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        self._file.flush()

    def close(self) -> None:
        """Releases the lock."""
        self._file.close()


def is_locked(folder: Path) -> bool:
    """Returns whether some process holds the lock of a folder."""
    with contextlib.suppress(OSError):
        with open(folder / _LOCK_FILE, encoding="utf-8") as file:
            try:
                _flock(file)
            except BlockingIOError:
                return True
    return False


def check_space(path: str | os.PathLike[str], needed_bytes: int) -> None:
    """Checks that a folder can be made or written at `path` and that the disk has room.

    Raises:
        ResourceError: With the free and the needed space.
    """
    parent = Path(path).absolute()
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise ResourceError(f"{parent} is a file, a folder is needed", fix="choose another checkpointDir")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ResourceError(f"{parent} is not writable", fix="choose another checkpointDir")
    free = shutil.disk_usage(parent).free
    if free < needed_bytes:
        raise ResourceError(
            f"the disk of {parent} has {free / 1e6:,.0f} MB free and about {needed_bytes / 1e6:,.0f} MB are needed",
            fix="free some space, lower keep_checkpoint_max, or choose another checkpointDir",
        )


def _flock(file: IO[str], attempts: int = 1) -> None:
    import fcntl  # absent on Windows, where only reading a run folder is supported

    for left in reversed(range(attempts)):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not left:
                raise
        time.sleep(_PAUSE_S)
