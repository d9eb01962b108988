"""What a network costs: parameters and multiply-accumulates by layer, and how long it takes.

Counts come from the configuration without TensorFlow, through the same description that builds the network. A
multiply-accumulate (MAC) of a convolution or dense layer counts one, a bias nothing. Papers call this number FLOPs;
those of Divide and Co-training add 2 for each output of a batch normalisation (`macs_with_norms`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass

from easytransfer.errors import ModelError
from modelzoo.cnn import plan
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.counting import CountingBuilder, LayerCost, Shape

_NORM_COST = 2
_WARM_UP, _RUNS = 10, 50


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


def profile(config: CnnConfig, classes: int) -> Profile:
    """Counts what a network costs, from its configuration.

    Raises:
        ModelError: The family is `saved_model`, or the images are too small for the network.

    Example:
        >>> profile(named("resnet20_cifar"), 100).parameters
        278324
    """
    b = CountingBuilder()
    images = Shape(*config.image_shape)
    plan.head(b, plan.features(b, images, config), config, classes)
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

    from modelzoo.cnn.network import build

    model = build(config, classes, seed=0)
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
