"""Networks from a rectified pair to the disparity of its left image."""

from __future__ import annotations

import tensorflow as tf

from appzoo.stereo_matching.layers import (
    ConvNorm,
    Residual,
    UpConvNorm,
    cost_volume,
    soft_argmin,
    start_kernel,
    upsampled_cost,
)
from easytransfer import keras

# Channels of ImageNet, on the scale from 0 to 1.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Sides of the averages of the pyramid, on features of a quarter of the image's size.
_POOLS = (8, 16, 32, 64)
# Weights of the losses of the maps of a network in training, by their number.
OUTPUT_WEIGHTS = {1: (1.0,), 3: (0.5, 0.7, 1.0)}


def _after(layers: list[keras.layers.Layer], x: tf.Tensor, training: bool) -> tf.Tensor:
    for layer in layers:
        x = layer(x, training=training)
    return x


class TinyFeatures(keras.layers.Layer):
    """Features of half the size, 16 channels, for tests and small images."""

    scale = 2

    def __init__(self, name: str = "features") -> None:
        super().__init__(name=name)
        first = ConvNorm(16, stride=2, use_bias=True, name="first")
        self.layers = [first, *(Residual(16, use_bias=True, name=f"block_{i}") for i in (1, 2))]

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns features [batch, height / 2, width / 2, 16]."""
        return _after(self.layers, images, training)


class TinyMatching(keras.layers.Layer):
    """Costs of the tiny network from its volume: a convolution, a residual block, a normalisation, a convolution.

    The normalisation gives costs the same spread whatever the random weights before it are.
    """

    def __init__(self, name: str = "matching") -> None:
        super().__init__(name=name)
        options = {"axes": 3, "use_bias": True}
        self.layers = [ConvNorm(16, name="first", **options), Residual(16, name="block", **options)]
        self.spread = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="spread")
        self.cost = keras.layers.Conv3D(1, 3, padding="same", kernel_initializer=start_kernel(), name="cost")

    def call(self, volume: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """Returns one map of costs [batch, disparities, height, width, 1]."""
        return [self.cost(self.spread(_after(self.layers, volume, training), training=training))]


class PyramidFeatures(keras.layers.Layer):
    """Features of a quarter of the size, 32 channels, that know their surroundings.

    Reference: Chang and Chen, Pyramid Stereo Matching Network (CVPR 2018), table 1. Images need 256 rows and columns.
    """

    scale = 4

    def __init__(self, name: str = "features") -> None:
        super().__init__(name=name)
        self.first = [ConvNorm(32, stride=2, name="first_1"), *(ConvNorm(32, name=f"first_{i}") for i in (2, 3))]
        self.first += [Residual(32, name=f"layer1_{i}") for i in range(3)]
        self.raw = [Residual(64, 2 if i == 0 else 1, project=i == 0, name=f"layer2_{i}") for i in range(16)]
        self.skip = [Residual(128, project=i == 0, name=f"layer3_{i}") for i in range(3)]
        self.skip += [Residual(128, dilation=2, name=f"layer4_{i}") for i in range(3)]
        self.pools = [ConvNorm(32, 1, name=f"pool_{side}") for side in _POOLS]
        self.fuse = ConvNorm(128, name="fuse")
        self.last = keras.layers.Conv2D(32, 1, use_bias=False, kernel_initializer=start_kernel(), name="last")

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns features [batch, height / 4, width / 4, 32]."""
        raw = _after(self.raw, _after(self.first, images, training), training)
        skip = _after(self.skip, raw, training)
        size, around = tf.shape(skip)[1:3], [raw, skip]
        for side, layer in zip(_POOLS, self.pools, strict=True):
            pooled = layer(tf.nn.avg_pool2d(skip, side, side, "VALID"), training=training)
            around.append(tf.cast(tf.image.resize(pooled, size), raw.dtype))
        return self.last(self.fuse(tf.concat(around, axis=-1), training=training))


class BasicMatching(keras.layers.Layer):
    """Costs from a volume by residual blocks of 3-D convolutions: the first of the two networks of its paper.

    Reference: Chang and Chen (CVPR 2018), section 3.5, "basic".
    """

    def __init__(self, name: str = "matching") -> None:
        super().__init__(name=name)
        self.first = [ConvNorm(32, axes=3, name=f"dres0_{i}") for i in (1, 2)]
        self.blocks = [Residual(32, axes=3, name=f"dres{i}") for i in (1, 2, 3, 4)]
        self.head = _Head("head")

    def call(self, volume: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """Returns one map of costs [batch, disparities, height, width, 1]."""
        cost = _after([*self.first, *self.blocks], volume, training)
        return [self.head(cost, training=training)]


class HourglassMatching(keras.layers.Layer):
    """Costs from a volume by three hourglasses of 3-D convolutions, with a map of costs behind each in training.

    Reference: Chang and Chen (CVPR 2018), section 3.5, "stacked hourglass".
    """

    def __init__(self, name: str = "matching") -> None:
        super().__init__(name=name)
        self.first = [ConvNorm(32, axes=3, name=f"dres0_{i}") for i in (1, 2)]
        self.first += [Residual(32, axes=3, name="dres1")]
        self.hourglasses = [_Hourglass(f"hourglass_{i}") for i in (1, 2, 3)]
        self.heads = [_Head(f"head_{i}") for i in (1, 2, 3)]

    def call(self, volume: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """Returns three maps of costs [batch, disparities, height, width, 1], each with those before it added."""
        start = _after(self.first, volume, training)
        x, before, behind, first_before, costs = start, None, None, None, []
        for hourglass, head in zip(self.hourglasses, self.heads, strict=True):
            found, down, behind = hourglass(x, before, behind, training=training)
            # The second and the third one are both given what the first one had on its way down.
            before = first_before = down if first_before is None else first_before
            x = found + start
            cost = head(x, training=training)
            costs.append(cost if not costs else cost + costs[-1])
        return costs


class _Head(keras.layers.Layer):
    """One cost for each disparity and pixel."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.first = ConvNorm(32, axes=3, name="first")
        options = {"use_bias": False, "kernel_initializer": start_kernel()}
        self.cost = keras.layers.Conv3D(1, 3, padding="same", name="cost", **options)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.cost(self.first(x, training=training))


class _Hourglass(keras.layers.Layer):
    """Two halvings and two doublings of a volume of 32 channels, connected with those of other hourglasses."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.down_1 = ConvNorm(64, stride=2, axes=3, name="down_1")
        self.side_1 = ConvNorm(64, axes=3, relu=False, name="side_1")
        self.down_2 = ConvNorm(64, stride=2, axes=3, name="down_2")
        self.side_2 = ConvNorm(64, axes=3, name="side_2")
        self.up_1, self.up_2 = UpConvNorm(64, name="up_1"), UpConvNorm(32, name="up_2")

    def call(
        self, x: tf.Tensor, before: tf.Tensor | None, behind: tf.Tensor | None, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the volume, and its halves on the way down and up.

        Args:
            x: [batch, disparities, height, width, 32].
            before: What is added on the way up; the own half of the way down when None.
            behind: What is added on the way down, None = nothing.
            training: Whether normalisation uses the batch.
        """
        down = self.side_1(self.down_1(x, training=training), training=training)
        down = tf.nn.relu(down if behind is None else down + behind)
        deep = self.side_2(self.down_2(down, training=training), training=training)
        up = tf.nn.relu(self.up_1(deep, training=training) + (down if before is None else before))
        return self.up_2(up, training=training), down, up


class StereoNetwork(keras.Model):
    """Features of both images, a volume of both at every disparity, costs, and the expected disparity.

    Args:
        features: Makes features of images, at 1 / `features.scale` of their size.
        matching: Makes maps of costs of a volume, the last of them the best.
        disparities: How many there are, from 0 on: a multiple of 4 * `features.scale` for hourglasses.

    Call arguments:
        left, right: float32 [batch, height, width, 3] from 0 to 1, sides multiples of 16.
        training: Whether normalisation uses the batch, and all maps are returned.

    Returns:
        Disparities of the left image in pixels, a list of float32 [batch, height, width]; the last one counts.

    Example:
        >>> network = build("tiny", disparities=16)
        >>> network(tf.zeros([2, 64, 128, 3]), tf.zeros([2, 64, 128, 3]))[0].shape
        TensorShape([2, 64, 128])
    """

    def __init__(
        self, features: keras.layers.Layer, matching: keras.layers.Layer, disparities: int, name: str = "network"
    ) -> None:
        super().__init__(name=name)
        self.features, self.matching, self.disparities = features, matching, disparities

    def call(self, left: tf.Tensor, right: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """See the class."""
        found = [self.features(_normalised(image), training=training) for image in (left, right)]
        volume = cost_volume(*found, self.disparities // self.features.scale)
        costs = self.matching(volume, training=training)
        size = tf.shape(left)[1:3]
        return [self._disparity(cost, size) for cost in (costs if training else costs[-1:])]

    def _disparity(self, cost: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        return soft_argmin(upsampled_cost(tf.cast(cost[..., 0], tf.float32), self.disparities, size))


def _normalised(images: tf.Tensor) -> tf.Tensor:
    return (images - tf.constant(_MEAN)) / tf.constant(_DEVIATION)


_PARTS = {
    "tiny": (TinyFeatures, TinyMatching),
    "psm_basic": (PyramidFeatures, BasicMatching),
    "psmnet": (PyramidFeatures, HourglassMatching),
}


def build(name: str, disparities: int, as_name: str = "network") -> StereoNetwork:
    """Returns the network `name`: tiny, psm_basic or psmnet, with random weights.

    Args:
        name: Of the network.
        disparities: See `StereoNetwork`.
        as_name: Begins the names of its weights.
    """
    features, matching = _PARTS[name]
    return StereoNetwork(features(), matching(), disparities, as_name)
