"""The published line format of Honor of Kings games: winner and loser camps every half minute.

The field names are those that public readers of the data set use (data set: Yang et al., arXiv 2008.06313). The camps
say who has won, so which of them is team A must not: it follows from a hash of the game's id.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from appzoo.win_prediction.lines import MOST_BYTES, bounded_lines
from easytransfer.data.app_forms import BadRecord, Row
from easytransfer.data.files import open_text

WINNER, LOSER = "wincp", "losecp"
# Published fields, and columns of the same names: the value of team A minus that of team B.
NUMBERS = (
    *("gold", "kill", "participation", "tower_cnt", "middleTower_cnt", "crystalTower_cnt", "num_baron", "baron"),
    *("num_darkTyrant", "darkTyrant", "num_dragon", "num_redbuf", "num_bluebuf"),
)
LANES = ("down", "mid", "up")
PROFESSIONS = ("tank", "warrior", "assassin", "mage", "marksman", "support")
ROLES = ("AD", "AP", "Jungle")
_MOST_DIGITS = 40

Camp = Mapping[str, Any]


class _Unusable(ValueError):
    """Why a game cannot be used, as `kind: detail`."""


def published_games(path: str) -> Iterator[Row | BadRecord]:
    """Yields the games of a file: an id, blanks, and a JSON object of camps by minute in each line.

    Yields:
        `game_id`, `minute`, `phase` (the tag of the frame, an empty text where there is none), the differences named
        in `NUMBERS`, `soldier_down`, `soldier_mid`, `soldier_up`, one column for each profession (heroes of it) and
        role (whether it is there), `heroes_a` and `heroes_b` (ids in the first frame), and `label`, 1 where team A has
        won; or why a line is no game.
    """
    with open_text(path) as stream:
        for number, line in enumerate(bounded_lines(stream), start=1):
            if line is None:
                yield BadRecord("", f"unreadable line: longer than {MOST_BYTES} bytes, or no UTF-8", f"line {number}")
            elif line.strip():
                yield _game_or_problem(line)


def team_a_won(game: str) -> bool:
    """Returns whether the winner of a game is called team A: whether the CRC-32 of its id is even."""
    return zlib.crc32(game.encode()) % 2 == 0


def _game_or_problem(line: str) -> Row | BadRecord:
    try:
        game, text = line.split(maxsplit=1)
        frames = json.loads(text, parse_constant=_no_number)
        return _game(game, sorted((_minute(key), value) for key, value in frames.items()))
    except _Unusable as error:
        return BadRecord("", str(error), line[:200])
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        return BadRecord("", f"no published game: {str(error) or type(error).__name__}", line[:200])


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _minute(key: str) -> float:
    """Returns a key as a number: as texts, "10.0" comes before "2.0"."""
    try:
        return float(key[:_MOST_DIGITS])
    except ValueError:
        raise ValueError(f"minute {key[:40]!r}") from None


def _game(game: str, frames: list[tuple[float, Any]]) -> Row:
    if not frames:
        raise _Unusable("no frames: the game is empty")
    won = team_a_won(game)
    camps = [_camps(minute, frame, won) for minute, frame in frames]
    row: Row = {"game_id": game, "minute": [minute for minute, _ in frames]}
    row["phase"] = [_phase(first) or _phase(second) for first, second in camps]
    for field in NUMBERS:
        row[field] = [_difference(_number(a.get(field)), _number(b.get(field))) for a, b in camps]
    for lane in LANES:
        row[f"soldier_{lane}"] = [_difference(_lane(a, lane), _lane(b, lane)) for a, b in camps]
    for profession in PROFESSIONS:
        row[profession] = [_difference(_heroes_of(a, profession), _heroes_of(b, profession)) for a, b in camps]
    for role in ROLES:
        row[role] = [_difference(_role(a, role), _role(b, role)) for a, b in camps]
    row["heroes_a"], row["heroes_b"] = (_hero_ids(camp) for camp in camps[0])
    return row | {"label": int(won)}


def _camps(minute: float, frame: Any, won: bool) -> tuple[Camp, Camp]:
    """Returns the camps of teams A and B."""
    for name in (WINNER, LOSER):
        if not isinstance(frame, dict) or not isinstance(frame.get(name), dict):
            raise _Unusable(f"no winner: minute {minute:g} has no {name}")
    winner, loser = frame[WINNER], frame[LOSER]
    return (winner, loser) if won else (loser, winner)


def _difference(a: float | None, b: float | None) -> float:
    """Returns a - b, 0 where either is absent: a flag for that would be the same from both views, and break oddness."""
    return 0.0 if a is None or b is None else a - b


def _number(value: Any) -> float | None:
    """Returns a number that may be written as text, None where it is absent."""
    if value is None or value == "":
        return None
    return float(value)


def _lane(camp: Camp, lane: str) -> float | None:
    """Returns how far the soldiers of a lane have come; what is below 0 counts as absent."""
    lanes = camp.get("soldier.distance")
    value = _number(lanes.get(lane)) if isinstance(lanes, dict) else None
    return None if value is None or value < 0 else value


def _heroes_of(camp: Camp, profession: str) -> float | None:
    """Returns how many heroes of a camp have a profession; a hero may have several."""
    heroes = camp.get("hero")
    if not isinstance(heroes, dict):
        return None
    return float(sum(profession in (hero.get("profession") or ()) for hero in heroes.values()))


def _hero_ids(camp: Camp) -> list[int]:
    heroes = camp.get("hero")
    return [int(name) for name in sorted(heroes, key=int)] if isinstance(heroes, dict) else []


def _role(camp: Camp, role: str) -> float | None:
    found = camp.get(role)
    return float(bool(found.get("state"))) if isinstance(found, dict) and "state" in found else None


def _phase(camp: Camp) -> str:
    return str(camp.get("sum") or "")
