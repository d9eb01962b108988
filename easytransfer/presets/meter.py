"""How far a download is: megabytes, pace and time left on stderr."""

from __future__ import annotations

import contextlib
import math
import time
from types import TracebackType

from easytransfer.run.progress import Progress

_MEGABYTE = 10**6
# Lines in a log; a bar on a terminal moves with every piece that arrives.
_LINE_SECONDS = 5.0


class Meter:
    """Shows what has arrived of a download; use it as a context manager.

    Args:
        name: What is downloaded.

    Example:
        >>> with Meter("google-bert-tiny-en") as meter:
        ...     download(url, folder, progress=meter.update)
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stack = contextlib.ExitStack()
        self._progress: Progress | None = None
        self._first = (0, 0.0)

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def update(self, done: int, total: int | None) -> None:
        """Shows that `done` bytes of `total`, or of an unknown number, are here; those of earlier runs count.

        Less than a megabyte is here before anyone could read of it, so nothing is shown.
        """
        if total is not None and total < _MEGABYTE:
            return
        now = time.monotonic()
        if self._progress is None:
            whole = total and math.ceil(total / _MEGABYTE)
            here = done // _MEGABYTE
            progress = Progress(f"fetch {self._name}, MB", whole, done=here, min_interval_s=_LINE_SECONDS)
            self._progress, self._first = self._stack.enter_context(progress), (done, now)
        begin, since = self._first
        pace = (done - begin) / (now - since) / _MEGABYTE if done > begin and now > since else None
        self._progress.update((math.ceil if done == total else math.floor)(done / _MEGABYTE), mb_per_s=pace)
