"""Where the garments are: from a column of the table, a head that is learnt, or a fixed band."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from appzoo.person_reid.gan.networks import _Layers, garment_of, leaky
from easytransfer.image.size import ImageSize, height_width

# Parts of a map of garments: none, upper, lower.
PARTS = 3
# Rows of the band, as shares of the height, and the columns in its middle, as a share of the width (sheet 3.2).
_UPPER, _LOWER, _COLUMNS = (0.18, 0.55), (0.55, 0.90), 0.6
_WIDTHS = (16, 32, 32)
# Start of the logits inside and outside of the band, which tells the head where garments are to be looked for.
_PRIOR = 2.0
_TINY = 1e-6


def band(size: ImageSize) -> np.ndarray:
    """Returns upper and lower garment as most crops have them: two boxes in the middle, float32 [height, width, 2]."""
    height, width = height_width(size)
    row, column = (np.arange(height) + 0.5) / height, np.abs((np.arange(width) + 0.5) / width - 0.5)
    middle = column < _COLUMNS / 2
    parts = [((row >= low) & (row < high))[:, None] & middle for low, high in (_UPPER, _LOWER)]
    return np.stack(parts, axis=-1).astype(np.float32)


def of_labels(labels: tf.Tensor) -> tf.Tensor:
    """Returns masks float32 [batch, height, width, 2] of maps: 0 none, 1 upper, 2 lower."""
    return tf.stack([tf.cast(labels == part, tf.float32) for part in (1, 2)], axis=-1)


def surest(masks: tf.Tensor) -> tf.Tensor:
    """Returns masks of 0 and 1: every pixel is of its most probable part, without a gradient.

    Args:
        masks: Probabilities of upper and lower garment [batch, height, width, 2].
    """
    parts = tf.concat([1 - garment_of(masks), masks], axis=-1)
    return of_labels(tf.argmax(parts, axis=-1, output_type=tf.int32))


class MaskHead(_Layers):
    """A soft mask of the garments, learnt without labels.

    Of each pixel it says background, upper or lower garment. `penalty` wants regions of one colour each, as Chan and
    Vese do (IEEE TIP 10(2), 2001), a share of the image near the prior, and short outlines; the band decides where to
    begin. Departs from the sheet: garments as what a generator can draw would be the plain background; and what is
    drawn has the `surest` part of every pixel, since a generator reads the own clothes through a mask of 0.7.

    Args:
        size: Of the images.
        seed: Of the start values.

    Call arguments:
        images: float32 from 0 to 1 [batch, height, width, 3].

    Returns:
        Probabilities of upper and lower garment, float32 [batch, height, width, 2].
    """

    def __init__(self, size: ImageSize, seed: int) -> None:
        super().__init__("mask_head", seed)
        self.convs = [self._conv(width, f"conv{number}") for number, width in enumerate(_WIDTHS, 1)]
        self.last = self._conv(3, "parts")
        inside = band(size)
        background = 1 - inside.sum(-1, keepdims=True)
        self._prior = _PRIOR * np.concatenate([background, inside], axis=-1)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """See the class."""
        values = images
        for conv in self.convs:
            values = leaky(conv(values))
        return tf.nn.softmax(self.last(values) + self._prior)[..., 1:]

    def penalty(
        self, images: tf.Tensor, masks: tf.Tensor, area: float, tolerance: float, variation: float
    ) -> tf.Tensor:
        """Returns what masks are to be low in, for each image, [batch].

        Args:
            images: As in the call.
            masks: What the call returned.
            area: Share of an image that garments have.
            tolerance: How much it may differ without a penalty.
            variation: Weight of the length of outlines.
        """
        parts = tf.concat([masks, 1 - garment_of(masks)], axis=-1)
        # Mean colour of each part, [batch, parts, 3].
        totals = tf.reduce_sum(parts, axis=[1, 2])[..., None]
        colours = tf.einsum("bhwp,bhwc->bpc", parts, images) / (totals + _TINY)
        apart = tf.reduce_sum(tf.square(images[:, :, :, None, :] - colours[:, None, None, :, :]), axis=-1)
        spread = tf.reduce_mean(tf.reduce_sum(parts * apart, axis=-1), axis=[1, 2])
        shares = tf.reduce_mean(garment_of(masks), axis=[1, 2, 3])
        off = tf.nn.relu(tf.abs(shares - area) - tolerance)
        steps = [tf.abs(masks[:, 1:] - masks[:, :-1]), tf.abs(masks[:, :, 1:] - masks[:, :, :-1])]
        outline = tf.add_n([tf.reduce_mean(each, axis=[1, 2, 3]) for each in steps])
        return spread + off + variation * outline
