"""Which class a label cell names, and class names that a reader would take for one another.

A text is a class name as it is written, without white space and characters that show nothing (byte order mark,
zero-width space, soft hyphen and the like) at its ends. A number from a typed table that is whole is written without a
fraction: 1.0 and 1 are the class `1`. In a text `01` and `1.0` stay as they are. A truth value is `true` or `false`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

_NOTHING_SHOWN = "\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
_ENDS = re.compile(rf"^[\s{_NOTHING_SHOWN}]+|[\s{_NOTHING_SHOWN}]+$")
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?", re.ASCII)
# The cells that pandas, and many programs with it, read as missing.
_MISSING = frozenset(
    "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null".split(",")
)
# Columns that hold the labels where none is named.
_LABEL_COLUMNS = ("label", "labels")
# Groups of names that a warning shows.
_MOST_SHOWN = 5


def label_column(names: Sequence[str]) -> str | None:
    """Returns which column of a table holds the labels where nobody says it: `label`, or `labels`; None for neither.

    Args:
        names: Columns of the table.
    """
    return next((name for name in _LABEL_COLUMNS if name in names), None)


def class_name(cell: Any) -> str:
    """Returns the name of the class that a cell holding one value stands for; empty where it holds none."""
    if isinstance(cell, np.generic):
        cell = cell.item()
    if isinstance(cell, (bool, float, Decimal)):
        return number_text(cell)
    return trimmed(cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell))


def class_names(cell: Any) -> list[str]:
    """Returns the names in a cell that may hold several: the items of a list, or of a text with commas."""
    parts = (
        cell if isinstance(cell, (list, tuple, np.ndarray)) else cell.split(",") if isinstance(cell, str) else [cell]
    )
    return [name for name in map(class_name, parts) if name]


def one_value(cell: Any) -> Any:
    """Returns what is in a label cell that must hold one value.

    Raises:
        ValueError: It is a list of any length but 1.
    """
    if not isinstance(cell, (list, tuple, np.ndarray)):
        return cell
    if len(cell) != 1:
        raise ValueError(f"wrong number of labels: a list of {len(cell)} where a row has one label")
    return cell[0]


def number_text(value: float | Decimal) -> str:
    """Returns a number or truth value as the text that stands for it; empty for NaN, which means a missing value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return ""
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


def trimmed(text: str) -> str:
    """Returns a text without white space and characters that show nothing at its ends."""
    return text if text.isalnum() else _ENDS.sub("", text)


def likeness(name: str) -> str:
    """Returns what two names have in common that look the same or are the same number.

    That is their text in Unicode's composed form (NFC), of small letters, without format characters, with plain spaces.
    """
    if _NUMBER.fullmatch(name):
        value = float(name)
        return number_text(value) if math.isfinite(value) else name
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return " ".join("".join(c for c in text if unicodedata.category(c) != "Cf").split())


def spelled(name: str) -> str:
    """Returns a name with every character outside of ASCII as its code point, such as `caf<U+00E9>`."""
    return "".join(c if c.isascii() and c.isprintable() else f"<U+{ord(c):04X}>" for c in name)


def name_warnings(names: Sequence[str], from_table: bool) -> list[str]:
    """Returns what is suspicious about a list of class names, a sentence each.

    Args:
        names: The names.
        from_table: Whether they were collected from a table, where nobody has looked at them.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[likeness(name)].append(name)
    alike = [" and ".join(map(spelled, group)) for group in groups.values() if len(group) > 1]
    found = []
    if alike:
        shown = "; ".join(alike[:_MOST_SHOWN]) + (f"; and {len(alike) - _MOST_SHOWN} more" * (len(alike) > _MOST_SHOWN))
        found.append(
            f"classes that look the same, or are the same number, are different classes here: {shown}; "
            "write them alike in the table if one class is meant"
        )
    missing = [name for name in names if name in _MISSING] if from_table else []
    if missing:
        found.append(
            f"the labels {', '.join(missing)} mean a missing value in many programs and are classes here; "
            "leave their rows out of the table, or list the classes in labelEnumerateValues"
        )
    return found
