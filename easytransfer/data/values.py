"""Cells to values: a whole column at once, cell by cell only where that fails."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from easytransfer.data.label_names import number_text
from easytransfer.data.schema import Column

# The kinds of bad cells and rows; a detail may follow after a colon.
INVALID_UTF8 = "invalid UTF-8"
NUL_CHARACTER = "NUL character"
EMPTY_LINE = "empty line"
HEADER_LINE = "the first line holds the column names"
COLUMN_COUNT = "wrong column count"
EMPTY_NUMBER = "empty number"
NOT_INTEGER = "not an integer"
NOT_NUMBER = "not a number"
OUT_OF_RANGE = "number out of range"
LIST_LENGTH = "wrong list length"
BAD_BASE64 = "bad base64"
MISSING_VALUE = "missing value"
WRONG_TYPE = "wrong type"
NO_IMAGE = "no image"

# What to do about a table in another encoding.
TO_UTF8 = (
    "tables are UTF-8: name another encoding, such as --encoding=latin-1, or convert it: "
    "iconv -f LATIN1 -t UTF-8 OLD > NEW"
)

# Rows looked at one by one around a bad cell.
_CAREFUL_ROWS = 32
# The smallest number that rounds to infinity as a 32-bit float.
_FLOAT32_LIMIT = 2.0**128 - 2.0**103

_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_FLOAT = re.compile(r"\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
_NOT_FINITE = re.compile(r"\s*[+-]?(nan|inf|infinity)\s*", re.ASCII | re.IGNORECASE)
_ESCAPED = re.compile(r"\\([tnr\\])")
_UNESCAPED = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}

Problems = dict[int, str]


def unescape(text: str) -> str:
    r"""Decodes `\t`, `\n`, `\r` and `\\`; any other backslash stands for itself."""
    return _ESCAPED.sub(lambda match: _UNESCAPED[match[1]], text) if "\\" in text else text


def convert_cells(column: Column, cells: Sequence[str], escape: bool = False) -> tuple[list[Any], Problems]:
    """Converts text cells of one column.

    Args:
        column: What the cells should hold.
        cells: Cells as read.
        escape: Decode escapes in text.

    Returns:
        A value per cell (None for bad ones), and the reason for every bad position.
    """
    if column.type == "str" and column.length == 1:
        return ([unescape(cell) for cell in cells] if escape else list(cells)), {}
    if column.type in ("str", "image"):
        return _one_by_one(cells, lambda cell: _parse_cell(column, cell, escape))
    values = _convert_all(column, cells)
    if values is not None:
        return values, {}
    values, problems = [], {}
    for start in range(0, len(cells), _CAREFUL_ROWS):
        part = cells[start : start + _CAREFUL_ROWS]
        found, bad = _convert_all(column, part), {}
        if found is None:
            found, bad = _one_by_one(part, lambda cell: _parse_cell(column, cell, escape))
        values.extend(found)
        problems.update((start + i, reason) for i, reason in bad.items())
    return values, problems


def convert_values(column: Column, values: Sequence[Any]) -> tuple[list[Any], Problems]:
    """Converts values that carry a type already, from JSON, Parquet, TFRecord or Python; same result as for cells."""
    if column.length == 1 and _is_uniform(column, values):
        return list(values), {}
    return _one_by_one(values, lambda value: _check_value(column, value))


def read_number(value: Any) -> float:
    """Returns the number in a cell by the rules of `float` columns, whatever the type of the cell.

    Raises:
        ValueError: It is no number, or none that a 32-bit float can hold; the message is the reason shown to the user.
    """
    return _check_one("float", value)


def read_integer(value: Any) -> int:
    """Returns the integer in a cell by the rules of `int` columns; otherwise like `read_number`."""
    return _check_one("int", value)


def _one_by_one(items: Sequence[Any], convert: Callable[[Any], Any]) -> tuple[list[Any], Problems]:
    values: list[Any] = [None] * len(items)
    problems: Problems = {}
    for i, item in enumerate(items):
        try:
            values[i] = convert(item)
        except (ValueError, OverflowError, RecursionError) as error:
            # The last two: a JSON integer too large for a float, lists in lists a thousand deep.
            problems[i] = str(error) if isinstance(error, ValueError) else f"{OUT_OF_RANGE}: {error}"
    return values, problems


def _convert_all(column: Column, cells: Sequence[str]) -> list[Any] | None:
    """Converts a column in a few calls; None when any cell needs a closer look."""
    if column.type == "base64":
        return _decode_all(column, cells)
    joined = ",".join(cells)
    # int() and float() also take 1_000 and other alphabets' digits, which other readers of the table do not.
    if "_" in joined or not joined.isascii() or (column.length is None and "" in cells):
        return None
    if column.length == 1 and joined.count(",") != len(cells) - 1:
        return None
    parts = joined.split(",") if cells else []
    try:
        if column.type == "int":
            numbers: list[Any] = list(map(int, parts))
            np.array(numbers, np.int64)
        else:
            numbers = list(map(float, parts))
            if not _all_finite(numbers):
                return None
    except (ValueError, OverflowError):
        return None
    if column.length == 1:
        return numbers
    lengths = [cell.count(",") + 1 for cell in cells]
    if column.length is not None and lengths.count(column.length) != len(lengths):
        return None
    ends = np.cumsum(lengths).tolist()
    return [numbers[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _parse_cell(column: Column, cell: str, escape: bool) -> Any:
    if column.type == "image":
        return _check_image(unescape(cell) if escape else cell)
    if column.type == "base64":
        return _decode_base64(column, cell)
    if column.length == 1:
        return _parse_one(column.type, cell, escape)
    if not cell and column.length is not None and column.type != "str":
        raise ValueError(EMPTY_NUMBER)
    parts = cell.split(",") if cell else []
    _check_length(column, len(parts))
    values = [_parse_one(column.type, part, escape) for part in parts]
    return values if column.lists == "none" else _list_text(column, values)


def _parse_one(kind: str, text: str, escape: bool = False) -> Any:
    if kind == "str":
        return unescape(text) if escape else text
    if not text.strip():
        raise ValueError(EMPTY_NUMBER)
    if kind == "int":
        if not _INTEGER.fullmatch(text):
            raise ValueError(f"{NOT_INTEGER}: {text[:40]!r}")
        # Python refuses to convert thousands of digits; 64 bits need 19.
        if len(text.strip().lstrip("+-0")) > 19:
            raise ValueError(f"{OUT_OF_RANGE}: {text[:40]!r} is not a 64-bit integer")
        return _in_range(int(text))
    if not _FLOAT.fullmatch(text) and not _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{NOT_NUMBER}: {text[:40]!r}")
    return _finite(float(text))


def _in_range(number: int) -> int:
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{OUT_OF_RANGE}: {number} is not a 64-bit integer")
    return number


def _float(number: Any) -> float:
    try:
        return float(number)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{OUT_OF_RANGE}: {str(number)[:40]} is not a finite 32-bit float") from error


def _finite(number: float) -> float:
    if not abs(number) < _FLOAT32_LIMIT:
        raise ValueError(f"{OUT_OF_RANGE}: {number} is not a finite 32-bit float")
    return number


def _all_finite(numbers: Sequence[float]) -> bool:
    return bool((np.abs(np.array(numbers, np.float64)) < _FLOAT32_LIMIT).all())


def _decode_all(column: Column, cells: Sequence[str]) -> list[Any] | None:
    if column.length is None:
        return None
    try:
        raw = [base64.b64decode(cell, validate=True) for cell in cells]
    except ValueError:
        return None
    if any(len(item) != 4 * column.length for item in raw):
        return None
    vectors = np.frombuffer(b"".join(raw), "<f4").astype(np.float32).reshape(-1, column.length)
    return list(vectors) if np.isfinite(vectors).all() else None


def _decode_base64(column: Column, text: str | bytes) -> np.ndarray:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{BAD_BASE64}: {error}") from error
    if len(raw) % 4:
        raise ValueError(f"{BAD_BASE64}: {len(raw)} bytes are not whole 32-bit floats")
    _check_length(column, len(raw) // 4)
    vector = np.frombuffer(raw, "<f4").astype(np.float32)
    if not np.isfinite(vector).all():
        raise ValueError(f"{OUT_OF_RANGE}: base64 vector with infinite or undefined values")
    return vector


def _check_length(column: Column, length: int) -> None:
    if column.length is not None and length != column.length:
        raise ValueError(f"{LIST_LENGTH}: expected {column.length} values, got {length}")


def _is_uniform(column: Column, values: Sequence[Any]) -> bool:
    """Whether all values have the column's own Python type and none needs a closer look."""
    kinds = set(map(type, values))
    if column.type == "str":
        return kinds <= {str} and "\0" not in (joined := "".join(values)) and is_utf8(joined)
    try:
        if column.type == "int" and kinds <= {int}:
            np.array(values, np.int64)
            return True
        return column.type == "float" and kinds <= {float} and _all_finite(values)
    except OverflowError:
        return False


def is_utf8(text: str) -> bool:
    """Returns whether a text can be written as UTF-8; a JSON escape can be half of a surrogate pair."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _check_image(value: Any) -> Any:
    """Returns the path, the encoded bytes or the pixels of a picture; nothing is read here."""
    if isinstance(value, str):
        value = value.strip()
    if not isinstance(value, (str, bytes, np.ndarray)):
        raise ValueError(f"{WRONG_TYPE}: expected a path, bytes or an array, got {type(value).__name__}")
    if not np.size(value) if isinstance(value, np.ndarray) else not value:
        raise ValueError(f"{NO_IMAGE}: the cell is empty")
    return value


def _check_value(column: Column, value: Any) -> Any:
    if value is None:
        raise ValueError(MISSING_VALUE)
    if column.type == "image":
        return _check_image(value)
    if isinstance(value, bytes) and column.type != "base64":
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{INVALID_UTF8}: {error.reason}") from error
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if column.lists != "none":
        return _list_text(column, value) if isinstance(value, (list, tuple, dict)) else _check_one("str", value)
    if column.type == "base64":
        if isinstance(value, (str, bytes)):
            return _decode_base64(column, value)
        column = Column(column.name, "float", column.length)
        return np.asarray(_check_list(column, value), np.float32)
    return _check_one(column.type, value) if column.length == 1 else _check_list(column, value)


def _check_list(column: Column, value: Any) -> list[Any]:
    if isinstance(value, str):
        return _parse_cell(column, value, escape=False)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{WRONG_TYPE}: expected a list, got {type(value).__name__}")
    _check_length(column, len(value))
    return [_check_one(column.type, item) for item in value]


def _list_text(column: Column, value: Any) -> str:
    """Returns the text of a list, as the column's `lists` says."""
    if column.lists == "json":
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_json_value)
        except TypeError as error:
            raise ValueError(f"{WRONG_TYPE}: {error}") from error
        return _check_one("str", text)
    if isinstance(value, dict):
        raise ValueError(f"{WRONG_TYPE}: expected words, got a mapping")
    words = [_check_one("str", word) for word in value]
    for word in words:
        if not word or " " in word:
            raise ValueError(f"{WRONG_TYPE}: a word of the list is empty or holds a blank: {word[:40]!r}")
    return " ".join(words)


def _json_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return _check_one("str", value) if isinstance(value, (bytes, Decimal)) else _not_text(value)


def _not_text(value: Any) -> Any:
    raise ValueError(f"{WRONG_TYPE}: expected a string, got {type(value).__name__}")


def _check_one(kind: str, value: Any) -> Any:
    # Times in NumPy's own form would become numbers.
    if isinstance(value, np.generic) and value.dtype.kind not in "mM":
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if kind == "str":
        # A label written as the number 1 or 1.0 means the class named "1"; NaN is how some tables say "missing".
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, (int, float, Decimal)):
            if not isinstance(value, int) and math.isnan(value):
                raise ValueError(f"{MISSING_VALUE}: NaN")
            return number_text(value)
        if not isinstance(value, str):
            _not_text(value)
        if "\0" in value:
            raise ValueError(NUL_CHARACTER)
        if not is_utf8(value):
            raise ValueError(f"{INVALID_UTF8}: half of a surrogate pair")
        return value
    if isinstance(value, str):
        return _parse_one(kind, value)
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return _in_range(value)
    if kind == "float" and isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return _finite(_float(value))
    raise ValueError(f"{NOT_INTEGER if kind == 'int' else NOT_NUMBER}: {str(value)[:40]!r}")
