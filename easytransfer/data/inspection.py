"""What a table holds, from one reading in bounded memory: columns, labels, lengths, pictures, rows that repeat."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from easytransfer.data.duplicates import DuplicateFinder
from easytransfer.data.label_names import class_name, class_names
from easytransfer.data.schema import Column
from easytransfer.data.table import RowChunk, RowCount, Table

# Different values of a column, or sizes of its pictures, that are counted; of columns with more it is said.
MOST_VALUES = 1000
# Values longer than this are texts, whose different ones are not counted.
_LONGEST_VALUE = 100
MOST_LABELS = 100_000
# Letters and digits that a text needs not to be near-empty.
_FEWEST_CHARACTERS = 2
# Rows read at a time.
_CHUNK = 4096
# Reasons why pictures are broken that are kept with their row.
_MOST_BROKEN = 5

# Takes the cells of a chunk by column; returns how many tokens each row has.
TokenCounter = Callable[[dict[str, list[Any]]], Sequence[int]]
# Takes cells and the folder of their table; returns height, width and a hash of what is there, or what is wrong.
Picture = tuple[int, int, bytes]
Pictures = Callable[[list[Any], str], Sequence[Picture | str]]


def near_empty(text: Any) -> bool:
    """Returns whether a text has fewer than two letters or digits."""
    letters = (character for character in str(text) if character.isalnum())
    return len(list(islice(letters, _FEWEST_CHARACTERS))) < _FEWEST_CHARACTERS


@dataclass
class Lengths:
    """How often texts have each length: exact, and as large as there are different lengths."""

    counts: Counter[int] = field(default_factory=Counter)

    def above(self, limit: int) -> int:
        """Returns the number of texts that are longer than `limit`."""
        return sum(count for length, count in self.counts.items() if length > limit)

    def quantile(self, share: float) -> int:
        """Returns the smallest length that at least `share` of the texts do not exceed."""
        needed, seen = share * self.counts.total(), 0
        for length in sorted(self.counts):
            seen += self.counts[length]
            if seen >= needed:
                return length
        return 0

    def summary(self) -> dict[str, float]:
        """Returns mean, quantiles and the longest; all 0 without texts."""
        total = self.counts.total()
        mean = sum(length * count for length, count in self.counts.items()) / max(total, 1)
        shares = {"min": 0.0, "median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
        return {"mean": mean, **{name: self.quantile(share) for name, share in shares.items()}}


@dataclass
class ColumnFacts:
    """One column of one table.

    Attributes:
        column: As the table declares it.
        missing: Cells that hold nothing: empty, white space alone, NaN, no items.
        numbers: Cells that are numbers, or texts that read as one.
        values: How often each value is there; None once there are more than `MOST_VALUES`, or long ones.
        characters: Lengths of texts.
        words: Lengths of texts in words, which white space sets apart.
        near_empty: Texts that are there and have fewer than two letters or digits.
        sizes: How often pictures have each height and width; None once there are more than `MOST_VALUES`.
        broken: Pictures that cannot be read, by kind.
        broken_rows: The first of them: row number from 0, and why.
    """

    column: Column
    missing: int = 0
    numbers: int = 0
    lowest: float = math.inf
    highest: float = -math.inf
    values: Counter[str] | None = field(default_factory=Counter)
    characters: Lengths = field(default_factory=Lengths)
    words: Lengths = field(default_factory=Lengths)
    near_empty: int = 0
    sizes: Counter[tuple[int, int]] | None = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    broken_rows: list[tuple[int, str]] = field(default_factory=list)

    @property
    def is_text(self) -> bool:
        """Whether cells are texts."""
        return self.column.type == "str"

    def add(self, cells: Iterable[Any]) -> None:
        """Adds the cells of a chunk."""
        for cell in cells:
            if _is_missing(cell):
                self.missing += 1
                continue
            if self.column.is_list or not isinstance(cell, (str, int, float, np.generic)):
                self.values = None
                continue
            text = str(cell)
            self._add_number(text if isinstance(cell, str) else cell)
            if self.is_text:
                self.characters.counts[len(text)] += 1
                self.words.counts[len(text.split())] += 1
                self.near_empty += near_empty(text)
            if self.values is not None:
                self.values[text] += 1
                if len(self.values) > MOST_VALUES or len(text) > _LONGEST_VALUE:
                    self.values = None

    def _add_number(self, value: Any) -> None:
        try:
            number = float(value)
        except ValueError:
            return
        self.numbers += 1
        self.lowest, self.highest = min(self.lowest, number), max(self.highest, number)

    def add_pictures(self, found: Sequence[Picture | str], rows: np.ndarray) -> None:
        """Adds what was found in the picture cells of a chunk."""
        for picture, row in zip(found, rows, strict=True):
            if isinstance(picture, str):
                self.broken[picture.partition(": ")[0]] += 1
                if len(self.broken_rows) < _MOST_BROKEN:
                    self.broken_rows.append((int(row), picture))
            elif self.sizes is not None:
                self.sizes[picture[:2]] += 1
                if len(self.sizes) > MOST_VALUES:
                    self.sizes = None


def _is_missing(cell: Any) -> bool:
    if cell is None:
        return True
    if isinstance(cell, str):
        return not cell.strip()
    if isinstance(cell, float):
        return math.isnan(cell)
    return isinstance(cell, (list, tuple, bytes, np.ndarray)) and not len(cell)


@dataclass
class TableFacts:
    """One table.

    Attributes:
        name: What the user calls it.
        count: Its rows.
        reasons: Rows that could not be read, by reason.
        columns: Its columns by name.
        labels: Rows of each class; a row with several counts for each. None where there are more than `MOST_LABELS`.
        tokens: Lengths of rows in tokens, special ones included; empty where nothing counts them.
    """

    name: str
    count: RowCount
    reasons: Counter[str]
    columns: dict[str, ColumnFacts]
    labels: Counter[str] | None
    tokens: Lengths = field(default_factory=Lengths)


def read_table(
    name: str,
    table: Table,
    *,
    number: int,
    finder: DuplicateFinder,
    compared: Sequence[str],
    label: str | None = None,
    several_labels: bool = False,
    tokens: TokenCounter | None = None,
    pictures: Pictures | None = None,
) -> TableFacts:
    """Reads a table once.

    Args:
        name: What the user calls it.
        table: The table.
        number: Its number for `finder`.
        finder: Takes its rows.
        compared: Columns that make two rows the same.
        label: Column of labels; None = there is none.
        several_labels: Whether a row has several, with commas between.
        tokens: Counts the tokens of rows.
        pictures: Reads pictures.
    """
    columns = {column.name: ColumnFacts(column) for column in table.columns}
    facts = TableFacts(name, table.count, table.bad_rows.reasons, columns, Counter())
    for chunk in table.chunks(size=_CHUNK):
        chunk = chunk.compact()
        contents = {name: chunk.columns[name] for name in compared}
        for at, column in columns.items():
            cells = chunk.columns[at]
            if column.column.type != "image":
                column.add(cells)
            elif pictures is not None:
                found = pictures(cells, os.path.dirname(chunk.file))
                column.add_pictures(found, chunk.index)
                if at in contents:
                    # The same picture may lie under two names; one that is broken is known by its name.
                    contents[at] = [c if isinstance(p, str) else p[2] for c, p in zip(cells, found, strict=True)]
        names = _labels(chunk, label, several_labels)
        if facts.labels is not None and label is not None:
            facts.labels.update(each for row in names for each in row)
            facts.labels = facts.labels if len(facts.labels) <= MOST_LABELS else None
        rows = (tuple(map(comparable, cells)) for cells in zip(*contents.values(), strict=True))
        finder.add(number, chunk.index, rows, (",".join(sorted(row)) for row in names))
        if tokens is not None:
            facts.tokens.counts.update(map(int, tokens(chunk.columns)))
    facts.count = table.count
    return facts


def texts_of(table: Table, rows: Iterable[int], columns: Sequence[str]) -> dict[int, str]:
    """Returns the cells of some rows as one text each, by row number; reads the table up to the last of them."""
    wanted = set(rows)
    found: dict[int, str] = {}
    for chunk in table.chunks(size=_CHUNK, stop=max(wanted, default=-1) + 1):
        for place in np.flatnonzero(np.isin(chunk.index, list(wanted))):
            found[int(chunk.index[place])] = " | ".join(str(chunk.columns[name][place]) for name in columns)
    return found


def _labels(chunk: RowChunk, label: str | None, several: bool) -> list[list[str]]:
    if label is None:
        return [[]] * len(chunk.index)
    cells = chunk.columns[label]
    if several:
        return [class_names(cell) for cell in cells]
    return [[name] if (name := _label_name(cell)) else [] for cell in cells]


def _label_name(cell: Any) -> str:
    return " ".join(map(class_name, cell)) if isinstance(cell, (list, tuple, np.ndarray)) else class_name(cell)


def comparable(cell: Any) -> Any:
    """Returns what two cells that are the same have in common."""
    if isinstance(cell, np.ndarray):
        return cell.tobytes()
    return cell.strip() if isinstance(cell, str) else cell
