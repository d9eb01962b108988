"""Pictures of a run: queries with the gallery images that come first, framed green where they show the person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from appzoo.person_reid.ranking import Persons, cosine_distance, kept, nearest
from easytransfer.image.contact_sheet import write_contact_sheet

SHOWN, QUERIES = 10, 12
# Pixels around an image.
_FRAME = 3
_RIGHT, _WRONG, _QUERY = (0, 160, 0), (210, 0, 0), (60, 60, 60)


def framed(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Returns an image with a frame around it, uint8 [height + 6, width + 6, 3]."""
    found = np.full((image.shape[0] + 2 * _FRAME, image.shape[1] + 2 * _FRAME, 3), colour, np.uint8)
    found[_FRAME:-_FRAME, _FRAME:-_FRAME] = image
    return found


def write_rankings(
    path: Path,
    queries: tuple[Persons, np.ndarray],
    gallery: tuple[Persons, np.ndarray],
    images: Any,
    protocol: str,
    distractor: int | None,
) -> bool:
    """Writes a PNG with a row for each of some queries: the query, then the first of the gallery.

    Args:
        path: The file.
        queries: Persons, and their rows among the images, int [queries].
        gallery: The same of the gallery.
        images: uint8 [rows, height, width, 3]; it may be on disk, only what is shown is taken.
        protocol: Which gallery images count, see `ranking.kept`.
        distractor: See there.

    Returns:
        Whether there was a query to show.
    """
    (asked, asked_rows), (known, known_rows) = queries, gallery
    if not len(asked) or not len(known):
        return False
    tiles, captions = [], []
    # Evenly over the table, of those that can be found.
    valid = [i for i in range(len(asked)) if kept(asked.take(np.array([i])), known, protocol, distractor)[1].any()]
    for place in np.unique(np.linspace(0, len(valid) - 1, min(QUERIES, len(valid))).astype(int)):
        row = np.array([valid[place]])
        query = asked.take(row)
        distances = cosine_distance(query.vectors, known.vectors)
        ranked, relevant = kept(query, known, protocol, distractor)
        order = nearest(np.where(ranked, distances, np.inf), min(SHOWN, int(ranked.sum())))[0]
        tiles.append(framed(images[asked_rows[row[0]]], _QUERY))
        captions.append((f"query {query.pid[0]}", f"camera {query.camera[0]}"))
        for rank, other in enumerate(order, 1):
            tiles.append(framed(images[known_rows[other]], _RIGHT if relevant[0, other] else _WRONG))
            captions.append((f"{rank}: {known.pid[other]}", f"{1 - distances[0, other]:.3f}"))
        tiles += [np.full_like(tiles[-1], 255)] * (SHOWN - len(order))
        captions += [("", "")] * (SHOWN - len(order))
    if not tiles:
        return False
    write_contact_sheet(path, np.stack(tiles), captions, columns=SHOWN + 1)
    return True
