"""The commentator's view: win probability of games with the contributions below it, and accuracy by minute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from appzoo.win_prediction.metrics import Games
from easytransfer.data.encoded import EncodedTable
from easytransfer.metrics.scores import sigmoid
from easytransfer.run.atomic import atomic_path, write_text
from easytransfer.run.card import table
from easytransfer.run.log import say
from easytransfer.run.page import PAGE_FILE, html_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE, PAGE = "games.png", "minutes.html"
# Games of the picture: the longest ones, which have most to see.
SHOWN_GAMES = 4
_DPI = 120
_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#9c755f", "#edc948", "#76b7b2", "#ff9da7")


def write_game_pages(
    folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray], groups: Sequence[str]
) -> list[str]:
    """Writes the picture of some games, where matplotlib is installed, and the page with accuracy by minute.

    Args:
        folder: Run folder.
        encoded: Labelled games.
        outputs: Of the network for them.
        groups: Names of the groups.

    Returns:
        File names.
    """
    played = games_of(encoded, outputs)
    write_text(folder / PAGE, minute_page(played.by_minute(), played.intervals(), len(played.lengths)))
    return [PAGE, *_picture(folder / PICTURE, encoded, outputs, groups)]


def games_of(encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> Games:
    """Returns the predictions of a table game after game."""
    minutes = encoded.columns["minutes"]
    logits = [outputs["logit"][row][: len(minutes[row])] for row in range(len(encoded))]
    flat = [minutes[row] for row in range(len(encoded))]
    winner = np.asarray(encoded.columns["winner"])
    return Games(minutes.lengths, winner, np.concatenate(flat), np.concatenate(logits))


def minute_page(minutes: Sequence[dict[str, Any]], intervals: dict[str, list[float]], games: int) -> str:
    """Returns an HTML page with metrics by minute, and their intervals over all minutes."""
    names = ("minute", "games", "frames", "accuracy", "nll", "brier", "auc")
    rows = [tuple(_shown(row[name]) for name in names) for row in minutes]
    ends = [(name, f"{low:.4f}", f"{high:.4f}") for name, (low, high) in intervals.items()]
    lines = [
        "# Accuracy by minute",
        "",
        f"{games:,} games of the evaluation table; *games* are those still running in that minute. As only long games "
        "reach the last minutes, minutes are not the same games.",
        "",
        "## Metrics by minute",
        "",
        *table(names, rows),
        "",
        "## 95% intervals over all minutes",
        "",
        "By bootstrap over games: the frames of one game share its outcome.",
        "",
        *table(("metric", "from", "to"), ends),
    ]
    return html_page("Accuracy by minute", "\n".join(lines), pages=[PAGE_FILE])


def _shown(value: float | int | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _picture(path: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray], groups: Sequence[str]) -> list[str]:
    try:
        import matplotlib  # noqa: F401 - asked for before anything is drawn
    except ImportError:
        say("no picture of games drawn: matplotlib is missing")
        return []
    lengths = encoded.columns["minutes"].lengths
    rows = np.sort(np.argsort(-lengths, kind="stable")[:SHOWN_GAMES])
    figure = games_picture(
        [
            (
                f"game {row + 1}, team {'A' if encoded.columns['winner'][row] else 'B'} wins",
                encoded.columns["minutes"][row],
                outputs["logit"][row][: lengths[row]],
                outputs["contributions"][row][: lengths[row]],
            )
            for row in rows
        ],
        groups,
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)
    return [path.name]


def games_picture(games: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]], groups: Sequence[str]) -> Figure:
    """Draws for each game the probability that team A wins, and below it the contributions stacked by their sign.

    Upper edge minus lower edge of the stacks is the logit, which is drawn as a line: contributions add up to it.

    Args:
        games: Title, minutes [frames], logit [frames] and contributions [frames, groups] of each.
        groups: Their names.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(games), 5.4), layout="constrained")
    axes = figure.subplots(2, len(games), squeeze=False, sharex="col", height_ratios=(1, 1.3))
    for column, (title, minutes, logit, contributions) in enumerate(games):
        above, below = axes[:, column]
        above.plot(minutes, sigmoid(logit), color="#222222")
        above.axhline(0.5, color="#8a8a8a", linewidth=1, linestyle="--")
        above.set(ylim=(0, 1), title=title, ylabel="P(team A wins)" if column == 0 else None)
        _stack(below, minutes, contributions, groups)
        below.plot(minutes, logit, color="#222222", linewidth=1.5, label="sum (logit)")
        below.set(xlabel="minute", ylabel="contribution to the logit" if column == 0 else None)
    axes[1, -1].legend(frameon=False, fontsize="small")
    return figure


def _stack(axes: Any, minutes: np.ndarray, contributions: np.ndarray, groups: Sequence[str]) -> None:
    """Stacks positive contributions upwards from 0 and negative ones downwards."""
    for sign in (1, -1):
        edge = np.zeros(len(minutes))
        for number, group in enumerate(groups):
            part = np.maximum(sign * contributions[:, number], 0)
            label = group.replace("_", " ") if sign == 1 else None
            colour = _COLOURS[number % len(_COLOURS)]
            # A game of one frame has no area, so each frame is a bar.
            axes.bar(minutes, sign * part, _widths(minutes), sign * edge, color=colour, label=label, linewidth=0)
            edge = edge + part


def _widths(minutes: np.ndarray) -> np.ndarray:
    steps = np.diff(minutes)
    return np.append(steps, steps[-1]) if len(steps) else np.ones(1)
