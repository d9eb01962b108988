"""RESA: slices of a feature map, near and far ones, are added to each other (Zheng et al., AAAI 2021, section 3.2)."""

from __future__ import annotations

import math
from typing import Any, Literal

import tensorflow as tf

from easytransfer import keras
from modelzoo.cnn.keras_builder import layer_seed

# Axis of [batch, height, width, channels] that a direction goes along, and whether slices are taken from behind.
_MOVES = {"d": (1, True), "u": (1, False), "r": (2, True), "l": (2, False)}


def strides(length: int, iterations: int) -> list[int]:
    """Returns how far away the slice is that is added in each iteration: s_k = floor(length / 2^(K - k)).

    Args:
        length: Rows or columns of the feature map.
        iterations: K.

    Raises:
        ValueError: A stride would be 0, a slice added to itself.

    Example:
        >>> strides(46, 5)
        [1, 2, 5, 11, 23]
    """
    if 2**iterations > length:
        raise ValueError(f"{iterations} iterations need {2**iterations} slices, there are {length}: at most "
                         f"{int(math.log2(length))} iterations")  # fmt: skip
    return [length // 2 ** (iterations - k) for k in range(iterations)]


def start_bound(channels: int, width: int, rule: Literal["scnn", "torch"]) -> float:
    """Returns the bound of the uniform start values of a convolution along a slice.

    Args:
        channels: Of the feature map.
        width: Of the kernel.
        rule: `scnn`, sqrt(2 / (5 C width)), with which values grow little; `torch`, 1 / sqrt(C width).
    """
    return math.sqrt(2 / (5 * channels * width)) if rule == "scnn" else 1 / math.sqrt(channels * width)


@keras.utils.register_keras_serializable(package="easytransfer")
class Resa(keras.layers.Layer):
    """X <- X + alpha ReLU(conv(X moved by s_k)), for all directions and for k = 0 to K - 1 in each (sheet 2.2).

    Slices are taken from s_k further down (d), up (u), right (r) or left (l), around the border, and convolved along
    themselves: 1 x width for d and u, width x 1 for r and l. Every direction and iteration has a kernel of its own, no
    bias. The sum is kept in float32 whatever the layer computes in: values may reach thousands.

    Args:
        iterations: K.
        kernel_width: Width of the convolutions, odd.
        alpha: Factor of what is added.
        directions: Their order.
        init: Rule of the start values, see `start_bound`.
        seed: Of the start values.

    Call arguments:
        x: [batch, height, width, channels], at least 2^K rows and columns; any size in every call.

    Returns:
        The same shape.

    Raises:
        ValueError: There are fewer rows or columns.

    Example:
        >>> Resa(iterations=4)(tf.zeros([1, 36, 100, 128])).shape
        TensorShape([1, 36, 100, 128])
    """

    def __init__(
        self,
        iterations: int = 5,
        kernel_width: int = 9,
        alpha: float = 2.0,
        directions: str = "durl",
        init: Literal["scnn", "torch"] = "scnn",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.iterations, self.kernel_width, self.alpha = iterations, kernel_width, alpha
        self.directions, self.init, self.seed = directions, init, seed

    def build(self, shape: tf.TensorShape) -> None:
        """Makes the kernels; sizes that are known are checked."""
        super().build(shape)
        channels, width = shape[-1], self.kernel_width
        for length in filter(None, shape[1:3]):
            strides(length, self.iterations)
        bound = start_bound(channels, width, self.init)
        self.kernels = {}
        for direction in self.directions:
            size = (1, width) if _MOVES[direction][0] == 1 else (width, 1)
            for k in range(self.iterations):
                name = f"{direction}{k}"
                start = keras.initializers.RandomUniform(-bound, bound, layer_seed(self.seed, f"{self.name}/{name}"))
                self.kernels[name] = self.add_weight(
                    f"conv_{name}/kernel", (*size, channels, channels), initializer=start
                )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """See the class."""
        kind, total = x.dtype, tf.cast(x, tf.float32)
        for direction in self.directions:
            axis, behind = _MOVES[direction]
            for k in range(self.iterations):
                moved = _moved(tf.cast(total, kind), axis, self.iterations - k, behind)
                kernel = tf.cast(self.kernels[f"{direction}{k}"], kind)
                added = tf.nn.relu(tf.nn.conv2d(moved, kernel, 1, "SAME"))
                total += self.alpha * tf.cast(added, tf.float32)
        return tf.cast(total, kind)

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the layer."""
        names = ("iterations", "kernel_width", "alpha", "directions", "init", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _moved(x: tf.Tensor, axis: int, halvings: int, behind: bool) -> tf.Tensor:
    """Returns x with slice i + s (`behind`) or i - s at place i, s = length // 2^halvings, around the border."""
    length = x.shape[axis] or tf.shape(x)[axis]
    stride = length // 2**halvings
    first = stride if behind else length - stride
    parts = (x[:, first:], x[:, :first]) if axis == 1 else (x[:, :, first:], x[:, :, :first])
    return tf.concat(parts, axis)
