"""Rows of a training table that are held out for evaluation: by label, by a seed, without the table in memory."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from easytransfer.errors import DataError

# More different labels than this are no classes, and neither are labels of which a table has as many as rows.
MOST_CLASSES = 1000
_ROWS_OF_A_CLASS = 2
# Sets these draws apart from those of the same seed elsewhere.
_STREAM = 0x5917

# Number of a row, its label, and what rows that stay together have in common.
Row = tuple[int, str, str]


@dataclass(frozen=True)
class TablePart:
    """One of the two parts that a table is read in.

    Attributes:
        held_out: Numbers of the rows held out for evaluation, sorted, int64.
        evaluation: Whether this is the part of these rows; else it has all others.
    """

    held_out: np.ndarray
    evaluation: bool

    def keeps(self, index: np.ndarray) -> np.ndarray:
        """Returns which of some row numbers, sorted, belong to this part, bool."""
        place = np.searchsorted(self.held_out, index)
        held = np.zeros(len(index), bool)
        inside = place < len(self.held_out)
        held[inside] = self.held_out[place[inside]] == index[inside]
        return held if self.evaluation else ~held

    def __str__(self) -> str:
        return "rows held out for evaluation" if self.evaluation else "without the rows held out for evaluation"


@dataclass(frozen=True)
class HeldOut:
    """How a table was divided.

    Attributes:
        rows: Numbers of the rows held out, sorted, int64.
        counts: Rows of each class, or of the table (`""`): all of them, and those held out.
    """

    rows: np.ndarray
    counts: dict[str, tuple[int, int]]

    def part(self, evaluation: bool) -> TablePart:
        """Returns the rows held out, or the others."""
        return TablePart(self.rows, evaluation)


def hold_out(read: Callable[[], Iterable[Row]], share: float, seed: int) -> HeldOut:
    """Chooses rows, of each class the share that is asked for, rounded so that the whole has it too.

    Every choice of so many rows of a class is as likely as every other (selection sampling, Knuth, TAOCP 2, algorithm
    3.4.2 S), and a class keeps one row at least for the training. Where the labels are no classes (numbers, texts)
    or there are none, neighbours that have something in common, such as the questions of a text, are held out together.

    Args:
        read: Reads the rows; called twice, and gives the same both times.
        share: Of the rows, above 0 and below 1.
        seed: Of the choice.

    Raises:
        DataError: The share of the rows is none.
    """
    labels = _counted(label for _, label, _ in read())
    if labels is None:
        units = Counter({"": sum(1 for _ in _neighbours(read()))})
    else:
        units = labels
    wanted = _wanted(units, share, keeps_one=labels is not None)
    if not sum(wanted.values()):
        raise DataError(
            "the training table is too small for rows to be held out",
            received=f"{sum(units.values())} rows and a share of {share:g}",
            fix="give --evalTable=TABLE or a larger --evalShare=SHARE",
        )
    left, needed = Counter(units), Counter(wanted)
    draws = np.random.default_rng([seed % 2**63, _STREAM])
    groups: Iterable[tuple[str, list[int]]] = (
        _neighbours(read()) if labels is None else ((label, [number]) for number, label, _ in read())
    )
    chosen = array("q")
    counts = {label: [0, 0] for label in units}
    for label, numbers in groups:
        takes = needed[label] > 0 and draws.random() * left[label] < needed[label]
        left[label] -= 1
        needed[label] -= takes
        counts[label][0] += len(numbers)
        if takes:
            chosen.extend(numbers)
            counts[label][1] += len(numbers)
    rows = np.frombuffer(chosen, np.int64).copy()
    return HeldOut(rows, {label: (every, held) for label, (every, held) in counts.items()})


def _counted(labels: Iterable[str]) -> Counter[str] | None:
    """Returns how many rows each class has, None where the labels are no classes."""
    found: Counter[str] = Counter()
    for label in labels:
        found[label] += 1
        if len(found) > MOST_CLASSES:
            return None
    return found if len(found) * _ROWS_OF_A_CLASS <= found.total() and set(found) != {""} else None


def _wanted(units: Counter[str], share: float, keeps_one: bool) -> dict[str, int]:
    """Returns how many of each label are held out: sums over labels, from the most frequent on, are rounded."""
    wanted, before = {}, 0
    for label in sorted(units, key=lambda name: (-units[name], name)):
        after = before + units[label]
        count = round(after * share) - round(before * share)
        wanted[label] = min(count, units[label] - 1) if keeps_one else count
        before = after
    return wanted


def _neighbours(rows: Iterable[Row]) -> Iterator[tuple[str, list[int]]]:
    """Yields the numbers of rows that stay together: those next to each other that have the same in common."""
    numbers: list[int] = []
    last: Any = None
    for number, _, common in rows:
        if numbers and (common != last or not common):
            yield "", numbers
            numbers = []
        numbers.append(number)
        last = common
    if numbers:
        yield "", numbers
