"""What a network costs: parameters and multiply-accumulates by layer, how long it takes, and published figures.

Counts come from the configuration without TensorFlow, through the same description that builds the network. A
multiply-accumulate (MAC) of a convolution or dense layer counts one, a bias nothing. Papers call this number FLOPs;
those of Divide and Co-training add 2 for each output of a batch normalisation (`macs_with_norms`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from easytransfer.errors import ModelError
from modelzoo.cnn import networks
from modelzoo.cnn.builder import Padding
from modelzoo.cnn.config import CnnConfig

_NORM_COST = 2
_WARM_UP, _RUNS = 10, 50


class Shape(NamedTuple):
    """Size of a tensor without its batch axis."""

    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer for one image.

    Attributes:
        name: Its name in the model.
        kind: `conv`, `depthwise`, `dense` or `norm`.
        output: [height, width, channels].
        parameters: Trained numbers.
        statistics: Numbers that are not trained: moving mean and variance.
        macs: Multiply-accumulates of convolutions and dense layers; biases and everything else count nothing.
        normalised: Numbers that a batch normalisation puts out.
    """

    name: str
    kind: str
    output: Shape
    parameters: int
    statistics: int = 0
    macs: int = 0
    normalised: int = 0


@dataclass
class CountingBuilder:
    """Builder (see `builder.py`) whose tensors are shapes; `layers` collects the costs in order."""

    layers: list[LayerCost] = field(default_factory=list)

    def conv(
        self,
        x: Shape,
        filters: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding: Padding = "symmetric",
        dilation: int = 1,
    ) -> Shape:
        """See `Builder`."""
        height, width = (_side(n, kernel, stride, padding) for n in x[:2])
        output, kernels = Shape(height, width, filters), kernel * kernel * (x.channels // groups) * filters
        self._add(name, "conv", output, kernels + bias * filters, macs=kernels * height * width)
        return output

    def depthwise(self, x: Shape, kernel: int, name: str, *, stride: int = 1, padding: Padding = "same") -> Shape:
        """See `Builder`."""
        height, width = (_side(n, kernel, stride, "same") for n in x[:2])
        output, kernels = Shape(height, width, x.channels), kernel * kernel * x.channels
        self._add(name, "depthwise", output, kernels, macs=kernels * height * width)
        return output

    def norm(self, x: Shape, name: str, *, last: bool = False) -> Shape:
        """See `Builder`."""
        size = x.height * x.width * x.channels
        self._add(name, "norm", x, 2 * x.channels, statistics=2 * x.channels, normalised=size)
        return x

    def act(self, x: Shape, kind: str) -> Shape:
        """See `Builder`."""
        return x

    def dense(self, x: Shape, units: int, name: str) -> Shape:
        """See `Builder`."""
        output = Shape(1, 1, units)
        self._add(name, "dense", output, (x.channels + 1) * units, macs=x.channels * units)
        return output

    def flatten(self, x: Shape) -> Shape:
        """See `Builder`."""
        return Shape(1, 1, x.height * x.width * x.channels)

    def max_pool(self, x: Shape, size: int, padding: Padding) -> Shape:
        """See `Builder`."""
        return Shape(*(_side(n, size, 2, padding) for n in x[:2]), x.channels)

    def mean_pool(self, x: Shape, padding: Padding = "same") -> Shape:
        """See `Builder`."""
        return Shape(*(_side(n, 2, 2, padding) for n in x[:2]), x.channels)

    def global_mean(self, x: Shape, keep: bool = False) -> Shape:
        """See `Builder`."""
        return Shape(1, 1, x.channels)

    def add(self, x: Shape, y: Shape) -> Shape:
        """See `Builder`."""
        if x != y:
            raise ValueError(f"cannot add {x} and {y}")
        return x

    def scale(self, x: Shape, gate: Shape) -> Shape:
        """See `Builder`."""
        return x

    def concat(self, parts: Sequence[Shape]) -> Shape:
        """See `Builder`."""
        return parts[0]._replace(channels=sum(part.channels for part in parts))

    def pad_channels(self, x: Shape, width: int) -> Shape:
        """See `Builder`."""
        return x._replace(channels=width)

    def shifted(self, x: Shape, shift: int, stride: int) -> Shape:
        """See `Builder`."""
        return Shape(-(-x.height // stride), -(-x.width // stride), x.channels)

    def dropout(self, x: Shape, rate: float) -> Shape:
        """See `Builder`."""
        return x

    def drop_path(self, x: Shape, rate: float) -> Shape:
        """See `Builder`."""
        return x

    def shake_drop(self, x: Shape, rate: float) -> Shape:
        """See `Builder`."""
        return x

    def shake_shake(self, x: Shape, y: Shape) -> Shape:
        """See `Builder`."""
        return x

    def channels(self, x: Shape) -> int:
        """See `Builder`."""
        return x.channels

    def _add(self, name: str, kind: str, output: Shape, parameters: int, **more: int) -> None:
        self.layers.append(LayerCost(name, kind, output, parameters, **more))


def _side(size: int, kernel: int, stride: int, padding: Padding) -> int:
    """Returns the size of one side after a window of `kernel` moved in steps of `stride`."""
    if padding == "valid":
        size -= kernel - 1
        if size < 1:
            raise ValueError(f"the image is smaller than the window of {kernel}")
    return -(-size // stride)


@dataclass(frozen=True)
class Profile:
    """Costs of one network for one image.

    Attributes:
        layers: Costs of the layers that have any, in order.
    """

    layers: tuple[LayerCost, ...]

    @property
    def parameters(self) -> int:
        """Trained numbers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def statistics(self) -> int:
        """Moving means and variances, which are saved but not trained."""
        return sum(layer.statistics for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and dense layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def macs_with_norms(self) -> int:
        """The same and 2 for each number that a batch normalisation puts out."""
        return self.macs + _NORM_COST * sum(layer.normalised for layer in self.layers)


def profile(config: CnnConfig, classes: int | None) -> Profile:
    """Counts what a network costs, from its configuration; without a classifier where `classes` is None.

    Raises:
        ModelError: The family is `saved_model`, or the images are too small for the network.

    Example:
        >>> profile(named("resnet20_cifar"), 100).parameters
        278324
    """
    b = CountingBuilder()
    images = Shape(*config.image_shape)
    vector = networks.body(b, images, config).vector
    if classes is not None:
        networks.head(b, vector, config, classes)
    return Profile(tuple(b.layers))


def latency(config: CnnConfig, classes: int, batch: int = 1) -> dict[str, float]:
    """Measures how long one batch takes on this machine: median and spread of 50 runs after 10 to warm up.

    Args:
        config: Configuration; the weights are random.
        classes: Number of classes.
        batch: Images in a batch.

    Returns:
        `median_ms`, `fastest_ms`, `slowest_ms` and `images_per_second` (at the median).
    """
    import tensorflow as tf

    from modelzoo.cnn.backbone import CnnBackbone

    model = CnnBackbone(config, classes, seed=0)
    run = tf.function(lambda images: model(images, training=False)["logits"], autograph=False)
    images = tf.zeros([batch, *config.image_shape])
    return summary((_seconds(lambda: run(images).numpy()) for _ in range(_WARM_UP + _RUNS)), batch)


def summary(seconds: Iterable[float], batch: int) -> dict[str, float]:
    """Returns what `latency` does, of the times of all runs, those to warm up first."""
    counted = [1e3 * value for value in seconds][_WARM_UP:]
    if not counted:
        raise ModelError(f"latency needs more than {_WARM_UP} runs")
    middle = statistics.median(counted)
    return {
        "median_ms": middle,
        "fastest_ms": min(counted),
        "slowest_ms": max(counted),
        "images_per_second": 1e3 * batch / middle,
    }


def _seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
