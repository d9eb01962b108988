"""From features to probability maps and to which lanes exist: BUSD, the plain decoder, the existence head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import next_seed
from modelzoo.cnn.keras_builder import layer_seed

# Batch normalisation of the decoder, as released; that of the backbone has 1e-5.
NORM_EPSILON = 1e-3
# Channels behind each block of BUSD, as shares of those in front of the first.
BUSD_SHARES = (1 / 2, 1 / 4, 1 / 8)


class Starts:
    """Start values of layers by name, uniform in +-1 / sqrt(inputs) as PyTorch has them.

    Args:
        seed: Of all of them.
        scope: In front of the names.
    """

    def __init__(self, seed: int, scope: str) -> None:
        self._seed, self._scope = seed, scope

    def uniform(self, inputs: int, name: str) -> keras.initializers.Initializer:
        """Returns start values of weights that add up `inputs` products."""
        bound = inputs**-0.5
        return keras.initializers.RandomUniform(-bound, bound, layer_seed(self._seed, f"{self._scope}/{name}"))

    def conv(self, inputs: int, filters: int, kernel: tuple[int, int], name: str, bias: bool = True) -> Any:
        """Returns a convolution of `inputs` channels that keeps height and width."""
        products = inputs * kernel[0] * kernel[1]
        return keras.layers.Conv2D(
            filters,
            kernel,
            padding="same",
            use_bias=bias,
            kernel_initializer=self.uniform(products, f"{name}/kernel"),
            bias_initializer=self.uniform(products, f"{name}/bias"),
            name=name,
        )

    def dense(self, inputs: int, units: int, name: str) -> Any:
        """Returns a dense layer."""
        return keras.layers.Dense(
            units,
            kernel_initializer=self.uniform(inputs, f"{name}/kernel"),
            bias_initializer=self.uniform(inputs, f"{name}/bias"),
            name=name,
        )


def norm(name: str) -> Any:
    """Returns batch normalisation of the decoder."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=NORM_EPSILON, name=name)


def enlarged(x: tf.Tensor, factor: int) -> tf.Tensor:
    """Returns x [batch, rows, columns, channels] so many times as large, bilinear between centres; float32."""
    # Numbers where they are known: XLA compiles no other sizes.
    rows, columns = (x.shape[axis] or tf.shape(x)[axis] for axis in (1, 2))
    return tf.image.resize(tf.cast(x, tf.float32), (factor * rows, factor * columns), method="bilinear")


class ChannelDropout(keras.layers.Layer):
    """Leaves out whole channels of single images in training and scales the others by 1 / (1 - rate).

    The mask depends on the seed of the step alone, see `easytransfer.layers.dropout`.

    Args:
        rate: Share of the channels left out, in [0, 1).
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns x [batch, height, width, channels], with channels left out in training."""
        if not training or not self.rate:
            return x
        shape = [tf.shape(x)[0], 1, 1, x.shape[-1]]
        kept = tf.random.stateless_uniform(shape, seed=next_seed(), alg="philox") >= self.rate
        return x * (tf.cast(kept, x.dtype) / tf.cast(1 - self.rate, x.dtype))


class NonBottleneck1D(keras.layers.Layer):
    """ReLU(x + norm(conv1x3(ReLU(conv3x1(ReLU(norm(conv1x3(ReLU(conv3x1 x)))))))) (sheet 2.3).

    Args:
        channels: Of x.
        seed: Of the start values.
    """

    def __init__(self, channels: int, seed: int, name: str) -> None:
        super().__init__(name=name)
        starts = Starts(seed, name)
        self.conv3x1_1, self.conv3x1_2 = (
            starts.conv(channels, channels, (3, 1), f"conv3x1_{number}") for number in (1, 2)
        )
        self.conv1x3_1, self.conv1x3_2 = (
            starts.conv(channels, channels, (1, 3), f"conv1x3_{number}") for number in (1, 2)
        )
        self.norm1, self.norm2 = norm("norm1"), norm("norm2")

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns the shape of x."""
        y = self.conv1x3_1(tf.nn.relu(self.conv3x1_1(x)))
        y = tf.nn.relu(self.norm1(y, training=training))
        y = self.conv1x3_2(tf.nn.relu(self.conv3x1_2(y)))
        return tf.nn.relu(x + self.norm2(y, training=training))


class BusdBlock(keras.layers.Layer):
    """Doubles a feature map: a fine branch that learns details beside a coarse one that is interpolated (sheet 2.3).

    Args:
        inputs: Channels that come in.
        filters: Channels that go out.
        seed: Of the start values.
    """

    def __init__(self, inputs: int, filters: int, seed: int, name: str) -> None:
        super().__init__(name=name)
        starts = Starts(seed, name)
        # As PyTorch counts them, by the channels that go out.
        products = filters * 9
        self.up = keras.layers.Conv2DTranspose(
            filters,
            3,
            strides=2,
            padding="valid",
            kernel_initializer=starts.uniform(products, "up/kernel"),
            bias_initializer=starts.uniform(products, "up/bias"),
            name="up",
        )
        self.up_norm = norm("up_norm")
        self.fine = [NonBottleneck1D(filters, seed, f"{name}_fine{number}") for number in (1, 2)]
        self.coarse = starts.conv(inputs, filters, (1, 1), "coarse", bias=False)
        self.coarse_norm = norm("coarse_norm")

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns [batch, 2 rows, 2 columns, filters]."""
        # PyTorch's padding 1 and output padding 1: all but the first row and column of the unpadded result.
        fine = tf.nn.relu(self.up_norm(self.up(x)[:, 1:, 1:], training=training))
        for layer in self.fine:
            fine = layer(fine, training=training)
        coarse = tf.nn.relu(self.coarse_norm(self.coarse(x), training=training))
        return fine + tf.cast(enlarged(coarse, 2), fine.dtype)


class BusdDecoder(keras.layers.Layer):
    """Bilateral up-sampling decoder: three blocks and a 1x1 convolution without bias (Zheng et al., section 3.3).

    Args:
        channels: Of the features; 128 become 64, 32 and 16.
        classes: Of the maps.
        seed: Of the start values.

    Call arguments:
        x: Features [batch, height / 8, width / 8, channels].

    Returns:
        Logits [batch, height, width, classes].
    """

    def __init__(self, channels: int, classes: int, seed: int, widths: Sequence[int] | None = None) -> None:
        super().__init__(name="decoder")
        widths = widths or [int(channels * share) for share in BUSD_SHARES]
        before = [channels, *widths]
        self.blocks = [
            BusdBlock(inputs, filters, seed, f"block{number}")
            for number, (inputs, filters) in enumerate(zip(before, widths, strict=False), 1)
        ]
        self.logits = Starts(seed, "decoder").conv(widths[-1], classes, (1, 1), "logits", bias=False)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """See the class."""
        for block in self.blocks:
            x = block(x, training=training)
        return self.logits(x)


class PlainDecoder(keras.layers.Layer):
    """Dropout of channels, a 1x1 convolution, and the maps made eight times larger (sheet 2.4).

    Args:
        channels: Of the features.
        classes: Of the maps.
        rate: Of the dropout.
        factor: How much larger the maps become.
        seed: Of the start values.

    Call arguments:
        x: Features [batch, rows, columns, channels].

    Returns:
        Logits [batch, factor rows, factor columns, classes], float32.
    """

    def __init__(self, channels: int, classes: int, rate: float, factor: int, seed: int) -> None:
        super().__init__(name="decoder")
        self.dropout, self.factor = ChannelDropout(rate), factor
        self.logits = Starts(seed, "decoder").conv(channels, classes, (1, 1), "logits")

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """See the class."""
        return enlarged(self.logits(self.dropout(x, training=training)), self.factor)


class ExistHead(keras.layers.Layer):
    """Which slots have a lane: small class maps, averaged over 2x2 and flattened, and two dense layers (sheet 2.5).

    Args:
        channels: Of the features.
        size: Height and width of the features, even.
        classes: Background and slots.
        units: Of the first dense layer.
        rate: Of the dropout of channels.
        seed: Of the start values.

    Call arguments:
        x: Features [batch, rows, columns, channels] of the size given.

    Returns:
        Logits [batch, classes - 1].
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int, units: int, rate: float, seed: int) -> None:
        super().__init__(name="exist")
        starts, flat = Starts(seed, "exist"), classes * (size[0] // 2) * (size[1] // 2)
        self.dropout = ChannelDropout(rate)
        self.maps = starts.conv(channels, classes, (1, 1), "maps")
        self.dense, self.logits = starts.dense(flat, units, "dense"), starts.dense(units, classes - 1, "logits")
        self.flat = flat

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """See the class."""
        maps = tf.nn.softmax(tf.cast(self.maps(self.dropout(x, training=training)), tf.float32))
        small = tf.nn.avg_pool2d(maps, 2, 2, "VALID")
        # Class by class, as the released weights have them.
        flat = tf.reshape(tf.transpose(small, [0, 3, 1, 2]), [-1, self.flat])
        return self.logits(tf.nn.relu(self.dense(flat)))
