"""Column files of words and tags, as the shared tasks of CoNLL have them: a word a line, empty lines between texts.

EU      NNP  B-NP  B-ORG
rejects VBZ  B-VP  O
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from easytransfer.config.encoding import AUTO
from easytransfer.data.app_forms import BadRecord
from easytransfer.data.lines import plain_lines
from easytransfer.data.values import COLUMN_COUNT

ENDINGS = (".conll", ".bio", ".iob", ".iob2", ".iobes", ".bioes")
WORDS, TAGS = "words", "tags"
# The line at the beginning of a document, which has no words.
_DOCUMENT = "-DOCSTART-"
# A text of more words has lost its empty lines.
_MOST_WORDS = 100_000
Row = dict[str, Any]


def read_columns(path: str, encoding: str = AUTO) -> Iterator[Row | BadRecord]:
    """Reads a column file.

    Columns are set apart by tabs, or in lines without one by blanks; all lines have as many as the first. Lines that
    begin with `#`, have another number and stand before a text are comments. Tags are taken as they are: the schemes
    IOB1, IOB2 (BIO) and IOBES are told apart where entities are read.

    Args:
        path: The file.
        encoding: Of the file.

    Yields:
        Lists by column: `words` (the first), `tags` (the last; none in a file of one column) and between them
        `column_2`, `column_3` and so on. A text with a line of another number of columns is a bad row.

    Raises:
        ValueError: Empty lines are missing, or a line is too long.
    """
    text: list[list[str]] = []
    width = 0
    problem: tuple[str, str] | None = None
    for number, line, wrong in plain_lines(path, encoding):
        if line:
            cells = line.split("\t") if "\t" in line else line.split()
            comment = line.startswith("#")
            if cells[0] == _DOCUMENT or (comment and not text and width not in (0, len(cells))):
                continue
            if not width and not comment:
                width = len(cells)
                text = [earlier for earlier in text if len(earlier) == width]
            if width not in (0, len(cells)):
                counted = f"{COLUMN_COUNT}: expected {width}, got {len(cells)} in line {number}"
                wrong = wrong or ("", f"{counted}: {line[:80]}")
            problem = problem or wrong
            text.append(cells)
            if len(text) > _MOST_WORDS:
                raise ValueError(f"{path}:{number}: {_MOST_WORDS} lines without an empty one; put one behind each text")
        elif text:
            if width:
                yield _row(text, width, problem)
            text, problem = [], None
    if text and width:
        yield _row(text, width, problem)


def _row(text: list[list[str]], width: int, problem: tuple[str, str] | None) -> Row | BadRecord:
    if problem is not None:
        return BadRecord(*problem, " ".join(cells[0] for cells in text))
    names = [WORDS, *(f"column_{place}" for place in range(2, width)), *([TAGS] if width > 1 else [])]
    return {name: list(column) for name, column in zip(names, zip(*text, strict=True), strict=True)}


READERS = {f"{ending}{packed}": read_columns for ending in ENDINGS for packed in ("", ".gz")}
