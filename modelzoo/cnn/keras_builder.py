"""Makes Keras layers of a network's description; start values depend only on the seed and the layer's name.

The layers that Keras lacks stand first: random branches with seeds that a resumed run repeats, and two shifts.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import Dropout, next_seed
from modelzoo.cnn.builder import Padding
from modelzoo.cnn.config import CnnConfig

ACTIVATIONS = {"relu": tf.nn.relu, "relu6": tf.nn.relu6, "swish": tf.nn.silu, "sigmoid": tf.nn.sigmoid}


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


def layer_seed(seed: int, name: str) -> int:
    """Returns a seed below 2**31 for the layer of this name."""
    return zlib.crc32(f"{seed}/{name}".encode()) & 0x7FFFFFFF


def conv_start(config: CnnConfig, seed: int, name: str) -> keras.initializers.Initializer:
    """Returns the start values of a convolution: normal, variance 2 / fan (He et al. 2015, arXiv 1502.01852)."""
    mode = config.conv_init.removeprefix("he_")
    return keras.initializers.VarianceScaling(2.0, mode, "untruncated_normal", seed=layer_seed(seed, name))


def dense_start(inputs: int, seed: int, name: str, deviation: float | None) -> keras.initializers.Initializer:
    """Returns the start values of a dense layer: uniform in +-1/sqrt(inputs), or normal when a deviation is given."""
    number = layer_seed(seed, name)
    if deviation is None:
        return keras.initializers.RandomUniform(-(inputs**-0.5), inputs**-0.5, seed=number)
    return keras.initializers.RandomNormal(stddev=deviation, seed=number) if deviation else keras.initializers.Zeros()


def _padded(x: Any, kernel: int, stride: int, padding: Padding) -> tuple[Any, Literal["same", "valid"]]:
    """Pads where Keras does not have the rule; returns the rule that is left to its layer."""
    if padding != "symmetric":
        return x, padding
    # At stride 1 both rules are one, and at other strides Keras' own would pad one side only.
    if stride > 1 and kernel > 1:
        return keras.layers.ZeroPadding2D(kernel // 2)(x), "valid"
    return x, "same"


def variables_by_name(network: keras.Model) -> dict[str, tf.Variable]:
    """Returns all variables of a network by the names they are stored under, such as `stage1_block1_conv1/kernel`."""
    found: dict[str, tf.Variable] = {}
    for variable in network.variables:
        name = variable.name.split(":")[0]
        if name in found:
            # Layers of a foreign SavedModel may share a name; their order is fixed.
            name = f"{name}#{sum(key.split('#')[0] == name for key in found)}"
        found[name] = variable
    return found


@dataclass(frozen=True)
class KerasBuilder:
    """Builder (see `builder.py`) whose tensors are symbolic Keras tensors.

    Attributes:
        config: Start values, batch normalisation.
        seed: Seed of the start values.
    """

    config: CnnConfig
    seed: int

    def conv(
        self,
        x: Any,
        filters: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding: Padding = "symmetric",
        dilation: int = 1,
    ) -> Any:
        """See `Builder`."""
        x, padding = _padded(x, kernel, stride, padding)
        if kernel == 1 and stride > 1:
            # The same numbers, without the strided form, whose gradient in oneDNN writes beyond its memory (TensorFlow
            # 2.20 on CPUs with AVX-512: 57 images of 28 x 28 x 8 to 16 channels end the process).
            x, stride = x[:, ::stride, ::stride], 1
        start = conv_start(self.config, self.seed, name)
        layer = keras.layers.Conv2D(
            filters,
            kernel,
            stride,
            padding,
            dilation_rate=dilation,
            groups=groups,
            use_bias=bias,
            kernel_initializer=start,
            name=name,
        )
        return layer(x)

    def depthwise(self, x: Any, kernel: int, name: str, *, stride: int = 1, padding: Padding = "same") -> Any:
        """See `Builder`."""
        start = conv_start(self.config, self.seed, name)
        x, padding = _padded(x, kernel, stride, padding)
        return keras.layers.DepthwiseConv2D(
            kernel, stride, padding, use_bias=False, depthwise_initializer=start, name=name
        )(x)

    def norm(self, x: Any, name: str, *, last: bool = False) -> Any:
        """See `Builder`."""
        return keras.layers.BatchNormalization(
            momentum=self.config.norm_momentum,
            epsilon=self.config.norm_epsilon,
            gamma_initializer="zeros" if last and self.config.zero_last_gamma else "ones",
            name=name,
        )(x)

    def act(self, x: Any, kind: str) -> Any:
        """See `Builder`."""
        return keras.layers.Activation(ACTIVATIONS[kind])(x)

    def dense(self, x: Any, units: int, name: str) -> Any:
        """See `Builder`."""
        last = name == "logits"
        start = dense_start(x.shape[-1], self.seed, name, self.config.head_deviation if last else None)
        # Logits are float32 in mixed precision too.
        dtype = "float32" if last else None
        return keras.layers.Dense(units, kernel_initializer=start, name=name, dtype=dtype)(x)

    def flatten(self, x: Any) -> Any:
        """See `Builder`."""
        return keras.layers.Flatten()(x)

    def max_pool(self, x: Any, size: int, padding: Padding) -> Any:
        """See `Builder`."""
        if padding == "symmetric":
            # Zeros are no more than any value after a ReLU, which comes before every padded maximum.
            x, padding = keras.layers.ZeroPadding2D(size // 2)(x), "valid"
        return keras.layers.MaxPooling2D(size, 2, padding)(x)

    def mean_pool(self, x: Any, padding: Padding = "same") -> Any:
        """See `Builder`."""
        return keras.layers.AveragePooling2D(2, 2, padding)(x)

    def global_mean(self, x: Any, keep: bool = False) -> Any:
        """See `Builder`."""
        return keras.layers.GlobalAveragePooling2D(keepdims=keep)(x)

    def add(self, x: Any, y: Any) -> Any:
        """See `Builder`."""
        return keras.layers.Add()([x, y])

    def scale(self, x: Any, gate: Any) -> Any:
        """See `Builder`."""
        return keras.layers.Multiply()([x, gate])

    def concat(self, parts: Sequence[Any]) -> Any:
        """See `Builder`."""
        return keras.layers.Concatenate()(list(parts))

    def pad_channels(self, x: Any, width: int) -> Any:
        """See `Builder`."""
        return x if x.shape[-1] == width else PadChannels(width)(x)

    def shifted(self, x: Any, shift: int, stride: int) -> Any:
        """See `Builder`."""
        return Shifted(shift, stride)(x)

    def dropout(self, x: Any, rate: float) -> Any:
        """See `Builder`."""
        return Dropout(rate)(x) if rate else x

    def drop_path(self, x: Any, rate: float) -> Any:
        """See `Builder`."""
        return StochasticDepth(rate)(x) if rate else x

    def shake_drop(self, x: Any, rate: float) -> Any:
        """See `Builder`."""
        return ShakeDrop(rate)(x) if rate else x

    def shake_shake(self, x: Any, y: Any) -> Any:
        """See `Builder`."""
        return ShakeShake()([x, y])

    def channels(self, x: Any) -> int:
        """See `Builder`."""
        return int(x.shape[-1])
