"""Text files as blocks of lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import BinaryIO

import numpy as np

from easytransfer.data.cells import INVALID_UTF8, NUL_CHARACTER
from easytransfer.data.files import open_text
from easytransfer.data.row_format import Problem

READ_BLOCK = 1 << 20


def decode_lines(records: Sequence[bytes]) -> tuple[list[str], dict[int, Problem]]:
    """Decodes lines without their ends; undecodable lines and those with NUL become problems."""
    problems: dict[int, Problem] = {}
    raw = b"".join(records)
    try:
        lines = raw.decode("utf-8").split("\n")
        if raw.endswith(b"\n"):
            lines.pop()
    except UnicodeDecodeError:
        lines = []
        for i, record in enumerate(records):
            try:
                lines.append(record.decode("utf-8").rstrip("\n"))
            except UnicodeDecodeError as error:
                lines.append(record.decode("utf-8", "backslashreplace").rstrip("\n"))
                problems[i] = ("", f"{INVALID_UTF8}: {error.reason} at byte {error.start + 1}")
    if b"\r" in raw:
        lines = [line.removesuffix("\r") for line in lines]
    if b"\0" in raw:
        for i, line in enumerate(lines):
            if "\0" in line:
                problems.setdefault(i, ("", NUL_CHARACTER))
    return lines, problems


def line_blocks(stream: BinaryIO, size: int) -> Iterator[tuple[np.ndarray, list[bytes]]]:
    """Yields (line numbers, lines) in blocks of up to `size` lines."""
    first = 1
    while block := list(islice(stream, size)):
        yield np.arange(first, first + len(block)), block
        first += len(block)


def count_lines(file: str) -> int:
    """Counts lines, an unfinished last one included."""
    lines, last = 0, b"\n"
    with open_text(file) as stream:
        while block := stream.read(READ_BLOCK):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")
