"""Layers of image networks that Keras lacks: random branches with seeds that a resumed run repeats, and two shifts."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import next_seed


def _per_image(x: tf.Tensor, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """Returns uniform numbers in [low, high), one per image: float32 [batch, 1, 1, 1]."""
    shape = tf.concat([tf.shape(x)[:1], tf.ones([tf.rank(x) - 1], tf.int32)], 0)
    return tf.random.stateless_uniform(shape, seed=next_seed(), minval=low, maxval=high, alg="philox")


def _forward_backward(x: tf.Tensor, forward: tf.Tensor, backward: tf.Tensor) -> tf.Tensor:
    """Returns `x * forward`, whose gradient is that of `x * backward`."""
    forward, backward = tf.cast(forward, x.dtype), tf.cast(backward, x.dtype)
    return x * backward + tf.stop_gradient(x * (forward - backward))


class _WithRate(keras.layers.Layer):
    """Layer with a probability.

    Args:
        rate: Probability, in [0, 1).
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be in [0, 1), got {rate}")
        self.rate = float(rate)

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the layer."""
        return {**super().get_config(), "rate": self.rate}


@keras.utils.register_keras_serializable(package="easytransfer")
class StochasticDepth(_WithRate):
    """Sets whole images to zero with probability `rate` in training, scales the others by 1 / (1 - rate).

    Huang et al. 2016, arXiv 1603.09382, scaled in training instead of in prediction. The shape does not change.

    Example:
        >>> StochasticDepth(0.2)(tf.ones([4, 8, 8, 3]), training=True)
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """See the class."""
        if not training or self.rate == 0:
            return inputs
        keep = tf.cast(_per_image(inputs) >= self.rate, tf.float32) / (1 - self.rate)
        return inputs * tf.cast(keep, inputs.dtype)


@keras.utils.register_keras_serializable(package="easytransfer")
class ShakeDrop(_WithRate):
    """Disturbs a residual branch in training (Yamada et al. 2019, arXiv 1802.02375, equation 6), one draw per image.

    With gate b, 0 at probability `rate`, the branch is multiplied by b + alpha - b alpha, alpha uniform in [-1, 1), and
    its gradient by b + beta - b beta, beta uniform in [0, 1). In prediction it is multiplied by the mean, 1 - rate.

    Args:
        rate: Probability of a disturbed image, in [0, 1).

    Example:
        >>> ShakeDrop(0.5)(tf.ones([4, 8, 8, 3]), training=False)
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """See the class."""
        if self.rate == 0:
            return inputs
        if not training:
            return inputs * tf.cast(1 - self.rate, inputs.dtype)
        gate = tf.cast(_per_image(inputs) >= self.rate, tf.float32)
        alpha, beta = _per_image(inputs, -1.0), _per_image(inputs)
        return _forward_backward(inputs, gate + alpha - gate * alpha, gate + beta - gate * beta)


@keras.utils.register_keras_serializable(package="easytransfer")
class ShakeShake(keras.layers.Layer):
    """Mixes two branches (Gastaldi 2017, arXiv 1705.07485, section 1.2), one draw per image.

    In training alpha x + (1 - alpha) y, with gradients by another beta; both are uniform in [0, 1). Else (x + y) / 2.

    Example:
        >>> ShakeShake()([tf.ones([4, 8, 8, 3]), tf.zeros([4, 8, 8, 3])], training=False)
    """

    def call(self, inputs: list[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """See the class."""
        x, y = inputs
        if not training:
            return (x + y) / 2
        alpha, beta = _per_image(x), _per_image(x)
        return _forward_backward(x, alpha, beta) + _forward_backward(y, 1 - alpha, 1 - beta)


@keras.utils.register_keras_serializable(package="easytransfer")
class PadChannels(keras.layers.Layer):
    """Adds zeros behind the channels: [batch, height, width, channels] to [batch, height, width, `width`].

    Args:
        width: Channels afterwards, not fewer than before.
    """

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = int(width)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return tf.pad(inputs, [[0, 0], [0, 0], [0, 0], [0, self.width - inputs.shape[-1]]])

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the layer."""
        return {**super().get_config(), "width": self.width}


@keras.utils.register_keras_serializable(package="easytransfer")
class Shifted(keras.layers.Layer):
    """Moves images up and left by `shift` pixels, zeros behind, and keeps every `stride`-th row and column.

    Args:
        shift: Pixels.
        stride: Step.
    """

    def __init__(self, shift: int, stride: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shift, self.stride = int(shift), int(stride)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """See the class."""
        moved = tf.pad(inputs, [[0, 0], [0, self.shift], [0, self.shift], [0, 0]])[:, self.shift :, self.shift :]
        return moved[:, :: self.stride, :: self.stride]

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the layer."""
        return {**super().get_config(), "shift": self.shift, "stride": self.stride}
