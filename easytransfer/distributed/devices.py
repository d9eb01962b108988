"""Several devices of one process: each computes a part of the batch, and the first adds up the gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from easytransfer.config.job import DistributionConfig
from easytransfer.distributed.strategy import backend
from easytransfer.run.log import warn

Gradient = tf.Tensor | tf.IndexedSlices | None


def devices_of(distribution: DistributionConfig) -> list[str]:
    """Returns the devices to compute on: all GPUs, or all CPUs TensorFlow shows, under the strategy `mirrored`.

    One device is not shared; then, and under every other strategy, the list is empty and TensorFlow decides.
    """
    if backend(distribution) != "mirrored":
        return []
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(found) < 2:
        warn(f"distributionStrategy=mirrored has one device here, {found[0].name}: training goes on without it")
        return []
    return [device.name for device in found]


def fill_rows(batch: Mapping[str, np.ndarray], multiple: int) -> dict[str, np.ndarray]:
    """Adds rows of weight 0, copies of the first, up to a multiple, so that every device has the same number."""
    missing = -len(batch["example_weight"]) % multiple
    if not missing:
        return dict(batch)
    filled = {name: np.concatenate([value, np.repeat(value[:1], missing, axis=0)]) for name, value in batch.items()}
    filled["example_weight"][-missing:] = 0.0
    return filled


def part_of(batch: Mapping[str, tf.Tensor], number: int, parts: int) -> dict[str, tf.Tensor]:
    """Returns rows number, number + parts, ...: the same share a worker of several would have."""
    return {name: value[number::parts] for name, value in batch.items()}


def add_up(gradients: Sequence[Gradient]) -> Gradient:
    """Adds gradients of one variable from several devices; sparse ones keep their rows."""
    given = [gradient for gradient in gradients if gradient is not None]
    if not given:
        return None
    if all(isinstance(gradient, tf.IndexedSlices) for gradient in given):
        values, indices = (tf.concat([getattr(each, n) for each in given], 0) for n in ("values", "indices"))
        return tf.IndexedSlices(values, indices, dense_shape=given[0].dense_shape)
    return tf.add_n([tf.convert_to_tensor(gradient) for gradient in given])
