"""Which regions of an image a network has to guess, chosen anew in every step, inside the graph."""

from __future__ import annotations

import tensorflow as tf

from easytransfer.text.hiding import Draws
from easytransfer.train.task import Batch

# Of the regions to guess, so many are shown as zeros and as another region; the others stay as they are.
_ZEROS, _OTHER = 0.8, 0.1
# Behind every number that a draw gives.
_LAST = 2.0


class RegionHider:
    """Hides the features of regions and says which they were; boxes stay.

    Each real region is hidden with a chance of `share`: 80 % become zeros, 10 % take the features of another region
    of the same image, 10 % stay as they are (LXMERT, arXiv 1908.07490, section 3.1.2). With `exactly`, that many of
    each image become zeros instead (FashionBERT, arXiv 2005.09801, section 3.2), all where an image has fewer.

    Departs from LXMERT, which takes the other region from any image: rows of other workers are not here. Where an
    image has one region, it stays as it is.

    Args:
        regions: Regions of an image, K.
        share: Chance of each region.
        exactly: Hidden regions of each image in place of chances.
    """

    def __init__(self, regions: int, share: float = 0.15, exactly: int | None = None) -> None:
        self._regions, self._share, self._exactly = regions, share, exactly

    def hide(self, batch: Batch, draws: Draws) -> Batch:
        """Returns the batch with features hidden.

        Args:
            batch: `features` float32 [batch, K, F] and `region_mask` int32 [batch, K].
            draws: Random numbers of the rows.

        Returns:
            Also `hidden_features`, what was there, and `hidden_regions` float32 [batch, K], 1 for hidden ones.
        """
        features, real = batch["features"], batch["region_mask"] > 0
        keys = tf.where(real, draws.uniform(self._regions), _LAST)
        fate, other = draws.uniform(self._regions), draws.uniform(self._regions)
        if self._exactly is None:
            hidden = keys < self._share
            fate = tf.where(hidden, fate, 1.0)
        else:
            hidden = real & (_ranks(keys) < self._exactly)
            fate = tf.where(hidden, 0.0, 1.0)
        fate = fate[..., tf.newaxis]
        exchanged = tf.where(fate < _ZEROS + _OTHER, _of_others(features, real, other), features)
        shown = tf.where(fate < _ZEROS, 0.0, exchanged)
        weights = tf.cast(hidden, tf.float32)
        return {**batch, "features": shown, "hidden_features": features, "hidden_regions": weights}


def _ranks(keys: tf.Tensor) -> tf.Tensor:
    return tf.argsort(tf.argsort(keys, axis=1, stable=True), axis=1, stable=True)


def _of_others(features: tf.Tensor, real: tf.Tensor, drawn: tf.Tensor) -> tf.Tensor:
    """Returns for each region the features of another real one of its row, its own where there is none."""
    count = tf.reduce_sum(tf.cast(real, tf.int32), axis=1, keepdims=True)
    # The number of each real region among the real ones; the drawn one of the others comes 1 to count - 1 behind it.
    number = tf.cumsum(tf.cast(real, tf.int32), axis=1) - 1
    others = count - 1
    step = 1 + tf.minimum(tf.cast(drawn * tf.cast(others, tf.float32), tf.int32), tf.maximum(others - 1, 0))
    chosen = tf.math.floormod(tf.maximum(number, 0) + tf.where(others > 0, step, 0), tf.maximum(count, 1))
    place = tf.argsort(tf.where(real, 0, 1), axis=1, stable=True)
    return tf.gather(features, tf.gather(place, chosen, batch_dims=1), batch_dims=1)
