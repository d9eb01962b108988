"""What was found in tables: the sections that a terminal and a page show, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from appzoo.cli.sections import Section
from easytransfer.data.duplicates import Repeats
from easytransfer.data.inspection import MOST_LABELS, MOST_VALUES, ColumnFacts, Lengths, TableFacts

_MOST_ROWS = 30
_LONGEST = 80


@dataclass
class Inspection:
    """What was found.

    Attributes:
        tables: Each table.
        repeats: Rows that they have twice.
        compared: Columns that make rows the same.
        label: Column of labels, None where there is none.
        limit: Tokens that are read of a text.
        counter: Model whose tokenizer counted them, None where none did.
        warnings: What is probably not wanted, a sentence each.
        examples: Rows that are there with two labels: where they are and what is in them.
    """

    tables: list[TableFacts]
    repeats: Repeats
    compared: list[str]
    label: str | None
    limit: int
    counter: str | None
    warnings: list[str]
    examples: list[tuple[str, str, str]]


def sections(found: Inspection) -> Iterator[Section]:
    """Yields what there is to show; sections without rows are left out."""
    for section in (
        Section("Look at this first", ("", "what"), [(f"{n}", each) for n, each in enumerate(found.warnings, 1)]),
        Section("Tables", ("table", "#rows read", "#used", "#cannot be read"), list(map(_account, found.tables))),
        Section("Columns", ("table", "column", "type", "#missing", "#different", "content"), list(_columns(found))),
        _labels(found),
        Section("Lengths of texts", ("table", "what", *_LENGTHS, f"#above {found.limit:,}"), list(_lengths(found))),
        Section(
            "Pictures", ("table", "column", "#pictures", "#broken", "height x width, pixels"), list(_pictures(found))
        ),
        Section("Broken pictures", ("table", "#row", "what is wrong"), list(_broken(found))),
        Section(
            "Rows that are there twice",
            ("table", "compared with", "#rows", "#with another label"),
            list(_repeated(found)),
            f"Rows are the same where these columns are: {', '.join(found.compared)}. Counts are exact.",
        ),
        Section("Same row, another label", ("row", "and", "content"), [_short(row) for row in found.examples]),
    ):
        if section.rows:
            yield section


_LENGTHS = ("#mean", "#shortest", "#median", "#95 %", "#99 %", "#longest")


def _account(facts: TableFacts) -> tuple[str, ...]:
    count = facts.count
    return facts.name, f"{count.read:,}", f"{count.accepted:,}", f"{count.rejected:,}"


def _columns(found: Inspection) -> Iterator[tuple[str, ...]]:
    for facts in found.tables:
        for name, column in facts.columns.items():
            if column.column.type == "image":
                continue  # has a section of its own
            kind = "" if column.column.length == 1 else " list"
            different = f"{len(column.values):,}" if column.values is not None else ""
            yield facts.name, name, column.column.type + kind, f"{column.missing:,}", different, _content(facts, column)


def _content(facts: TableFacts, column: ColumnFacts) -> str:
    """Returns what is in a column in few words: the range of numbers, or the most frequent values."""
    cells = facts.count.accepted - column.missing
    if column.numbers and column.numbers == cells:
        written = "numbers as text, " if column.is_text else ""
        return f"{written}{column.lowest:g} to {column.highest:g}"
    if column.values is None or len(column.values) == cells:
        return f"{column.near_empty:,} near-empty texts" if column.near_empty else ""
    common = column.values.most_common(3)
    return ", ".join(f"{value} ({count:,})" for value, count in common)


def _labels(found: Inspection) -> Section:
    counts = [facts.labels for facts in found.tables]
    title = f"Labels: {found.label}"
    if found.label is None:
        return Section(title, (), [])
    names = list(dict.fromkeys(name for each in counts for name, _ in (each or Counter()).most_common()))
    shown = names if len(names) <= _MOST_ROWS else names[:_MOST_ROWS]
    rows = [(name, *map(_share, counts, [name] * len(counts))) for name in shown]
    missing = [facts.columns[found.label].missing for facts in found.tables if found.label in facts.columns]
    if any(missing):
        rows.append(("(none)", *(f"{count:,}" for count in missing)))
    note = f"The {_MOST_ROWS} most frequent of {len(names):,}." if len(names) > _MOST_ROWS else ""
    if None in counts:
        note = f"A table has more than {MOST_LABELS:,} different labels; they are not counted."
    return Section(title, ("label", *(f"#{facts.name}" for facts in found.tables)), rows, note)


def _share(counts: Counter[str] | None, name: str) -> str:
    if counts is None:
        return ""
    return f"{counts[name]:,} ({counts[name] / counts.total():.1%})" if counts.total() else "0"


def _lengths(found: Inspection) -> Iterator[tuple[str, ...]]:
    for facts in found.tables:
        if facts.tokens.counts:
            yield (
                facts.name,
                f"tokens ({found.counter})",
                *_length_cells(facts.tokens),
                _above(facts.tokens, found.limit),
            )
        for name in found.compared:
            column = facts.columns[name]
            if column.is_text and column.characters.counts:
                yield facts.name, f"{name}, words", *_length_cells(column.words), ""
                yield facts.name, f"{name}, characters", *_length_cells(column.characters), ""


def _length_cells(lengths: Lengths) -> list[str]:
    mean, *others = lengths.summary().values()
    return [f"{mean:,.1f}", *(f"{value:,}" for value in others)]


def _above(lengths: Lengths, limit: int) -> str:
    above = lengths.above(limit)
    return f"{above:,} ({above / lengths.counts.total():.1%})"


def _pictures(found: Inspection) -> Iterator[tuple[str, ...]]:
    for facts in found.tables:
        for name, column in facts.columns.items():
            if column.column.type != "image":
                continue
            shown = f"more than {MOST_VALUES:,} sizes"
            if column.sizes is not None:
                common = column.sizes.most_common(3)
                shown = ", ".join(f"{height} x {width} ({count:,})" for (height, width), count in common)
                shown += f" and {len(column.sizes) - 3:,} more sizes" if len(column.sizes) > 3 else ""
            yield facts.name, name, f"{facts.count.accepted:,}", f"{column.broken.total():,}", shown


def _broken(found: Inspection) -> Iterator[tuple[str, ...]]:
    for facts in found.tables:
        for column in facts.columns.values():
            for row, reason in column.broken_rows:
                yield facts.name, f"{row + 1:,}", reason


def _repeated(found: Inspection) -> Iterator[tuple[str, ...]]:
    for number, within in found.repeats.within.items():
        if within.repeated:
            yield found.tables[number].name, "itself", f"{within.repeated:,}", f"{within.conflicting:,}"
    for (first, second), between in found.repeats.between.items():
        if between.rows:
            names = found.tables[second].name, found.tables[first].name
            yield *names, f"{between.rows:,}", f"{between.conflicting:,}"


def _short(cells: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell if len(cell) <= _LONGEST else cell[: _LONGEST - 3] + "..." for cell in cells)


def as_json(found: Inspection) -> dict[str, Any]:
    """Returns all facts as JSON has them."""
    return {
        "tables": [_table_json(found, facts) for facts in found.tables],
        "compared": found.compared,
        "label": found.label,
        "sequence_length": found.limit,
        "repeated": {
            found.tables[number].name: {"rows": each.repeated, "conflicting": each.conflicting}
            for number, each in found.repeats.within.items()
        },
        "shared": [
            {
                "table": found.tables[second].name,
                "with": found.tables[first].name,
                "rows": each.rows,
                "conflicting": each.conflicting,
            }
            for (first, second), each in found.repeats.between.items()
        ],
        "warnings": found.warnings,
    }


def _table_json(found: Inspection, facts: TableFacts) -> dict[str, Any]:
    columns = {}
    for name, column in facts.columns.items():
        values = {"type": column.column.type, "missing": column.missing}
        if column.column.type == "image":
            sizes = None if column.sizes is None else {f"{h}x{w}": n for (h, w), n in column.sizes.most_common()}
            values |= {"sizes": sizes, "broken": dict(column.broken)}
        else:
            values["different"] = None if column.values is None else len(column.values)
        if column.is_text and column.characters.counts:
            words, characters = column.words.summary(), column.characters.summary()
            values |= {"words": words, "characters": characters, "near_empty": column.near_empty}
        columns[name] = values
    counted = {}
    if facts.tokens.counts:
        counted = {"tokens": {**facts.tokens.summary(), "above": facts.tokens.above(found.limit), "by": found.counter}}
    labels = None if facts.labels is None else dict(facts.labels.most_common())
    account: dict[str, Any] = {
        "read": facts.count.read,
        "accepted": facts.count.accepted,
        "rejected": facts.count.rejected,
    }
    return {
        "table": facts.name,
        **account,
        "reasons": dict(facts.reasons),
        "columns": columns,
        "labels": labels,
        **counted,
    }
