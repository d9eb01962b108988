"""How typical rows are of their class, in their own domain and in the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Rows whose features are looked at together.
_BLOCK = 8192


def typicality(features: np.ndarray, classes: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """Returns the weight of every row, float32 [rows], at least 0.

    With the centroid c_dy of the features of domain d and class y, a row of features h has

        w = 1/2 (cos(h, c_dy) + cos(h, mean of c_d'y over the other domains d' that have the class))

    and cos(h, c_dy) alone where no other domain has the class (Wang et al. 2020, arXiv 2003.13003, section 3.2, with
    all domains weighing alike). A negative weight, by which a row would be unlearnt, is 0.

    Args:
        features: h, [rows, width]; read in blocks, so that it may be on disk.
        classes: y, int [rows].
        domains: d, int [rows].
    """
    weights = np.zeros(len(classes), np.float32)
    if not len(classes):
        return weights
    shape = int(domains.max()) + 1, int(classes.max()) + 1
    sums, counts = np.zeros((*shape, features.shape[1])), np.zeros(shape)
    for rows in _blocks(len(classes)):
        np.add.at(sums, (domains[rows], classes[rows]), features[rows].astype(np.float64))
        np.add.at(counts, (domains[rows], classes[rows]), 1.0)
    own = sums / np.maximum(counts, 1)[:, :, None]
    # Of centroids that are not there the sum is 0, too.
    others = (counts > 0).sum(axis=0) - (counts > 0)
    other = (own.sum(axis=0) - own) / np.maximum(others, 1)[:, :, None]
    for rows in _blocks(len(classes)):
        h, place = features[rows].astype(np.float64), (domains[rows], classes[rows])
        first, second = _cosine(h, own[place]), _cosine(h, other[place])
        weights[rows] = np.maximum(np.where(others[place] > 0, (first + second) / 2, first), 0)
    return weights


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, rows)) for start in range(0, rows, _BLOCK))


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the cosine of each row of a and b, 0 where one of them is 0."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0)
