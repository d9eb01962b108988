"""Plain text: a sentence a line, an empty line between documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]
# A document of more characters ends there, and the next one begins: a file without empty lines must not fill memory.
_MOST_CHARACTERS = 1 << 20
# More in one line is no text of sentences.
_MOST_IN_A_LINE = 1 << 24


def read_documents(path: str) -> Iterator[Row]:
    """Reads the documents of a text file.

    Lines without an empty one between them are one document, up to about a million characters.

    Yields:
        `text`: the lines of a document.

    Raises:
        ValueError: The file is not UTF-8, or has a line without end.
    """
    lines: list[str] = []
    size = 0
    with open(path, encoding="utf-8-sig") as file:
        while line := file.readline(_MOST_IN_A_LINE):
            if len(line) == _MOST_IN_A_LINE and not line.endswith("\n"):
                raise ValueError(f"{path} has a line of more than {_MOST_IN_A_LINE} characters: a sentence a line")
            line = line.strip()
            if lines and (not line or size > _MOST_CHARACTERS):
                yield {"text": "\n".join(lines)}
                lines, size = [], 0
            if line:
                lines.append(line)
                size += len(line)
    if lines:
        yield {"text": "\n".join(lines)}


READERS = {".txt": read_documents}
