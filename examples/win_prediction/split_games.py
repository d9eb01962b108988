"""Splits a file of games into train_, dev_ and test_ files, 80, 10 and 10 of 100, by a hash of the game's id.

    python split_games.py FILE

All lines of a game go into one file, whatever its order, so that no game is both trained on and tested. FILE is a
timeline (`game_id` in its header), a gold graph (a match a line, behind a header) or has an id at the start of each
line.
"""

from __future__ import annotations

import csv
import sys
import zlib
from contextlib import ExitStack
from pathlib import Path

PARTS = ("train",) * 8 + ("dev", "test")


def main() -> None:
    """Writes the files beside the one named on the command line."""
    source = Path(sys.argv[1])
    headed, graph = source.suffix in (".csv", ".tsv"), source.name.endswith("gold_graph.csv")
    delimiter = "\t" if source.suffix == ".tsv" else ","
    with ExitStack() as stack:
        lines = stack.enter_context(open(source, encoding="utf-8", newline=""))
        header = next(lines) if headed else ""
        column = -1 if graph or not headed else next(csv.reader([header], delimiter=delimiter)).index("game_id")
        targets = {}
        for part in dict.fromkeys(PARTS):
            path = source.with_name(f"{part}_{source.name}")
            targets[part] = stack.enter_context(open(path, "w", encoding="utf-8", newline=""))
            targets[part].write(header)
        for line in filter(str.strip, lines):
            game = line if graph else line.split()[0]
            if column >= 0:
                game = next(csv.reader([line], delimiter=delimiter))[column].strip()
            targets[PARTS[zlib.crc32(game.encode()) % len(PARTS)]].write(line)


if __name__ == "__main__":
    main()
