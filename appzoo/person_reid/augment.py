"""Random changes of person crops: a mirror and a shifted crop, alike for maps; erasing; colours as a control."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from appzoo.person_reid.config import CropSettings, ReidSettings
from appzoo.person_reid.network import unit_images
from easytransfer.image.joint import Geometry, random_crop, random_flip
from easytransfer.image.patches import random_erase
from easytransfer.image.size import height_width
from easytransfer.layers.draws import RowDraws

# Red, green and blue to luminance and two axes of colour (NTSC's YIQ), in which hue is an angle.
_YIQ = np.float32([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
# Strongest changes of saturation and brightness.
_SATURATION, _BRIGHTNESS = 0.8, 0.5


def random_move(draws: RowDraws, settings: CropSettings) -> Geometry:
    """Returns the move of each image: half of them are mirrored, then a crop of the old size is taken.

    Of `change.image` take method="nearest": whole pixels are moved, so nothing is to be interpolated.
    """
    size = height_width(settings.image_size)
    change = random_flip(draws, size, probability=0.5 if settings.flip else 0.0)
    return change.then(random_crop(draws, size, size, padding=settings.crop_padding))


def erased(images: tf.Tensor, draws: RowDraws, settings: ReidSettings) -> tf.Tensor:
    """Returns images of which a share has a random rectangle filled.

    Its colour is the one that the channels' mean is made of by normalisation: what the released baseline writes behind
    it (sheet 2.3, 10.3).

    Args:
        images: uint8, or float32 from 0 to 1, [batch, height, width, 3].
        draws: Source of the random numbers.
        settings: How many, and how large.

    Returns:
        float32 from 0 to 1.
    """
    mean, std = np.float32(settings.mean), np.float32(settings.std)
    fill = (mean * std + mean).tolist()
    areas, aspects = settings.erase_area, settings.erase_aspect
    return random_erase(unit_images(images), draws, settings.erase_probability, areas, aspects, fill)


def jittered(images: tf.Tensor, draws: RowDraws, strength: float) -> tf.Tensor:
    """Returns images whose hue, saturation and brightness are changed as a whole, the background's too.

    Args:
        images: uint8, or float32 from 0 to 1, [batch, height, width, 3].
        draws: Source of the random numbers; three a row are taken.
        strength: 1 takes any hue, saturation from 0.2 to 1.8 and brightness from 0.5 to 1.5 times its own.

    Returns:
        float32 from 0 to 1.
    """
    signs = 2 * draws.uniform(3) - 1
    angle = signs[:, 0] * strength * math.pi
    colour = 1 + signs[:, 1] * strength * _SATURATION
    light = 1 + signs[:, 2] * strength * _BRIGHTNESS
    none, cos, sin = tf.zeros_like(angle), colour * tf.cos(angle), colour * tf.sin(angle)
    turn = tf.stack([tf.ones_like(angle), none, none, none, cos, -sin, none, sin, cos], axis=1)
    change = tf.linalg.inv(_YIQ) @ (tf.reshape(turn, [-1, 3, 3]) * light[:, None, None]) @ _YIQ
    return tf.clip_by_value(tf.einsum("bij,bhwj->bhwi", change, unit_images(images)), 0.0, 1.0)
