"""Text files as blocks of lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import BinaryIO

import numpy as np

from easytransfer.config.encoding import AUTO
from easytransfer.data.files import open_text
from easytransfer.data.row_format import Problem
from easytransfer.data.values import INVALID_UTF8, NUL_CHARACTER, TO_UTF8

READ_BLOCK = 1 << 20
# Bytes of a line that is a sentence, at most.
_LONGEST_SENTENCE = 1 << 22


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
                problems[i] = ("", f"{INVALID_UTF8}: {error.reason} at byte {error.start + 1}; {TO_UTF8}")
    if b"\r" in raw:
        lines = [line.removesuffix("\r") for line in lines]
    if b"\0" in raw:
        for i, line in enumerate(lines):
            if "\0" in line:
                problems.setdefault(i, ("", NUL_CHARACTER))
    return lines, problems


def plain_lines(file: str, encoding: str = AUTO) -> Iterator[tuple[int, str, Problem | None]]:
    """Yields number, text without spaces around, and problem of each line of a file of sentences, empty ones too.

    Raises:
        DataError: The file is no text.
        ValueError: A line is too long to be a sentence: a file without line ends must not fill memory.
    """
    with open_text(file, encoding) as stream:
        number = 0
        while record := stream.readline(_LONGEST_SENTENCE):
            number += 1
            if len(record) == _LONGEST_SENTENCE and not record.endswith(b"\n"):
                raise ValueError(f"{file} has a line of more than {_LONGEST_SENTENCE} bytes; write a sentence a line")
            (line,), problems = decode_lines([record])
            yield number, line.strip(), problems.get(0)


def line_blocks(stream: BinaryIO, size: int, blank_end: bool = False) -> Iterator[tuple[np.ndarray, list[bytes]]]:
    """Yields (line numbers, lines) in blocks of up to `size` lines.

    Args:
        stream: The file.
        size: Lines of a block.
        blank_end: Whether empty lines at the end of the file count; they are left out where they cannot be rows.
    """
    first, held = 1, []
    while block := list(islice(stream, size)):
        block = held + block
        end = len(block)
        while end and not blank_end and not block[end - 1].strip(b"\r\n"):
            end -= 1
        held = block[end:]
        for start in range(0, end, size):
            lines = block[start : min(start + size, end)]
            yield np.arange(first, first + len(lines)), lines
            first += len(lines)


def count_lines(file: str, blank_end: bool = False, encoding: str = AUTO) -> int:
    """Counts lines as `line_blocks` yields them, an unfinished last one included."""
    lines, last, tail = 0, b"\n", b"\n"
    with open_text(file, encoding) as stream:
        while block := stream.read(READ_BLOCK):
            lines += block.count(b"\n")
            last = block[-1:]
            filled = block.rstrip(b"\r\n")
            tail = block[len(filled) :] if filled else tail + block
    lines += last != b"\n"
    # What stands behind the first line end of the tail are empty lines.
    _, *empty = tail.split(b"\n")
    return lines if blank_end or not empty else lines - (len(empty) - 1) - bool(empty[-1])
