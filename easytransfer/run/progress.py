"""A progress line on stderr: a live bar on a terminal, plain lines in a file, JSON objects for machines."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any, Literal

from easytransfer.run import log

_PLAIN_INTERVAL_S = 0.0
# Order and form of known numbers; others follow with four significant digits.
_FORMS = {
    "rows_per_s": "{:,.0f} rows/s",
    "tokens_per_s": "{:,.0f} tokens/s",
    "loss": "loss {:.4f}",
    "lr": "lr {:.2e}",
    "memory_mb": "{:,.0f} MB",
    "mb_per_s": "{:,.1f} MB/s",
}


class Progress:
    """Shows how far a job is; use it as a context manager.

    Args:
        name: What is going on, such as `train` or `predict`.
        total: Steps or rows until the end; None when unknown.
        done: Steps or rows already done before this process (a resumed run).
        log_format: `text` or `json`.
        min_interval_s: Plain and JSON lines closer together than this are left out, except the last.
        live: Show a bar; default: when stderr is a terminal and the format is text.

    Example:
        >>> with Progress("predict", total=1000) as progress:
        ...     progress.update(500, rows_per_s=120.0)
    """

    def __init__(
        self,
        name: str,
        total: int | None,
        *,
        done: int = 0,
        log_format: Literal["text", "json"] = "text",
        min_interval_s: float = _PLAIN_INTERVAL_S,
        live: bool | None = None,
    ) -> None:
        self.name, self.total, self.done = name, total, done
        self._json = log_format == "json"
        self._min_interval_s = min_interval_s
        self._live = (sys.stderr.isatty() if live is None else live) and not self._json
        self._stack = contextlib.ExitStack()
        self._bar: Any = None
        self._first: tuple[float, int] | None = None
        self._start = (time.monotonic(), done)
        self._last_line = -float("inf")

    def __enter__(self) -> Progress:
        self._start = (time.monotonic(), self.done)
        if self._live:
            self._bar = self._stack.enter_context(_bar())
            self._task = self._bar.add_task(self.name, total=self.total, completed=self.done, status="")
            self._stack.enter_context(
                log.lines_above(
                    lambda text: self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
                )
            )
        return self

    def __exit__(self, *unused: object) -> None:
        self._stack.close()
        self._bar = None

    def enter(self, name: str) -> None:
        """Goes on under another name; the time that is left is estimated from the pace since then."""
        self.name, self._first = name, None
        self._start = (time.monotonic(), self.done)
        if self._bar is not None:
            self._bar.update(self._task, description=name)

    def update(self, done: int, **numbers: float | None) -> None:
        """Shows that `done` of `total` are finished, with some numbers beside it."""
        now = time.monotonic()
        eta = self._seconds_left(now, done)
        self.done = done
        status = "  ".join([*format_numbers(numbers), *([f"ETA {format_seconds(eta)}"] if eta is not None else [])])
        if self._bar is not None:
            self._bar.update(self._task, completed=done, status=status)
        elif done == self.total or now - self._last_line >= self._min_interval_s:
            self._last_line = now
            if self._json:
                fields = {"name": self.name, "done": done, "total": self.total, **numbers, "eta_s": eta}
                log.write_line(log.json_line("progress", fields))
            else:
                log.write_line(f"{self.name} {self._position(done)}  {status}".rstrip())

    def _position(self, done: int) -> str:
        return f"{done}/{self.total} {100 * done / self.total:3.0f}%" if self.total else f"{done}"

    def _seconds_left(self, now: float, done: int) -> float | None:
        """Estimates from the pace since the first report, as work before it includes one-time compilation."""
        since, begin = self._first or self._start
        if self._first is None:
            self._first = (now, done)
        if not self.total or done <= begin:
            return None
        return (now - since) / (done - begin) * max(self.total - done, 0)


def format_numbers(numbers: dict[str, float | None]) -> list[str]:
    """Formats numbers for people: known ones first in a fixed order, then `name value` with four digits."""
    known = [form.format(numbers[name]) for name, form in _FORMS.items() if numbers.get(name) is not None]
    return known + [
        f"{name} {value:.4g}" for name, value in numbers.items() if name not in _FORMS and value is not None
    ]


def format_seconds(seconds: float) -> str:
    """Formats a duration as `h:mm:ss`."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        console=Console(file=sys.stderr),
        transient=True,
    )
