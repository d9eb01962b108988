"""Random parts, mirror images and colours of training pairs."""

from __future__ import annotations

import tensorflow as tf

from appzoo.stereo_matching.config import StereoAugmentConfig
from appzoo.stereo_matching.inputs import inside
from easytransfer.image.joint import Geometry, crop, flip
from easytransfer.layers.draws import RowDraws
from easytransfer.train.task import Batch


class StereoAugmentation:
    """Makes of pairs what losses and network see.

    Reference for mirroring with exchange, and for colours that only the network sees: Chen et al., Pseudo-Stereo for
    Monocular 3D Object Detection, and its training code; the ranges are settings.

    Args:
        settings: What is changed.
        whole: Height and width of the pairs as they are stored.
        part: Height and width of what is taken of them.
    """

    def __init__(self, settings: StereoAugmentConfig, whole: tuple[int, int], part: tuple[int, int]) -> None:
        self.settings, self.whole, self.part = settings, whole, part

    def __call__(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns `left`, `right` float32 from 0 to 1, `left_view`, `right_view` with other colours, and `inside`.

        Args:
            batch: `left`, `right` uint8 [batch, height, width, 3] and `size`, as `StereoInput` makes them.
            draws: Source of the random numbers.
        """
        pixels = inside(batch["size"], self.whole)
        images = [batch["left"], batch["right"]]
        change = self._geometry(batch["size"], draws)
        if change is not None:
            images = [change.image(image, method="nearest") for image in images]
            pixels = change.labels(tf.cast(pixels, tf.uint8), 0) > 0
            mirrored = change.mirrored[:, None, None, None]
            # Mirrored pairs have the eyes exchanged: what was on the right of the other image is now on its left.
            images = [tf.where(mirrored, images[1 - side], images[side]) for side in (0, 1)]
        left, right = (tf.cast(image, tf.float32) / 255 for image in images)
        left_view, right_view = self._recoloured(left, right, draws)
        found = {"left": left, "right": right, "left_view": left_view, "right_view": right_view, "inside": pixels}
        return {**found, "example_weight": batch["example_weight"]}

    def _geometry(self, size: tf.Tensor, draws: RowDraws) -> Geometry | None:
        """Returns the part that is taken, of the pair and not of what is filled up where that is possible."""
        change = None
        if self.part != self.whole:
            places = tf.maximum(size - tf.constant(self.part) + 1, 1)
            numbers = tf.cast(tf.floor(draws.uniform(2) * tf.cast(places, tf.float32)), tf.int32)
            numbers = tf.minimum(numbers, places - 1)
            top = self.whole[0] - tf.maximum(size[:, 0], self.part[0]) + numbers[:, 0]
            change = crop(top, numbers[:, 1], self.whole, self.part)
        if self.settings.swap_flip:
            mirror = flip(draws.uniform(1)[:, 0] < 0.5, self.part)
            change = mirror if change is None else change.then(mirror)
        return change

    def _recoloured(self, left: tf.Tensor, right: tf.Tensor, draws: RowDraws) -> tuple[tf.Tensor, tf.Tensor]:
        settings = self.settings
        if not (settings.brightness or settings.contrast or settings.image_jitter):
            return left, right
        # Brightness and contrast of the pair, then of each image.
        numbers = 2 * draws.uniform(6) - 1
        ranges = tf.constant([settings.brightness, settings.contrast, *[settings.image_jitter] * 4])
        factors = 1 + numbers * ranges
        each = ((left, 2), (right, 4))
        return tuple(
            _changed(image, factors[:, 0] * factors[:, at], factors[:, 1] * factors[:, at + 1]) for image, at in each
        )


def _changed(image: tf.Tensor, brightness: tf.Tensor, contrast: tf.Tensor) -> tf.Tensor:
    """Returns images multiplied by a brightness, then their distances from their mean by a contrast."""
    bright = image * brightness[:, None, None, None]
    mean = tf.reduce_mean(bright, axis=[1, 2, 3], keepdims=True)
    return tf.clip_by_value((bright - mean) * contrast[:, None, None, None] + mean, 0.0, 1.0)
