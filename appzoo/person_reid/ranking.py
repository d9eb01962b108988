"""Queries ranked against a gallery: which gallery images count by which protocol, average precision and CMC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

JUNK = UNKNOWN = -1
# Ranks of the CMC curve that are reported.
RANKS = (1, 5, 10)
# A protocol is written in front of its metrics; the standard one has no name.
PROTOCOLS = ("", "cc", "sc")
# Distances are rounded to so many digits: far above what sums in float64 are wrong by, so that images with the same
# vector have the same distance whatever the order of the sum.
_DIGITS = 12
# Queries that are compared at a time.
_BLOCK = 256

# Takes unit vectors of queries [q, width] and of a gallery [g, width] to distances [q, g].
Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass
class Persons:
    """Images of persons.

    Attributes:
        vectors: What they are compared by, of length 1, float [rows, width].
        pid: Identity, int [rows]; -1 is junk.
        camera: Camera, int [rows]; -1 is unknown.
        clothes: Outfit, which tells apart those of one identity, int [rows]; -1 is unknown.
    """

    vectors: np.ndarray
    pid: np.ndarray
    camera: np.ndarray
    clothes: np.ndarray

    def take(self, rows: np.ndarray) -> Persons:
        """Returns some of them, by number or by a mask."""
        return replace(self, **{each.name: getattr(self, each.name)[rows] for each in fields(self)})

    def __len__(self) -> int:
        return len(self.pid)


def cosine_distance(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Returns 1 - cosine of unit vectors, float64 [queries, gallery]."""
    return np.round(1 - queries.astype(np.float64) @ gallery.astype(np.float64).T, _DIGITS)


def kept(queries: Persons, gallery: Persons, protocol: str, distractor: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns which gallery images are ranked for each query, and which of them show the person, bool [q, g].

    Junk is left out, as are images of the person by the query's own camera. `cc` leaves out images of the person in the
    clothes of the query, too, `sc` those in other clothes; where clothes are unknown both do.

    Args:
        queries: Queries.
        gallery: Gallery.
        protocol: `""`, `cc` or `sc`.
        distractor: Identity of images that show none of the persons.
    """
    same = (queries.pid[:, None] == gallery.pid[None, :]) & (queries.pid[:, None] != JUNK)
    if distractor is not None:
        same &= queries.pid[:, None] != distractor
    known = (queries.camera[:, None] != UNKNOWN) & (gallery.camera[None, :] != UNKNOWN)
    left_out = same & known & (queries.camera[:, None] == gallery.camera[None, :])
    if protocol:
        dressed = (queries.clothes[:, None] != UNKNOWN) & (gallery.clothes[None, :] != UNKNOWN)
        alike = queries.clothes[:, None] == gallery.clothes[None, :]
        wanted = dressed & (~alike if protocol == "cc" else alike)
        left_out |= same & ~wanted
    ranked = ~left_out & (gallery.pid != JUNK)[None, :]
    return ranked, same & ranked


def ranking_scores(distances: np.ndarray, ranked: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns average precision and rank of the first hit for each query that has a relevant image.

    AP = (1 / R) * sum over relevant ranks r of precision at r. Images at equal distance keep the order of the gallery.

    Args:
        distances: [queries, gallery].
        ranked: Which gallery images are ranked, bool, the same shape.
        relevant: Which of them are right, bool, the same shape.

    Returns:
        AP float64 [valid queries] and rank from 1, int [valid queries].
    """
    precisions, firsts = [], []
    for row, among, right in zip(distances, ranked, relevant, strict=True):
        if not right.any():
            continue
        order = np.argsort(row[among], kind="stable")
        places = np.flatnonzero(right[among][order]) + 1
        precisions.append(np.mean(np.arange(1, len(places) + 1) / places))
        firsts.append(places[0])
    return np.array(precisions), np.array(firsts, np.int64)


def retrieval_metrics(
    queries: Persons,
    gallery: Persons,
    *,
    protocols: tuple[str, ...] = PROTOCOLS,
    distractor: int | None = None,
    distance: Distance = cosine_distance,
    trials: int = 0,
) -> dict[str, float]:
    """Returns `map`, `rank_1`, `rank_5`, `rank_10` and, behind `cc_` and `sc_`, those of the other protocols.

    Queries without a relevant image are left out; metrics without any query are NaN.

    Args:
        queries: Queries; junk and distractors have no relevant image.
        gallery: Gallery, in the order that decides between equal distances.
        protocols: Which to measure by.
        distractor: See `kept`.
        distance: How images are compared.
        trials: Take the mean over so many random galleries of one image for each identity, see `single_shot`; 0 = take
            the whole gallery.
    """
    names = [_name(protocol, metric) for protocol in protocols for metric in ("map", *(f"rank_{k}" for k in RANKS))]
    if not len(queries) or not len(gallery):
        return dict.fromkeys(names, float("nan"))
    galleries = single_shot(gallery, trials, distractor) if trials else iter([gallery])
    found = [_measured(queries, each, protocols, distractor, distance) for each in galleries]
    return {name: float(np.mean([each[name] for each in found])) for name in names}


def _measured(
    queries: Persons, gallery: Persons, protocols: tuple[str, ...], distractor: int | None, distance: Distance
) -> dict[str, float]:
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {protocol: [] for protocol in protocols}
    # Re-ranking looks at all queries together.
    whole = None if distance is cosine_distance else distance(queries.vectors, gallery.vectors)
    for start in range(0, len(queries), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(queries)))
        block = queries.take(rows)
        found = distance(block.vectors, gallery.vectors) if whole is None else whole[rows]
        for protocol in protocols:
            parts[protocol].append(ranking_scores(found, *kept(block, gallery, protocol, distractor)))
    result = {}
    for protocol, scores in parts.items():
        precisions, firsts = (np.concatenate(each) for each in zip(*scores, strict=True))
        result[_name(protocol, "map")] = _mean(precisions)
        result |= {_name(protocol, f"rank_{k}"): _mean(firsts <= k) for k in RANKS}
    return result


def _name(protocol: str, metric: str) -> str:
    return f"{protocol}_{metric}" if protocol else metric


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def single_shot(gallery: Persons, trials: int, distractor: int | None) -> Iterator[Persons]:
    """Yields random galleries of one image for each identity; junk is left out, distractors all stay."""
    persons = [pid for pid in np.unique(gallery.pid) if pid not in (JUNK, distractor)]
    others = np.flatnonzero(gallery.pid == distractor) if distractor is not None else np.zeros(0, np.int64)
    rows_of = [np.flatnonzero(gallery.pid == pid) for pid in persons]
    for trial in range(trials):
        random = np.random.Generator(np.random.PCG64(trial))
        yield gallery.take(np.sort(np.concatenate([others, [random.choice(rows) for rows in rows_of]]).astype(int)))


def nearest(distances: np.ndarray, count: int) -> np.ndarray:
    """Returns the numbers of the `count` nearest of each row, of equal ones the first, int [rows, count]."""
    return np.argsort(distances, axis=1, kind="stable")[:, :count]
