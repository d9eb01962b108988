"""The losses of a batch: as sums and weights, without a mask or with that of a frozen teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from appzoo.stereo_matching.config import LossConfig, OcclusionConfig
from appzoo.stereo_matching.networks import OUTPUT_WEIGHTS
from appzoo.stereo_matching.occlusion import background_filled, occluded
from appzoo.stereo_matching.photometric import photometric, roughness, smaller, warped
from easytransfer.train.step import Loss, Losses

# Of a pixel inside of a pair, interpolated; roundings excepted.
_WHOLLY_INSIDE = 0.999


class Pair(NamedTuple):
    """What losses see of a batch.

    Attributes:
        left: Left images from 0 to 1, float32 [batch, height, width, 3].
        right: Right ones.
        inside: Which pixels are of the pair, bool [batch, height, width].
        rows: Weights of the pairs, float32 [batch].
    """

    left: tf.Tensor
    right: tf.Tensor
    inside: tf.Tensor
    rows: tf.Tensor


class Teaching(NamedTuple):
    """What a teacher says of a batch, without gradient.

    Attributes:
        visible: Weights of the pixels whose photometric loss counts, float32 [batch, height, width].
        hidden: Weights of those that are to have the disparity `wanted`, the same.
        wanted: Disparities in pixels, the same.
    """

    visible: tf.Tensor
    hidden: tf.Tensor
    wanted: tf.Tensor


def in_view(disparity: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
    """Returns which pixels have their place in the right image inside of it, bool [batch, height, width]."""
    disparity = tf.stop_gradient(disparity)
    columns = tf.range(tf.shape(disparity)[2], dtype=tf.float32)
    there = warped(tf.cast(inside, tf.float32)[..., None], disparity)[..., 0]
    return inside & (columns - disparity >= 0) & (there > _WHOLLY_INSIDE)


def hidden_pixels(
    disparity: tf.Tensor, inside: tf.Tensor, settings: OcclusionConfig, jump: float, disparities: int
) -> tf.Tensor:
    """Returns which pixels of the pairs the right eye cannot see, bool [batch, height, width]."""
    # What is filled up is as far away as can be, and hides nothing.
    known = tf.where(inside, disparity, 0.0)
    found = occluded(known, settings.mask_test, jump, disparities, settings.mask_median)
    return inside & (found | ~in_view(known, inside))


def hidden_share(hidden: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
    """Returns the share of the pixels of each pair that are hidden, float32 [batch]."""
    counts = [tf.reduce_sum(tf.cast(x, tf.float32), axis=[1, 2]) for x in (hidden, inside)]
    return tf.math.divide_no_nan(*counts)


def taught(disparity: tf.Tensor, pair: Pair, settings: OcclusionConfig, disparities: int) -> Teaching:
    """Returns what the disparities of a teacher say; pairs with more hidden pixels than allowed are left out.

    Args:
        disparity: Of the teacher, float32 [batch, height, width].
        pair: What it was given.
        settings: How hidden pixels are found.
        disparities: They are below this number.
    """
    hidden = hidden_pixels(disparity, pair.inside, settings, settings.train_jump, disparities)
    used = pair.rows * tf.cast(hidden_share(hidden, pair.inside) <= settings.most_hidden, tf.float32)
    weights = [used[:, None, None] * tf.cast(x, tf.float32) for x in (pair.inside & ~hidden, hidden)]
    wanted = background_filled(disparity, hidden | ~pair.inside)
    return Teaching(*(tf.stop_gradient(x) for x in (*weights, wanted)))


def stereo_losses(
    maps: Sequence[tf.Tensor], pair: Pair, teaching: Teaching | None, loss: LossConfig, fill_weight: float
) -> Losses:
    """Returns the losses of the maps of a network, the last of which counts most.

    `photo`, of visible pixels, and of smaller images `photo_2` for half of the size, `photo_4` and so on; `smooth_x`
    and `smooth_y`; with a teacher `fill`, the distance of hidden pixels from the background. Without one, pixels whose
    place is outside of the right image have no photometric loss; they count in its weight, which may not depend on what
    is predicted.

    Args:
        maps: Disparities, float32 [batch, height, width] each.
        pair: The images.
        teaching: What the teacher says of it.
        loss: Settings.
        fill_weight: Weight of `fill`.
    """
    weighted = list(zip(OUTPUT_WEIGHTS[len(maps)], maps, strict=True))
    found = {}
    for scale in (2**i for i in range(loss.photo_scales)):
        name = "photo" if scale == 1 else f"photo_{scale}"
        found[name] = _photo(weighted, pair, teaching, loss, scale)
    for axis, name in ((2, "smooth_x"), (1, "smooth_y")):
        found[name] = _smoothness(weighted, pair, loss, axis)
    if teaching is not None:
        far = [weight * tf.reduce_sum(teaching.hidden * tf.abs(x - teaching.wanted)) for weight, x in weighted]
        found["fill"] = Loss(fill_weight * tf.add_n(far), tf.reduce_sum(teaching.hidden))
    return found


def _photo(
    weighted: Sequence[tuple[float, tf.Tensor]], pair: Pair, teaching: Teaching | None, loss: LossConfig, scale: int
) -> Loss:
    """Returns the share of the photometric loss of images that are `scale` times smaller.

    The loss of a pixel tells on which side its match is only where that is a pixel or two away, the grain of the
    images; on smaller ones that is several times as far. Reference: Godard et al. (CVPR 2017), section 3.2, who
    compare images of four sizes.

    Each of the smaller pixels counts as much as the mean of what it is of, and not at all where that is partly outside.
    """
    left, right = (smaller(image, scale) for image in (pair.left, pair.right))
    inside = smaller(tf.cast(pair.inside, tf.float32)[..., None], scale)[..., 0] > _WHOLLY_INSIDE
    visible = pair.rows[:, None, None] * tf.cast(pair.inside, tf.float32) if teaching is None else teaching.visible
    counts = tf.cast(inside, tf.float32) * smaller(visible[..., None], scale)[..., 0]
    total = tf.zeros([])
    for weight, disparity in weighted:
        moved = smaller(disparity[..., None], scale)[..., 0] / scale
        each = photometric(warped(right, moved), left, loss.ssim_share)
        seen = tf.cast(in_view(moved, inside), tf.float32) if teaching is None else 1.0
        total += weight * tf.reduce_sum(each * counts * seen)
    return Loss(total / loss.photo_scales, tf.reduce_sum(counts))


def _smoothness(weighted: Sequence[tuple[float, tf.Tensor]], pair: Pair, loss: LossConfig, axis: int) -> Loss:
    """Returns the roughness between the pixels of pairs along an axis, and the number of these neighbours."""
    inside = pair.inside
    both = inside[:, 1:] & inside[:, :-1] if axis == 1 else inside[:, :, 1:] & inside[:, :, :-1]
    neighbours = pair.rows[:, None, None] * tf.cast(both, tf.float32)
    total = tf.zeros([])
    for weight, disparity in weighted:
        if loss.smooth_relative:
            disparity = tf.math.divide_no_nan(disparity, _mean(disparity, inside)[:, None, None])
        total += weight * tf.reduce_sum(neighbours * roughness(disparity, pair.left, axis))
    return Loss(loss.smooth_weight * total, tf.reduce_sum(neighbours))


def _mean(disparity: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
    """Returns the mean disparity of each pair, float32 [batch]."""
    pixels = tf.cast(inside, tf.float32)
    total = tf.reduce_sum(disparity * pixels, axis=[1, 2])
    return tf.math.divide_no_nan(total, tf.reduce_sum(pixels, axis=[1, 2]))
