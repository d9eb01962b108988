"""Re-ranking by k-reciprocal neighbours.

Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, arXiv 1701.08398.
"""

from __future__ import annotations

import numpy as np

from appzoo.person_reid.ranking import cosine_distance, nearest
from easytransfer.errors import ConfigError

# Share of a neighbour's own reciprocal set that must be in that of the image for it to be taken over (equation 5).
_SHARED = 2 / 3


class Reranking:
    """A distance of queries and gallery that looks at whose neighbours the neighbours of an image are.

    The first distance is 1 - cosine, divided by the largest of each image. Departs from the paper, as its released code
    does: averaging over k2 neighbours counts the image itself as the first.

    Args:
        k1: Neighbours whose sets are compared; at most all other images.
        k2: Neighbours that encodings are averaged over.
        share: lambda, the share of the first distance in the result.
        most_pairs: Pairs of images from which it is refused.

    Call arguments:
        queries: Unit vectors [q, width].
        gallery: Unit vectors [g, width].

    Returns:
        Distances, float64 [q, g].

    Raises:
        ConfigError: There are too many images.
    """

    def __init__(self, k1: int = 20, k2: int = 6, share: float = 0.3, most_pairs: int = 900_000_000) -> None:
        self.k1, self.k2, self.share, self.most_pairs = k1, k2, share, most_pairs

    def __call__(self, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """See the class."""
        count, total = len(queries), len(queries) + len(gallery)
        if total**2 > self.most_pairs:
            raise ConfigError(
                f"re-ranking compares all {total:,} images of queries and gallery with each other",
                accepted=f"retrieval.most_pairs={self.most_pairs:,} pairs",
                fix="set retrieval.rerank=false, or raise retrieval.most_pairs where there is memory for it",
            )
        vectors = np.concatenate([queries, gallery])
        first = cosine_distance(vectors, vectors)
        first = (first / np.maximum(first.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)).astype(np.float32)
        encoded = self._encodings(first)
        jaccard = _jaccard(encoded[:count], encoded[count:])
        return (1 - self.share) * jaccard + self.share * first[:count, count:].astype(np.float64)

    def _encodings(self, distances: np.ndarray) -> np.ndarray:
        """Returns what says which images are neighbours of each, and how near they are, float64 [images, images]."""
        order = nearest(distances, self.k1 + 1)
        encoded = np.zeros(distances.shape, np.float32)
        for image in range(len(distances)):
            members = self._expanded(order, image)
            weights = np.exp(-distances[image, members].astype(np.float64))
            encoded[image, members] = weights / weights.sum()
        if self.k2 == 1:
            return encoded
        return np.stack([encoded[near].mean(axis=0) for near in order[:, : self.k2]])

    def _expanded(self, order: np.ndarray, image: int) -> np.ndarray:
        """Returns the k1-reciprocal neighbours R*, with those that reciprocal neighbours bring (equation 5)."""
        own = _reciprocal(order, image, self.k1)
        found = own
        for neighbour in own:
            others = _reciprocal(order, neighbour, int(np.around(self.k1 / 2)))
            if len(np.intersect1d(others, own)) > _SHARED * len(others):
                found = np.union1d(found, others)
        return found


def _reciprocal(order: np.ndarray, image: int, k: int) -> np.ndarray:
    """Returns the images among the k + 1 nearest of one that have it among their k + 1 nearest (equation 2)."""
    near = order[image, : k + 1]
    return near[(order[near, : k + 1] == image).any(axis=1)]


def _jaccard(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Returns 1 - sum of the smaller / sum of the larger values of two encodings (equation 10), [q, g]."""
    columns = np.ascontiguousarray(gallery.T)
    sums = gallery.sum(axis=1, dtype=np.float64)
    found = np.ones((len(queries), len(gallery)))
    for row, encoding in zip(found, queries, strict=True):
        used = np.flatnonzero(encoding)
        shared = np.minimum(columns[used], encoding[used, None]).sum(axis=0, dtype=np.float64)
        row -= shared / (encoding.sum(dtype=np.float64) + sums - shared)
    return found
