"""The augmentation of a run: settings to operations on a batch, as one or several views of it."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from easytransfer.image.geometry import crop_and_flip
from easytransfer.image.patches import cutout, random_erase
from easytransfer.image.policies import auto_augment, rand_augment
from easytransfer.image.settings import AugmentSettings
from easytransfer.layers.draws import RowDraws


class Augmentation:
    """Random changes of a batch of images, in the graph and for all images at once.

    Mixup is not among them: it changes targets too, see `easytransfer.image.mixing`.

    Args:
        settings: What is done, and how strongly.
        fill: Mean of each channel on the scale from 0 to 1: what is erased becomes 0 after normalisation.

    Example:
        >>> change = Augmentation(AugmentSettings(crop_padding=2), fill=[0.5])
        >>> change(tf.zeros([4, 8, 8, 1], tf.uint8), RowDraws(tf.constant([1, 2]), tf.constant(4))).shape
        TensorShape([4, 8, 8, 1])
    """

    def __init__(self, settings: AugmentSettings, fill: Sequence[float]) -> None:
        self.settings, self.fill = settings, list(fill)

    def __call__(self, images: tf.Tensor, draws: RowDraws) -> tf.Tensor:
        """Returns float32 images from 0 to 1.

        Args:
            images: uint8 [batch, height, width, channels].
            draws: Source of the random numbers.
        """
        chosen = self.settings
        images = crop_and_flip(images, draws, chosen.crop_padding, chosen.horizontal_flip)
        if chosen.policy == "auto_augment":
            images = auto_augment(images, draws)
        elif chosen.policy == "rand_augment":
            images = rand_augment(images, draws, chosen.rand_layers, chosen.rand_magnitude)
        changed = unit_scale(images)
        if chosen.cutout_size:
            changed = cutout(changed, draws, chosen.cutout_size, self.fill)
        if chosen.erase_probability:
            area, aspect = chosen.erase_area, chosen.erase_aspect
            changed = random_erase(changed, draws, chosen.erase_probability, area, aspect, self.fill)
        return changed

    def views(self, images: tf.Tensor, draws: RowDraws, count: int) -> tf.Tensor:
        """Returns changed copies of every image, each on its own: float32 [batch, count, height, width, channels]."""
        return tf.stack([self(images, draws) for _ in range(count)], axis=1)


def unit_scale(images: tf.Tensor) -> tf.Tensor:
    """Returns uint8 images as float32 from 0 to 1."""
    # Graphs multiply where a division by a constant stands, which rounds differently from the division.
    return tf.cast(images, tf.float32) * (1 / 255)
