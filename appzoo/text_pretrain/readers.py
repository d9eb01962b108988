"""Plain text: a sentence a line, an empty line between documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from easytransfer.data.app_forms import BadRecord
from easytransfer.data.lines import plain_lines

Row = dict[str, Any]
# A document of more characters ends there, and the next one begins: a file without empty lines must not fill memory.
_MOST_CHARACTERS = 1 << 20


def read_documents(path: str) -> Iterator[Row | BadRecord]:
    """Reads the documents of a text file.

    Lines without an empty one between them are one document, up to about a million characters.

    Yields:
        `text`: the lines of a document. A line that is not UTF-8 or has a NUL is a bad row of its own.

    Raises:
        ValueError: A line is too long.
    """
    lines: list[str] = []
    size = 0
    for _, line, problem in plain_lines(path):
        if problem:
            yield BadRecord(*problem, line)
            continue
        if lines and (not line or size > _MOST_CHARACTERS):
            yield {"text": "\n".join(lines)}
            lines, size = [], 0
        if line:
            lines.append(line)
            size += len(line)
    if lines:
        yield {"text": "\n".join(lines)}


# Not `.txt`: those are tables of all applications.
READERS = {".text": read_documents, ".text.gz": read_documents}
