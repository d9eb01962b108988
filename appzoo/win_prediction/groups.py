"""Feature groups as the configuration declares them: which columns of the table belong together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COLUMN = re.compile(r"(?:(log)\()?([A-Za-z_][A-Za-z0-9_]*)(?::([1-9][0-9]{0,3}))?(\))?")
_LINE_UP = re.compile(r"heroes\(([A-Za-z_][A-Za-z0-9_]*) ([A-Za-z_][A-Za-z0-9_]*)\)")
_FORM = "name = column column:values log(column), or name = heroes(column_of_a column_of_b)"
# Names of tensors of requests and answers that are not groups.
RESERVED = ("time", "num_frames", "phase", "state", "table")


@dataclass(frozen=True)
class FeatureColumn:
    """A column with the value of team A minus that of team B, one or more numbers a frame.

    Attributes:
        name: Column of the table.
        width: Numbers a frame.
        log: Whether v becomes sign(v) * log(1 + |v| / unit) before it is scaled, for gold and the like.
    """

    name: str
    width: int = 1
    log: bool = False


@dataclass(frozen=True)
class FeatureGroup:
    """Columns that are explained together.

    Attributes:
        name: What contributions call it.
        columns: Columns it reads frame by frame; empty for a line-up.
        heroes: Columns with the heroes of team A and of team B, which do not change during a game; None for frames.
    """

    name: str
    columns: tuple[FeatureColumn, ...] = ()
    heroes: tuple[str, str] | None = None

    @property
    def width(self) -> int:
        """Numbers a frame; 0 for a line-up."""
        return sum(column.width for column in self.columns)


def parse_groups(texts: Sequence[str]) -> tuple[FeatureGroup, ...]:
    """Reads declarations such as `gold = log(gold)`, `kill = kill participation` and `tower = tower:3`.

    Args:
        texts: One text a group: its name, `=`, its columns with blanks between them. `column:3` holds three numbers a
            frame, `log(column)` is taken logarithmically, `heroes(a b)` names the columns with the heroes of the teams.

    Raises:
        ValueError: A declaration is malformed, or a name stands twice.
    """
    groups = tuple(map(_parse_group, texts))
    if not groups:
        raise ValueError(f"at least one group is needed; accepted: {_FORM}")
    _refuse_twice("group", [group.name for group in groups])
    _refuse_twice("column", [column for group in groups for column in columns_of(group)])
    if sum(group.heroes is not None for group in groups) > 1:
        raise ValueError("only one group may be a line-up of heroes")
    if not any(group.columns for group in groups):
        raise ValueError("a group with columns of the frames is needed beside the line-up")
    return groups


def columns_of(group: FeatureGroup) -> list[str]:
    """Returns the names of the table columns of a group."""
    return [*(column.name for column in group.columns), *(group.heroes or ())]


def _parse_group(text: str) -> FeatureGroup:
    name, mark, rest = (part.strip() for part in text.partition("="))
    if not mark or not _NAME.fullmatch(name) or not rest:
        raise ValueError(f"{text!r} declares no group; accepted: {_FORM}")
    if name in RESERVED:
        raise ValueError(f"a group cannot be called {name}: {', '.join(RESERVED)} have a meaning of their own")
    if found := _LINE_UP.fullmatch(" ".join(rest.split())):
        return FeatureGroup(name, heroes=(found[1], found[2]))
    return FeatureGroup(name, tuple(_parse_column(part, text) for part in rest.split()))


def _parse_column(part: str, text: str) -> FeatureColumn:
    found = _COLUMN.fullmatch(part)
    if not found or bool(found[1]) != bool(found[4]):
        raise ValueError(f"{part!r} in {text!r} is no column; accepted: {_FORM}")
    return FeatureColumn(found[2], int(found[3] or 1), found[1] is not None)


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{what} {twice[0]} is declared twice")
