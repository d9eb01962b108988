"""Logging: results alone go to stdout, everything else to stderr as text or as one JSON object a line."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, TextIO

from easytransfer.run.atomic import plain
from easytransfer.run.secrets import without_secrets

LOGGER = "easytransfer"
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}

# Set by a live progress bar, so that a log line appears above the bar instead of inside it.
_live_print: Callable[[str], None] | None = None


def setup_logging(log_format: Literal["text", "json"] = "text", level: int = logging.INFO) -> None:
    """Sends messages and Python warnings to stderr and lowers the noise of TensorFlow; safe to call again.

    Args:
        log_format: `text` for people, `json` for one JSON object a line.
        level: Lowest level shown.
    """
    handler = _LineHandler()
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    logging.captureWarnings(True)
    for name in (LOGGER, "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)
    # Names only: importing these packages here would cost seconds.
    for name in ("tensorflow", "absl", "h5py", "matplotlib", "fontTools", "PIL"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def say(text: str, **fields: Any) -> None:
    """Tells the user something; `fields` appear as further keys of the JSON form."""
    _logger().info(text, extra={"fields": fields})


def warn(text: str, **fields: Any) -> None:
    """Tells the user about something that is probably not wanted; the job goes on."""
    _logger().warning(text, extra={"fields": fields})


@functools.lru_cache(maxsize=1024)
def say_once(text: str) -> None:
    """Says something like `say`, the first time of a process: tables are opened, counted and read more than once."""
    say(text)


@functools.lru_cache(maxsize=1024)
def warn_once(text: str) -> None:
    """Warns like `warn`, the first time of a process; see `say_once`."""
    warn(text)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lets only warnings and errors through: what the chief of several workers says once is enough."""
    logger = _logger()
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def print_result(value: Any, stream: TextIO | None = None) -> None:
    """Prints one result to stdout: text as it is, anything else as one line of strict JSON."""
    text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    print(text, file=stream or sys.stdout, flush=True)


@contextlib.contextmanager
def results_only_stdout() -> Iterator[TextIO]:
    """Sends what libraries print to stderr and gives the real stdout, for `print_result`."""
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield stdout


@contextlib.contextmanager
def lines_above(live_print: Callable[[str], None]) -> Iterator[None]:
    """Lets a live display print the log lines while the block runs."""
    global _live_print
    previous, _live_print = _live_print, live_print
    try:
        yield
    finally:
        _live_print = previous


def write_line(text: str) -> None:
    """Writes one line to stderr, above a live progress bar if there is one."""
    if _live_print is not None:
        _live_print(text)
    else:
        print(text, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Returns a text whose control characters are spelled out: a cell of a table must not steer the terminal."""
    return text.translate(_CONTROL)


def json_line(event: str, fields: dict[str, Any]) -> str:
    """Returns one log line of the JSON form."""
    line = {"time": round(time.time(), 3), "event": event, **fields}
    return json.dumps(plain(line), ensure_ascii=False, allow_nan=False)


def _logger() -> logging.Logger:
    logger = logging.getLogger(LOGGER)
    if not logger.handlers:
        # Used from Python without set-up: the user still sees messages.
        setup_logging()
    return logger


class _LineHandler(logging.Handler):
    """Looks up stderr at every line, because tests and notebooks replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            write_line(self.format(record))
        except Exception:
            self.handleError(record)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = printable(without_secrets(super().format(record).rstrip()))
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {"level": record.levelname.lower(), "text": without_secrets(super().format(record).rstrip())}
        return json_line("message", {**fields, **getattr(record, "fields", {})})
