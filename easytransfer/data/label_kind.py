"""Whether the cells of a label column are names of classes or numbers, where nobody has said so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from easytransfer.data.label_names import class_name, one_value
from easytransfer.data.values import read_number
from easytransfer.errors import ConfigError

LabelKind = Literal["classes", "numbers"]
# Two different whole numbers are the two sides of a decision; more may be classes, stars or amounts.
_FEW = 2
_FIX = "--labelEnumerateValues=auto makes a class of each, --labelEnumerateValues=none predicts numbers"


def label_kind(cells: Iterable[Any], column: str, *, declared: bool) -> LabelKind | None:
    """Returns what the labels of a table are: `classes` where no cell is a number, `numbers` where all are.

    Whole numbers of two values are classes. Of a table with declared columns all cells that hold a number are numbers,
    as in the original EasyTransfer; elsewhere what could be both is refused. Empty cells say nothing. Cells are read
    once and not kept.

    Args:
        cells: The cells.
        column: Their column, for messages.
        declared: Whether `inputSchema` declares the columns.

    Returns:
        None where no cell says anything.

    Raises:
        ConfigError: The cells are whole numbers of more than two values, or names and numbers, and not declared.
    """
    names, numbers, fractions = 0, 0, 0
    whole: set[float] = set()
    first_name = ""
    for cell in cells:
        try:
            value = one_value(cell)
        except ValueError:  # a list of labels: classes, or a bad row of what has one
            return "classes"
        name = class_name(value)
        number = _number(name)
        if number is None:
            names += bool(name)
            first_name = first_name or name
        else:
            numbers += 1
            fractions += not number.is_integer()
            if len(whole) <= _FEW:
                whole.add(number)
        if names and numbers and not declared:
            what = f"the label column {column!r} has names and numbers: are these classes?"
            raise ConfigError(what, received=f"{first_name[:40]!r} and {next(iter(whole)):g}", fix=_FIX)
    if not numbers:
        return "classes" if names else None
    if declared or fractions:
        return "numbers"
    if len(whole) > _FEW:
        shown = ", ".join(f"{number:g}" for number in sorted(whole))
        what = f"the label column {column!r} has whole numbers: are these classes, or amounts?"
        raise ConfigError(what, received=f"{shown}, ...", fix=_FIX)
    return "classes"


def _number(name: str) -> float | None:
    """Returns the number that a label is, None for a name."""
    try:
        return read_number(name)
    except ValueError:
        return None
