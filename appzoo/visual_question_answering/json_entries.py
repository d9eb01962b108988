"""The entries of a list in a JSON file, one at a time: the files of the VQA challenge have hundreds of megabytes."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

from easytransfer.data.files import open_text
from easytransfer.errors import DataError

_BLOCK = 1 << 20
# No entry is longer, in characters.
_LONGEST = 1 << 24


class _Damaged(Exception):
    """The text is no JSON of the form that is read; says why."""


class _Text:
    """The values of a JSON text, read from a stream as far as they are asked for."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._bytes = stream, codecs.getincrementaldecoder("utf-8")()
        self._json, self._text, self._at, self._ended = json.JSONDecoder(), "", 0, False

    def _read_on(self) -> None:
        block = self._stream.read(_BLOCK)
        self._ended = not block
        self._text, self._at = self._text[self._at :] + self._bytes.decode(block, final=self._ended), 0

    def next(self) -> str:
        """Returns the next character that is no white space, without taking it; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at].isspace():
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._read_on()

    def take(self, *wanted: str) -> str:
        """Takes the next character, which must be one of these."""
        found = self.next()
        if found not in wanted or not found:
            raise _Damaged(f"expected {' or '.join(wanted)}, got {found or 'the end'}")
        self._at += 1
        return found

    def value(self) -> Any:
        """Takes the next value."""
        self.next()
        while True:
            try:
                found, end = self._json.raw_decode(self._text, self._at)
                # A number at the end of what was read may go on.
                if end < len(self._text) or self._ended:
                    self._at = end
                    return found
            except (ValueError, RecursionError) as error:
                if self._ended or len(self._text) - self._at > _LONGEST:
                    raise _Damaged(f"no JSON: {str(error)[:80]}") from None
            self._read_on()


def entries(path: str, key: str) -> Iterator[dict[str, Any]]:
    """Yields the objects of the list that a file has under a key of its outermost object.

    Args:
        path: JSON file.
        key: Of the list; what is under others is read over.

    Raises:
        DataError: The file is damaged, or has no such list of objects.
    """
    found = 0
    with open_text(path) as stream:
        text = _Text(stream)
        try:
            text.take("{")
            while text.next() != "}":
                name = text.value()
                text.take(":")
                if name != key:
                    text.value()
                else:
                    text.take("[")
                    while text.next() != "]":
                        entry = text.value()
                        if not isinstance(entry, dict):
                            raise _Damaged(f"{type(entry).__name__} in place of an object")
                        found += 1
                        yield entry
                        if text.next() != "]":
                            text.take(",")
                    return
                if text.next() != "}":
                    text.take(",")
        except (_Damaged, UnicodeDecodeError) as error:
            raise DataError(f"{path}, entry {found + 1} of {key!r}: {error}", fix="get the file again") from None
    raise DataError(f"{path} has no {key!r}", accepted=f'{{"{key}": [{{...}}, ...]}}')
