"""What changes of the vector of a person when the clothes change."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from appzoo.person_reid.gan.model import ApparelGan
from appzoo.person_reid.network import ReidNetwork, unit_images
from appzoo.person_reid.ranking import JUNK, cosine_distance
from easytransfer.data.encoded import EncodedTable

# Rows that are measured, and images that are drawn at a time.
MOST_ROWS, _ROWS = 2048, 64


def apparel_figures(reid: ReidNetwork, gan: ApparelGan, encoded: EncodedTable) -> dict[str, float]:
    """Returns `invariance_ratio` and `identity_retention` on the first rows of a labelled table (sheet 6).

    Each image is drawn in the outfit of the next one. `invariance_ratio` is the mean distance of the vectors of both
    divided by that to other persons; `identity_retention` the share of drawn persons whose nearest real image, their
    own one left out, shows them.

    Args:
        reid: Network of the features.
        gan: The generator.
        encoded: `image`, `pid`, and `mask` where masks come from a column.
    """
    rows = np.flatnonzero(np.asarray(encoded.columns["pid"][:MOST_ROWS]) != JUNK)
    pids = np.asarray(encoded.columns["pid"])[rows]
    if len(np.unique(pids)) < 2:
        return {"invariance_ratio": float("nan"), "identity_retention": float("nan")}
    real, drawn = _vectors(reid, gan, encoded, rows)
    changed = np.linalg.norm(real - drawn, axis=1).mean()
    others = pids[:, None] != pids[None, :]
    apart = np.sqrt(np.maximum(2 * cosine_distance(real, real), 0))[others].mean()
    distances = cosine_distance(drawn, real)
    np.fill_diagonal(distances, np.inf)
    nearest = pids[distances.argmin(axis=1)] == pids
    findable = (~others).sum(axis=1) > 1
    retained = float(nearest[findable].mean()) if findable.any() else float("nan")
    return {"invariance_ratio": float(changed / apart), "identity_retention": retained}


def _vectors(
    reid: ReidNetwork, gan: ApparelGan, encoded: EncodedTable, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns vectors of images and of the same persons in the outfits of the next ones, [rows, width] each."""
    names = [name for name in ("image", "mask") if name in encoded.columns]

    @tf.function(reduce_retracing=True)
    def embed(batch: dict[str, tf.Tensor], other: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        batch, other = ({**each, "image": unit_images(each["image"])} for each in (batch, other))
        codes = gan.encoder(other["image"], gan.masks(other))
        worn = gan.simulated(batch["image"], gan.masks(batch), codes)
        return reid.embed(batch["image"]), reid.embed(worn)

    following, parts = np.roll(rows, -1), []
    for start in range(0, len(rows), _ROWS):
        chosen = [each[start : start + _ROWS] for each in (rows, following)]
        arrays = [{name: tf.constant(np.asarray(encoded.columns[name][at])) for name in names} for at in chosen]
        parts.append([each.numpy() for each in embed(*arrays)])
    real, drawn = (np.concatenate(each) for each in zip(*parts, strict=True))
    return real, drawn
