"""Dota 2 matches as rows with a gold graph: one line a match, the state of all players at its last moment.

Columns: `game_time` (seconds), `graph_gold_0` to `graph_gold_127` (Radiant minus Dire, spread evenly over that time),
`team_2_player_0_...` (Radiant) and `team_3_player_0_...` (Dire), and `winner`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from itertools import count, takewhile

import numpy as np

from appzoo.win_prediction.lines import bounded_lines
from easytransfer.data.app_forms import BadRecord, Row
from easytransfer.data.files import open_text

# Minutes between frames, and over which the change of gold is taken.
STEP, TREND = 0.5, 2.0
_PLAYERS, _RADIANT, _DIRE = range(5), 2, 3
# Column of the game -> what is added up over the players of a team, known at the last frame alone.
_STATE = {"kills": "kill_count", "levels": "level", "last_hits": "lh_count", "assists": "assists_count"}


def gold_graph_games(path: str) -> Iterator[Row | BadRecord]:
    """Yields the matches of a file with a frame every half minute; team A is Radiant.

    Yields:
        `game_id` (number of the match in the file, from 0), `minute`, `gold`, `gold_trend` (its change over the two
        minutes before), `kills`, `levels`, `last_hits` and `assists` (0 before the last frame, as they are not known
        there), and `label`, None without a winner; or why a line is no match.

    Raises:
        ValueError: The header has no gold graph.
    """
    with open_text(path) as stream:
        lines = bounded_lines(stream)
        header = next(csv.reader([next(lines, None) or ""]), [])
        graph = list(takewhile(header.__contains__, (f"graph_gold_{number}" for number in count())))
        if not graph or "game_time" not in header:
            raise ValueError(f"the header of {path} has no columns game_time and graph_gold_0, graph_gold_1, ...")
        for number, line in enumerate(lines):
            cells = next(csv.reader([line or ""]), [])
            try:
                if len(cells) != len(header):
                    raise ValueError(f"wrong column count: expected {len(header)}, got {len(cells)}")
                yield _match(str(number), dict(zip(header, cells, strict=True)), graph)
            except (ValueError, KeyError) as error:
                reason = str(error) if ": " in str(error) else f"no match: {error}"
                yield BadRecord("", reason, (line or "")[:200])


def _match(game: str, cells: Mapping[str, str], graph: list[str]) -> Row:
    seconds = float(cells["game_time"])
    gold = np.array([float(cells[name]) for name in graph])
    if not seconds > 0 or not np.isfinite([seconds, *gold]).all():
        raise ValueError(f"no match: game_time {cells['game_time']!r}")
    at = seconds / 60 * np.arange(1, len(gold) + 1) / len(gold)
    # Frames lie at or behind points of the graph that are known then, the last one at the end of it.
    minutes = np.append(np.arange(STEP, at[-1] - 1e-6, STEP), at[-1])
    values, before = (_known(at, gold, minutes - back) for back in (0.0, TREND))
    row: Row = {"game_id": game, "minute": minutes.tolist(), "gold": values.tolist()}
    row["gold_trend"] = (values - before).tolist()
    for column, field in _STATE.items():
        last = sum(float(cells[f"team_{_RADIANT}_player_{p}_{field}"]) for p in _PLAYERS)
        last -= sum(float(cells[f"team_{_DIRE}_player_{p}_{field}"]) for p in _PLAYERS)
        row[column] = [0.0] * (len(minutes) - 1) + [last]
    return row | {"label": {"radiant": 1, "dire": 0}.get(cells.get("winner", ""))}


def _known(at: np.ndarray, gold: np.ndarray, minutes: np.ndarray) -> np.ndarray:
    """Returns the gold at the latest point of the graph that is not behind each minute, 0 before the first one."""
    place = np.searchsorted(at, minutes + 1e-6, side="right") - 1
    return np.where(place < 0, 0.0, gold[np.maximum(place, 0)])
