"""Text tables in other encodings than UTF-8, read as if they were UTF-8."""

from __future__ import annotations

import codecs
import io
from typing import BinaryIO

from easytransfer.errors import DataError

_UTF8_BOM = b"\xef\xbb\xbf"
# Those of four bytes come first: the mark of UTF-16LE is how that of UTF-32LE begins.
_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
# Share of zeros among the high bytes of a text without such a mark, and among the low ones at most.
_ZERO_SHARE, _LOW_SHARE = 0.8, 0.1
_BLOCK = 1 << 18


def marked_encoding(begin: bytes) -> str | None:
    """Returns the encoding that a mark at the beginning of a text says, None for UTF-8 and where there is none."""
    return next((name for mark, name in _MARKS.items() if begin.startswith(mark)), None)


def unmarked_encoding(begin: bytes) -> str | None:
    """Returns the encoding of two bytes a character that a text seems to have which begins like this, else None."""
    # Every other byte of Latin letters is 0.
    for place, encoding in ((1, "UTF-16LE"), (0, "UTF-16BE")):
        high, low = begin[place::2], begin[1 - place :: 2]
        if len(begin) > 1 and high.count(0) > _ZERO_SHARE * len(high) and low.count(0) < _LOW_SHARE * len(low):
            return encoding
    return None


def skip_mark(stream: BinaryIO) -> None:
    """Reads over a byte order mark of UTF-8."""
    if stream.peek(len(_UTF8_BOM)).startswith(_UTF8_BOM):  # type: ignore[attr-defined]
        stream.read(len(_UTF8_BOM))


def as_utf8(stream: BinaryIO, encoding: str, path: str) -> BinaryIO:
    """Returns a stream of the same text in UTF-8; it is converted piece by piece as it is read.

    Args:
        stream: The text; closed with what is returned.
        encoding: That it has.
        path: Its file, for messages.
    """
    return io.BufferedReader(_Converted(stream, encoding, path), _BLOCK)  # type: ignore[return-value]


class _Converted(io.RawIOBase):
    def __init__(self, stream: BinaryIO, encoding: str, path: str) -> None:
        self._stream, self._encoding, self._path = stream, encoding, path
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._left, self._ended, self._read = b"", False, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def,override]
        """Fills a buffer with UTF-8.

        Raises:
            DataError: The bytes are none of the encoding.
        """
        while not self._left and not self._ended:
            block = self._stream.read(_BLOCK)
            self._ended = not block
            try:
                self._left = self._decoder.decode(block, final=self._ended).encode("utf-8")
            except UnicodeError as error:
                place = f"in the {_BLOCK >> 10} KB from byte {self._read + 1} on"
                raise DataError(
                    f"{self._path} is not {self._encoding}: {getattr(error, 'reason', error)} {place}",
                    fix="name the encoding it has, such as --encoding=latin-1",
                ) from None
            self._read += len(block)
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()
