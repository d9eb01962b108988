"""Adds up what each layer of a network costs, from its configuration alone, without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from modelzoo.cnn.builder import Padding


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
    ) -> Shape:
        """See `Builder`."""
        height, width = (_side(n, kernel, stride, padding) for n in x[:2])
        output, kernels = Shape(height, width, filters), kernel * kernel * (x.channels // groups) * filters
        self._add(name, "conv", output, kernels + bias * filters, macs=kernels * height * width)
        return output

    def depthwise(self, x: Shape, kernel: int, name: str, *, stride: int = 1) -> Shape:
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
