"""Dynamic loss scaling for float16."""

from __future__ import annotations

import tensorflow as tf


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
