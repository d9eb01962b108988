"""Writes the sample tables: games made by a rule, three feature groups, no real match; and further ones as a timeline.

    python make_games.py FOLDER

Each group has a latent advantage that wanders over time. Gold matters early, towers late, the minion lanes at the very
end; the sum at the last frame, with chance, decides the winner.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

FRAMES, SHORTEST = 16, 6
TABLES = {"train.tsv": (240, 1), "dev.tsv": (120, 2)}
TIMELINE, TIMELINE_GAMES = "games.timeline.csv", (400, 3)


def games(count: int, seed: int):
    """Yields the cells of games: id, minutes, gold, towers (two numbers a frame), soldiers, label."""
    random = np.random.default_rng(seed)
    tau = np.linspace(0, 1, FRAMES)
    importance = np.stack([1.5 - 1.2 * tau, 0.3 + 1.6 * tau, 0.1 + 2.0 * tau**2])
    for number in range(count):
        skill = random.normal(0, 0.35)
        steps = random.normal(0, 1.2 / FRAMES**0.5, (3, FRAMES)) + 3 * skill / FRAMES
        advantage = steps.cumsum(axis=1)
        frames = int(random.integers(SHORTEST, FRAMES + 1))
        logit = 2 * (importance * advantage)[:, frames - 1].sum()
        label = int(random.random() < 1 / (1 + np.exp(-logit)))
        seen = advantage[:, :frames] + random.normal(0, 0.25, (3, frames))
        towers = np.stack([seen[1] * 0.8, seen[1] * 0.6 + random.normal(0, 0.25, frames)], axis=1)
        gold = np.sign(seen[0]) * 1000 * np.expm1(np.abs(seen[0]))
        minutes = np.arange(frames) / 2
        columns = [minutes.round(1), gold.round(), towers.ravel().round(2), seen[2].round(2)]
        yield [f"g{seed}-{number}", *(",".join(f"{x:g}" for x in column) for column in columns), str(label)]


def timeline_lines(count: int, seed: int):
    """Yields a header, and a line for each frame."""
    yield "game_id,minute,gold,tower_near,tower_far,soldier,label"
    for game, minutes, gold, towers, soldiers, label in games(count, seed):
        near, far = towers.split(",")[::2], towers.split(",")[1::2]
        for cells in zip(minutes.split(","), gold.split(","), near, far, soldiers.split(","), strict=True):
            yield ",".join([game, *cells, label])


def main() -> None:
    """Writes all tables into the folder named on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (count, seed) in TABLES.items():
        (folder / name).write_text("".join("\t".join(cells) + "\n" for cells in games(count, seed)), encoding="utf-8")
    lines = timeline_lines(*TIMELINE_GAMES)
    (folder / TIMELINE).write_text("".join(line + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
