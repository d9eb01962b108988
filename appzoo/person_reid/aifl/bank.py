"""The outfits that persons are dressed in: the codes of those of all training images."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from appzoo.person_reid.gan.model import ApparelGan
from easytransfer import keras
from easytransfer.data.encoded import EncodedTable
from easytransfer.layers.draws import RowDraws

# Images that are encoded at a time.
_ROWS = 256


class OutfitBank(keras.layers.Layer):
    """Codes of outfits, which checkpoints hold, so that a continued run has the same.

    Args:
        outfits: How many.
        code: Numbers of a code.
    """

    def __init__(self, outfits: int, code: int) -> None:
        super().__init__(name="outfits", dtype="float32")
        self.codes = self.add_weight("codes", [outfits, code], initializer="zeros", trainable=False)
        self.built = True

    def fill(self, gan: ApparelGan, train: EncodedTable, rows: np.ndarray) -> None:
        """Encodes the outfits of rows of the training table; no identity is looked at.

        Args:
            gan: Has the encoder.
            train: `image`, and `mask` where masks come from a column.
            rows: Which rows, int [outfits].
        """
        names = [name for name in ("image", "mask") if name in train.columns]
        encode = tf.function(lambda batch: gan(batch)["cloth_embedding"], reduce_retracing=True)
        parts = []
        for start in range(0, len(rows), _ROWS):
            chosen = rows[start : start + _ROWS]
            batch = {name: tf.constant(np.asarray(train.columns[name][chosen])) for name in names}
            parts.append(encode(batch).numpy())
        self.codes.assign(np.concatenate(parts))

    def drawn(self, orders: tf.Tensor, of_outfits: np.ndarray, draws: RowDraws) -> tf.Tensor:
        """Returns a code for each row, each outfit but the row's own equally likely, float32 [rows, code].

        Args:
            orders: Numbers of the rows in the training table, int64 [rows].
            of_outfits: Numbers of the rows that the outfits are of, int64 [outfits], rising.
            draws: Source of the random numbers; one a row is taken.
        """
        others = len(of_outfits) - 1
        # A number just below 1 may round up to the number of outfits when multiplied.
        chosen = tf.minimum(tf.cast(draws.uniform(1)[:, 0] * others, tf.int32), others - 1)
        own = tf.searchsorted(tf.constant(of_outfits), orders)
        return tf.gather(self.codes, chosen + tf.cast(chosen >= own, tf.int32))
