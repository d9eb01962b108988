"""Mixed precision: the Keras policy while a model is built, and dynamic loss scaling for float16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from easytransfer import keras
from easytransfer.config.job import RuntimeConfig

_CPU_FLAGS = Path("/proc/cpuinfo")


@contextmanager
def compute_precision(name: str) -> Iterator[None]:
    """Builds layers inside with `name` (none, float16, bfloat16) as compute dtype and float32 variables."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("float32" if name == "none" else f"mixed_{name}")
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def compiles(runtime: RuntimeConfig) -> bool:
    """Whether steps are compiled with XLA: when asked for, and for bfloat16 on a CPU without AVX-512.

    There TensorFlow's own bfloat16 kernels convert every element by itself: a training step of MiniLM took over 20 s,
    compiled 1.5 s, since XLA multiplies in float32.
    """
    if runtime.enable_xla or runtime.mixed_precision != "bfloat16" or tf.config.list_physical_devices("GPU"):
        return runtime.enable_xla
    return _CPU_FLAGS.is_file() and "avx512f" not in _CPU_FLAGS.read_text(encoding="utf-8")


def pad_multiple(runtime: RuntimeConfig) -> int:
    """Returns what widths of batches are rounded up to: few widths where each is compiled, aligned ones on a GPU."""
    if compiles(runtime):
        return 32
    return 8 if tf.config.list_physical_devices("GPU") else 1


class LossScale(tf.Module):
    """Factor that keeps float16 gradients in range: halved after a non-finite step, doubled after many finite ones.

    Micikevicius et al., Mixed Precision Training (arXiv 1710.03740), section 3.2.

    Args:
        initial: First factor.
        growth_steps: Finite steps in a row before the factor is doubled.
    """

    MINIMUM, MAXIMUM = 1.0, 2.0**24

    def __init__(self, initial: float = 2.0**15, growth_steps: int = 2000) -> None:
        super().__init__()
        self.growth_steps = growth_steps
        self.value = tf.Variable(initial, trainable=False, dtype=tf.float32)
        self.finite_steps = tf.Variable(0, trainable=False, dtype=tf.int64)

    def update(self, finite: tf.Tensor) -> tf.Tensor:
        """Adjusts the factor after a step; returns True when it could not be lowered any more.

        Args:
            finite: Scalar bool, whether all gradients of the step were finite.
        """
        exhausted = ~finite & (self.value <= self.MINIMUM)
        count = tf.where(finite, self.finite_steps + 1, 0)
        grow = count >= self.growth_steps
        factor = tf.where(finite, tf.where(grow, 2.0, 1.0), 0.5)
        self.value.assign(tf.clip_by_value(self.value * factor, self.MINIMUM, self.MAXIMUM))
        self.finite_steps.assign(tf.where(grow, tf.zeros_like(count), count))
        return exhausted
