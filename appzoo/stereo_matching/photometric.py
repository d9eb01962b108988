"""Losses without ground truth: how well the right image, moved by the disparities, looks like the left one."""

from __future__ import annotations

import tensorflow as tf

# Of the structural similarity, for images from 0 to 1.
_C1, _C2 = 0.01**2, 0.03**2


def warped(images: tf.Tensor, disparity: tf.Tensor) -> tf.Tensor:
    """Returns the right image as the left eye would see it: at (x, y) what it has at (x - disparity, y).

    Values between pixels are interpolated linearly, those from outside are the border's. Gradients go to the disparity
    and not to the images.

    Args:
        images: Of the right eye, float32 [batch, height, width, channels].
        disparity: In pixels, float32 [batch, height, width].
    """
    images, width = tf.stop_gradient(images), tf.shape(images)[2]
    columns = tf.range(width)
    place = tf.clip_by_value(tf.cast(columns, tf.float32) - disparity, 0.0, tf.cast(width - 1, tf.float32))
    left = tf.floor(place)
    share = (place - left)[..., None]
    lower = tf.cast(left, tf.int32)
    upper = tf.minimum(lower + 1, width - 1)
    values = [tf.gather(images, index, axis=2, batch_dims=2) for index in (lower, upper)]
    return (1 - share) * values[0] + share * values[1]


def _mean_3x3(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.avg_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT"), 3, 1, "VALID")


def structural_similarity(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns the similarity of every pixel's surroundings of 3 x 3 pixels, 1 where they are equal.

    Reference: Wang et al., Image Quality Assessment, IEEE Transactions on Image Processing 13(4), 2004, equation 13,
    with plain means in place of a Gaussian window. The border is mirrored, so that the size stays.

    Args:
        one: From 0 to 1, float32 [batch, height, width, channels].
        other: The same.
    """
    a, b = _mean_3x3(one), _mean_3x3(other)
    variance_a, variance_b = _mean_3x3(one * one) - a * a, _mean_3x3(other * other) - b * b
    covariance = _mean_3x3(one * other) - a * b
    above = (2 * a * b + _C1) * (2 * covariance + _C2)
    return above / ((a * a + b * b + _C1) * (variance_a + variance_b + _C2))


def photometric(one: tf.Tensor, other: tf.Tensor, ssim_share: float = 0.85) -> tf.Tensor:
    """Returns how much images differ at every pixel, [batch, height, width], from 0 to 1.

    Reference: Godard et al., Unsupervised Monocular Depth Estimation with Left-Right Consistency (CVPR 2017),
    equation 2.

    Args:
        one: From 0 to 1, float32 [batch, height, width, channels].
        other: The same.
        ssim_share: Weight of the structural dissimilarity; the rest is that of the absolute difference.
    """
    dissimilar = tf.clip_by_value((1 - structural_similarity(one, other)) / 2, 0.0, 1.0)
    return tf.reduce_mean(ssim_share * dissimilar + (1 - ssim_share) * tf.abs(one - other), axis=-1)


def smaller(x: tf.Tensor, scale: int) -> tf.Tensor:
    """Returns the means of squares of `scale` x `scale` pixels, [batch, height / scale, width / scale, channels].

    Args:
        x: float32 [batch, height, width, channels], sides multiples of `scale`.
        scale: Side of the squares, in pixels.
    """
    return tf.nn.avg_pool2d(x, scale, scale, "VALID") if scale > 1 else x


def differences(x: tf.Tensor, axis: int) -> tf.Tensor:
    """Returns what each value, the last one excepted, differs by from the next one along axis 1 or 2."""
    return x[:, 1:] - x[:, :-1] if axis == 1 else x[:, :, 1:] - x[:, :, :-1]


def roughness(disparity: tf.Tensor, images: tf.Tensor, axis: int) -> tf.Tensor:
    """Returns how much disparities change from pixel to pixel, less where the image has an edge.

    Reference: Godard et al. (CVPR 2017), equation 3.

    Args:
        disparity: float32 [batch, height, width].
        images: Of the same eye, float32 [batch, height, width, channels].
        axis: 1 for changes downwards, 2 for changes to the right.

    Returns:
        The disparity's shape with one less along `axis`.
    """
    edges = tf.reduce_mean(tf.abs(differences(images, axis)), axis=-1)
    return tf.abs(differences(disparity, axis)) * tf.exp(-edges)
