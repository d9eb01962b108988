"""What stereo networks are built of: convolutions as their papers have them, cost volume, upsampling, regression."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from easytransfer import keras

# Of batch normalisation, as PyTorch has them, in which the published networks were trained.
_MOMENTUM, _EPSILON = 0.9, 1e-5
_CONVOLUTIONS = {2: keras.layers.Conv2D, 3: keras.layers.Conv3D}


def start_kernel() -> keras.initializers.Initializer:
    """Returns start values of kernels: normal with deviation sqrt(2 / (k * k * ... * filters))."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def _normalisation(name: str) -> keras.layers.BatchNormalization:
    return keras.layers.BatchNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, name=name)


class ConvNorm(keras.layers.Layer):
    """Convolution, batch normalisation and, if wanted, ReLU.

    The image is padded alike on all sides: "same" would pad one side more where the stride is 2.

    Args:
        filters: Channels of the result.
        size: Side of the kernel, odd.
        stride: Step of the kernel.
        dilation: Distance of its values.
        axes: 2 for [batch, height, width, channels], 3 for [batch, disparities, height, width, channels].
        relu: Whether ReLU follows.
        use_bias: Whether the convolution has a bias of its own.
    """

    def __init__(
        self,
        filters: int,
        size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        *,
        axes: int = 2,
        relu: bool = True,
        use_bias: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self._padding = dilation * (size // 2)
        self._strided, self._axes, self._relu = stride > 1, axes, relu
        options = {"dilation_rate": dilation, "use_bias": use_bias, "kernel_initializer": start_kernel()}
        padding = "valid" if self._strided else "same"
        self.conv = _CONVOLUTIONS[axes](filters, size, stride, padding, name="conv", **options)
        self.norm = _normalisation("norm")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the features."""
        if self._strided and self._padding:
            x = tf.pad(x, [[0, 0], *[[self._padding] * 2] * self._axes, [0, 0]])
        x = self.norm(self.conv(x), training=training)
        return tf.nn.relu(x) if self._relu else x


class UpConvNorm(keras.layers.Layer):
    """Transposed 3-D convolution that doubles all three axes, and batch normalisation.

    It is PyTorch's `ConvTranspose3d(3, stride=2, padding=1, output_padding=1)`: without padding the result has one
    plane, row and column more, which are the first.

    Args:
        filters: Channels of the result.
    """

    def __init__(self, filters: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        options = {"use_bias": False, "kernel_initializer": start_kernel()}
        self.conv = keras.layers.Conv3DTranspose(filters, 3, 2, "valid", name="conv", **options)
        self.norm = _normalisation("norm")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns features [batch, 2 * disparities, 2 * height, 2 * width, filters]."""
        return self.norm(self.conv(x)[:, 1:, 1:, 1:], training=training)


class Residual(keras.layers.Layer):
    """Two convolutions added to what they were given; nothing but the addition is at the end.

    Args:
        filters: Channels of the result.
        stride: Step of the first convolution.
        dilation: Distance of the values of both kernels.
        project: Whether what is added goes through a convolution of size 1, as where shapes differ.
        axes: See `ConvNorm`.
        use_bias: See `ConvNorm`.
    """

    def __init__(
        self,
        filters: int,
        stride: int = 1,
        dilation: int = 1,
        *,
        project: bool = False,
        axes: int = 2,
        use_bias: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        options = {"axes": axes, "use_bias": use_bias}
        self.first = ConvNorm(filters, 3, stride, dilation, name="first", **options)
        self.second = ConvNorm(filters, 3, 1, dilation, relu=False, name="second", **options)
        self.project = ConvNorm(filters, 1, stride, relu=False, name="project", **options) if project else None

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the sum."""
        found = self.second(self.first(x, training=training), training=training)
        return found + (x if self.project is None else self.project(x, training=training))


def cost_volume(left: tf.Tensor, right: tf.Tensor, disparities: int) -> tf.Tensor:
    """Returns left features beside right ones for every disparity; zeros where the right ones would lie outside.

    Reference: Chang and Chen, Pyramid Stereo Matching Network (CVPR 2018), section 3.4.

    Args:
        left: Features [batch, height, width, channels].
        right: The same of the right image.
        disparities: How many, from 0 on; at most width.

    Returns:
        [batch, disparities, height, width, 2 * channels].
    """
    width = tf.shape(left)[2]
    planes = []
    for shift in range(disparities):
        joined = tf.concat([left[:, :, shift:], right[:, :, : width - shift]], axis=-1)
        planes.append(tf.pad(joined, [[0, 0], [0, 0], [shift, 0], [0, 0]]))
    volume = tf.stack(planes, axis=1)
    volume.set_shape([None, disparities, *left.shape[1:3], 2 * left.shape[-1]])
    return volume


def interpolation(disparities: int, to: int) -> np.ndarray:
    """Returns the weights [disparities, to] of linear interpolation along an axis whose pixels have centres at halves.

    It is that of `tf.image.resize` and of PyTorch's `interpolate` with `align_corners=False`.
    """
    places = np.maximum((np.arange(to) + 0.5) * disparities / to - 0.5, 0)
    lower = places.astype(int)
    weights = np.zeros((disparities, to), np.float32)
    weights[lower, np.arange(to)] = 1 - (places - lower)
    weights[np.minimum(lower + 1, disparities - 1), np.arange(to)] += places - lower
    return weights


def upsampled_cost(cost: tf.Tensor, disparities: int, size: tf.Tensor) -> tf.Tensor:
    """Returns costs of every disparity and pixel, interpolated trilinearly; the order of axes suits `soft_argmin`.

    Args:
        cost: [batch, fewer disparities, height, width], float32.
        disparities: Of the result.
        size: Height and width of the result.

    Returns:
        [batch, rows, columns, disparities].
    """
    flat = tf.image.resize(tf.transpose(cost, [0, 2, 3, 1]), size)
    return flat @ interpolation(cost.shape[1], disparities)


def soft_argmin(cost: tf.Tensor) -> tf.Tensor:
    """Returns the expected disparity of costs that are larger where a match is better.

    Reference: Kendall et al., End-to-End Learning of Geometry and Context for Deep Stereo Regression (ICCV 2017),
    equation 1, on costs with the other sign.

    Args:
        cost: float32 [batch, height, width, disparities].

    Returns:
        float32 [batch, height, width], from 0 to disparities - 1.
    """
    disparities = tf.range(cost.shape[-1], dtype=cost.dtype)
    return tf.linalg.matvec(tf.nn.softmax(cost), disparities)
