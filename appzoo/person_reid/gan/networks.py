"""The players of AS-GAN: cloth encoder, generator with compositing, patch critic (Yu et al., arXiv 2008.06181).

The paper's layouts are not public; these are of our own design, see the README.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from easytransfer import keras
from modelzoo.cnn.keras_builder import layer_seed

GROUPS, _SLOPE = 8, 0.2
# Pixels around which the luminance of a garment is averaged.
_AROUND = 9
_LUMINANCE = np.float32([0.299, 0.587, 0.114])
_TINY = 1e-6


@dataclass(frozen=True)
class GanSize:
    """Channels of the networks.

    Attributes:
        code: Numbers of a cloth code.
        encoder: Of each strided convolution of the encoder.
        stem: Of the generator's first convolution, and of its last but one.
        down: Of its strided convolutions.
        blocks: FiLM blocks at the lowest resolution.
        critic: Of each strided convolution of the critic.
        scales: Resolutions that the critic looks at.
    """

    code: int
    encoder: tuple[int, ...]
    stem: int
    down: tuple[int, int]
    blocks: int
    critic: tuple[int, ...]
    scales: int


SIZES = {
    "full": GanSize(128, (64, 128, 256, 256), 64, (128, 256), 6, (64, 128, 256, 512), 3),
    "tiny": GanSize(16, (16, 32, 48), 24, (32, 48), 2, (24, 32, 48), 1),
}


class _Layers(keras.layers.Layer):
    """Makes layers whose start values depend on the seed and their name alone."""

    def __init__(self, name: str, seed: int) -> None:
        super().__init__(name=name)
        self._start = seed

    def _init(self, name: str) -> keras.initializers.Initializer:
        return keras.initializers.GlorotUniform(layer_seed(self._start, f"{self.name}/{name}"))

    def _conv(self, width: int, name: str, strides: int = 1) -> keras.layers.Conv2D:
        return keras.layers.Conv2D(
            width, 3, strides=strides, padding="same", kernel_initializer=self._init(name), name=name
        )

    def _dense(self, width: int, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(width, kernel_initializer=self._init(name), name=name)


class ClothEncoder(_Layers):
    """Code of the clothes on an image: what the garments look like, and nothing else of it.

    Args:
        size: Channels.
        seed: Of the start values.

    Call arguments:
        images: float32 from 0 to 1 [batch, height, width, 3].
        masks: Upper and lower garment, float32 from 0 to 1 [batch, height, width, 2].

    Returns:
        float32 [batch, code].
    """

    def __init__(self, size: GanSize, seed: int) -> None:
        super().__init__("encoder", seed)
        self.convs = [self._conv(width, f"conv{number}", 2) for number, width in enumerate(size.encoder, 1)]
        self.dense = self._dense(size.code, "code")

    def call(self, images: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
        """See the class."""
        upper, lower = masks[..., :1], masks[..., 1:]
        found = tf.concat([images * (upper + lower), upper - lower], axis=-1)
        for conv in self.convs:
            found = leaky(conv(found))
        return self.dense(tf.reduce_mean(found, axis=[1, 2]))


class Film(_Layers):
    """Feature-wise linear modulation x * (1 + a(e)) + c(e); Perez et al., AAAI 2018, arXiv 1709.07871.

    Args:
        width: Channels.
        name: Name of the layer.
        seed: Of the start values.

    Call arguments:
        values: [batch, height, width, channels].
        codes: e [batch, code].
    """

    def __init__(self, width: int, name: str, seed: int) -> None:
        super().__init__(name, seed)
        self.dense = self._dense(2 * width, "scale_and_shift")

    def call(self, values: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
        """Returns modulated values of the same shape."""
        scale, shift = tf.split(self.dense(codes)[:, None, None, :], 2, axis=-1)
        return values * (1 + scale) + shift


class Generator(_Layers):
    """Draws the garments of an image anew, as a code says, and copies everything else bit by bit.

    It sees the image without garments, their outline and what is left of their shading: the luminance less its mean
    around each pixel. No colour of a garment enters it.

    Args:
        size: Channels.
        shading: What the shading is multiplied with; 0 leaves it out, which hides stripes of the source for sure.
        seed: Of the start values.

    Call arguments:
        images: float32 from 0 to 1 [batch, height, width, 3]; height and width are multiples of 4.
        masks: Upper and lower garment, float32 from 0 to 1 [batch, height, width, 2].
        codes: Of the outfits to wear, [batch, code].

    Returns:
        float32 from 0 to 1, the shape of the images; where both masks are 0, the images themselves.
    """

    def __init__(self, size: GanSize, shading: float, seed: int) -> None:
        super().__init__("generator", seed)
        self.shading = shading
        first, second = size.down
        self.stem = self._conv(size.stem, "stem")
        self.down = [self._conv(first, "down1", 2), self._conv(second, "down2", 2)]
        self.norms = [keras.layers.GroupNormalization(GROUPS, name=f"norm{n}") for n in range(3 + size.blocks)]
        self.films = [Film(second, f"film{n}", seed) for n in range(1, size.blocks + 1)]
        self.blocks = [self._conv(second, f"block{n}") for n in range(1, size.blocks + 1)]
        self.up = [self._conv(first, "up1"), self._conv(size.stem, "up2")]
        self.up_films = [Film(first, "up_film1", seed), Film(size.stem, "up_film2", seed)]
        self.last, self.colours = self._conv(size.stem, "last"), self._conv(3, "colours")

    def call(self, images: tf.Tensor, masks: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
        """See the class."""
        cloth = garment_of(masks)
        drawn = self._draw(self._seen(images, masks, cloth), codes)
        return cloth * drawn + (1 - cloth) * images

    def _seen(self, images: tf.Tensor, masks: tf.Tensor, cloth: tf.Tensor) -> tf.Tensor:
        """Returns the eight channels of the input; the last one is spare."""
        light = tf.reduce_sum(images * _LUMINANCE, axis=-1, keepdims=True)
        total, share = (tf.nn.avg_pool2d(each, _AROUND, 1, "SAME") for each in (light * cloth, cloth))
        shade = self.shading * (light - total / (share + _TINY)) * cloth
        return tf.concat([images * (1 - cloth), shade, masks, 1 - cloth, tf.zeros_like(cloth)], axis=-1)

    def _draw(self, found: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
        norms = iter(self.norms)
        skips = [leaky(next(norms)(self.stem(found)))]
        for conv in self.down:
            skips.append(leaky(next(norms)(conv(skips[-1]))))
        found = skips.pop()
        for film, conv in zip(self.films, self.blocks, strict=True):
            found = found + conv(leaky(film(next(norms)(found), codes)))
        for film, conv in zip(self.up_films, self.up, strict=True):
            larger = tf.repeat(tf.repeat(found, 2, axis=1), 2, axis=2)
            found = leaky(film(conv(tf.concat([larger, skips.pop()], axis=-1)), codes))
        return tf.sigmoid(self.colours(leaky(self.last(found))))


class PatchCritic(_Layers):
    """Says of patches whether they are real, at one or more resolutions; Isola et al., CVPR 2017, arXiv 1611.07004.

    Args:
        size: Channels.
        seed: Of the start values.

    Call arguments:
        images: float32 from 0 to 1 [batch, height, width, 3].

    Returns:
        Scores of patches, one tensor [batch, rows, columns] for each resolution.
    """

    def __init__(self, size: GanSize, seed: int) -> None:
        super().__init__("critic", seed)
        self.scales = []
        for scale in range(size.scales):
            convs = [self._conv(width, f"scale{scale}_conv{n}", 2) for n, width in enumerate(size.critic, 1)]
            self.scales.append([*convs, self._conv(1, f"scale{scale}_score")])

    def call(self, images: tf.Tensor) -> list[tf.Tensor]:
        """See the class."""
        found = []
        for *convs, score in self.scales:
            values = images
            for conv in convs:
                values = leaky(conv(values))
            found.append(score(values)[..., 0])
            images = tf.nn.avg_pool2d(images, 2, 2, "SAME")
        return found


def leaky(values: tf.Tensor) -> tf.Tensor:
    """Returns LeakyReLU of slope 0.2.

    Not `tf.nn.leaky_relu`, with whose gradient the remapper of TensorFlow 2.20 fails and logs an error.
    """
    return tf.maximum(values, _SLOPE * values)


def garment_of(masks: tf.Tensor) -> tf.Tensor:
    """Returns upper and lower garment together, [batch, height, width, 1]."""
    return tf.reduce_sum(masks, axis=-1, keepdims=True)


def mean_scores(scores: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the mean score of the patches of each image, over resolutions too, [batch]."""
    return tf.add_n([tf.reduce_mean(each, axis=[1, 2]) for each in scores]) / len(scores)
