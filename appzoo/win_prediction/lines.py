"""Lines of text files of games, each within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

# A published game has about 100 kB.
MOST_BYTES = 16 << 20


def bounded_lines(stream: BinaryIO) -> Iterator[str | None]:
    """Yields the lines of a stream without their ends; None for one that is too long or no UTF-8."""
    while data := stream.readline(MOST_BYTES + 1):
        if len(data) > MOST_BYTES:
            while data and not data.endswith(b"\n"):
                data = stream.readline(MOST_BYTES)
            yield None
            continue
        try:
            yield data.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            yield None
