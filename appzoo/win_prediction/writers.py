"""Predictions as a timeline: a line for each frame in place of one for each game."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def write_timeline(path: Path, rows: Iterator[Row], delimiter: str) -> None:
    """Writes a header and the frames of all games.

    Args:
        path: The file.
        rows: Games: lists over frames and single values, which are repeated.
        delimiter: Between cells; those that hold it are quoted.

    Raises:
        ValueError: Lists of a game differ in length.
    """
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        for number, row in enumerate(rows):
            if not number:
                writer.writerow(row)
            writer.writerows(frames_of(row))


def frames_of(row: Row) -> Iterator[list[Any]]:
    """Yields the cells of each frame of a game; one line where it has no list."""
    lengths = {len(value) for value in row.values() if isinstance(value, list)}
    if len(lengths) > 1:
        raise ValueError(f"columns of a game differ in frames: {sorted(lengths)}")
    frames = lengths.pop() if lengths else 1
    columns = [value if isinstance(value, list) else [value] * frames for value in row.values()]
    return (list(cells) for cells in zip(*columns, strict=True))


WRITERS = {
    "timeline.csv": partial(write_timeline, delimiter=","),
    "timeline.tsv": partial(write_timeline, delimiter="\t"),
}
