"""Timelines: a line for each frame of a game, or for each team at each frame, with a header.

`game_id` and `minute` are compulsory. With `team` there are two lines for each minute, and columns are differences of
the two: team A is the one whose name comes first in order (100 before 200), which says nothing of the winner. Without
it columns are team A minus team B already. The winner is `winning_team` (a name in `team`) or `label` (1 where team A
has won). All other columns may be features. The lines of a game stand together, in the order of time.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from appzoo.win_prediction.lines import bounded_lines
from easytransfer.data.app_forms import BadRecord, Row
from easytransfer.data.files import open_text

GAME, MINUTE, TEAM, WINNER, LABEL = "game_id", "minute", "team", "winning_team", "label"
# Lines of one game that are held in memory.
MOST_LINES = 20_000
_OWN = (GAME, MINUTE, TEAM, WINNER, LABEL)


class _Line(NamedTuple):
    number: int
    cells: dict[str, str] | None


class _Unusable(ValueError):
    """Why a game cannot be read, and the column to blame."""

    def __init__(self, reason: str, column: str = "") -> None:
        super().__init__(reason)
        self.column = column


def timeline_games(path: str) -> Iterator[Row | BadRecord]:
    """Yields the games of a timeline in the order of the file.

    Args:
        path: A file with commas, or with tabs where its name says .tsv.

    Yields:
        `game_id`, `minute`, a list for each further column, and `label` where the header has a winner (None for a game
        without one); or why a game cannot be used.

    Raises:
        ValueError: The header is missing or lacks a compulsory column.
    """
    with open_text(path) as stream:
        lines = bounded_lines(stream)
        delimiter = "\t" if path.lower().removesuffix(".gz").endswith(".tsv") else ","
        header = _cells(next(lines, None) or "", delimiter)
        lacking = [name for name in (GAME, MINUTE) if name not in header]
        if lacking or len(set(header)) < len(header):
            what = f"has no column {lacking[0]}" if lacking else "names a column twice"
            raise ValueError(f"the header of {path} {what}; it is: {', '.join(header)[:200]}")
        frames = _frames(lines, header, delimiter)
        seen: set[str] = set()
        for game, group in groupby(frames, lambda line: line.cells[GAME] if line.cells else None):
            yield _game_or_problem(str(game) if game is not None else None, group, header, seen)


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def _frames(lines: Iterator[str | None], header: Sequence[str], delimiter: str) -> Iterator[_Line]:
    """Yields lines with their cells; None where their number is wrong. Empty lines are left out."""
    for number, line in enumerate(lines, start=2):
        if line == "":
            continue
        try:
            cells = _cells(line or "", delimiter)
        except csv.Error:
            cells = []
        yield _Line(number, dict(zip(header, cells, strict=True)) if len(cells) == len(header) else None)


def _game_or_problem(
    game: str | None, lines: Iterator[_Line], header: Sequence[str], seen: set[str]
) -> Row | BadRecord:
    held, count = [], 0
    for line in lines:
        count += 1
        if count <= MOST_LINES:
            held.append(line)
    where = f"line {held[0].number}, game {game}"
    try:
        if game is None:
            raise _Unusable(f"wrong column count: a line has not the {len(header)} cells of the header")
        if not game:
            raise _Unusable("no game: the cell is empty", GAME)
        if game in seen:
            raise _Unusable("game not in one piece: lines of another game stand between", GAME)
        seen.add(game)
        if count > MOST_LINES:
            raise _Unusable(f"too many lines: {count}, more than {MOST_LINES}")
        return _game(game, [line.cells for line in held if line.cells], header)
    except _Unusable as error:
        kind, colon, rest = str(error).partition(": ")
        return BadRecord(error.column, f"{kind}{colon}{rest} ({where})", where)


def _game(game: str, lines: list[dict[str, str]], header: Sequence[str]) -> Row:
    features = [name for name in header if name not in _OWN]
    row: Row = {GAME: game}
    if TEAM not in header:
        row[MINUTE] = [_number(line[MINUTE]) for line in lines]
        row |= {name: [_number(line[name]) for line in lines] for name in features}
        return row | ({LABEL: _only(lines, LABEL) or None} if LABEL in header else {})
    teams = sorted({line[TEAM] for line in lines}, key=_in_order)
    if len(teams) != 2:
        raise _Unusable(f"wrong number of teams: {', '.join(teams)}", TEAM)
    pairs = _pairs(lines, teams)
    row[MINUTE] = [_number(first[MINUTE]) for first, _ in pairs]
    row |= {name: [_difference(first[name], second[name]) for first, second in pairs] for name in features}
    if WINNER in header:
        winner = _only(lines, WINNER)
        row[LABEL] = str(int(winner == teams[0])) if winner in teams else None
    elif LABEL in header:
        row[LABEL] = _only(lines, LABEL) or None
    return row


def _pairs(lines: list[dict[str, str]], teams: list[str]) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Returns the lines of both teams of each minute, in the order of the file."""
    pairs = []
    for minute, group in groupby(lines, lambda line: line[MINUTE]):
        found = list(group)
        by_team = {line[TEAM]: line for line in found}
        lacking = [team for team in teams if team not in by_team]
        if lacking:
            raise _Unusable(f"missing frames: minute {minute} has no line of team {lacking[0]}", MINUTE)
        if len(found) != 2:
            raise _Unusable(f"frame twice: minute {minute} has {len(found)} lines", MINUTE)
        pairs.append((by_team[teams[0]], by_team[teams[1]]))
    return pairs


def _in_order(team: str) -> tuple[float, str]:
    """Returns what teams are sorted by: numbers before names."""
    return (float(team), team) if team.isascii() and team.isdecimal() else (float("inf"), team)


def _only(lines: list[dict[str, str]], name: str) -> str:
    found = {line[name] for line in lines}
    if len(found) > 1:
        raise _Unusable(f"two winners: {', '.join(sorted(found))}", name)
    return found.pop()


def _number(text: str) -> Any:
    """Returns the number in a cell; a text that is none stays, and is refused where the column is read."""
    try:
        return float(text)
    except ValueError:
        return text or "an empty cell"


def _difference(first: str, second: str) -> Any:
    a, b = _number(first), _number(second)
    return a - b if isinstance(a, float) and isinstance(b, float) else f"{a} and {b}"
