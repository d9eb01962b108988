"""Learning rate as a function of the number of completed updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

SCHEDULES = ("polynomial", "linear_after_warmup", "cosine", "constant", "inverse_sqrt", "step")
# What the `step` schedule multiplies with at each of its milestones.
STEP_FACTOR = 0.1
# Time scale of `inverse_sqrt` without warm-up, the value transformers uses.
INVERSE_SQRT_STEPS = 10_000


class Schedule:
    """Learning rate of the update that follows `t` completed updates.

    With T total steps, W = int(T * warmup_ratio), s = warmup_start, warm(t) = min(1, s + (1 - s) t / W), 1 for W = 0:

    - `polynomial` (the original's): lr0 * (1 - t/T)^power * warm(t); the warm-up multiplies the already decayed rate.
    - `linear_after_warmup`: lr0 * warm(t), then linearly from lr0 at W to 0 at T.
    - `cosine`: warm-up, then half a cosine from lr0 at W to 0 at T.
    - `inverse_sqrt`: warm-up, then lr0 * sqrt(W / t).
    - `step`: warm(t) * lr0, times 0.1 at each of the milestones.
    - `constant` and, as in the original, any other word: lr0 * warm(t).

    t counts from 0, so with a warm-up from 0 the first update has learning rate 0, as in the original and in
    transformers.

    Args:
        name: One of `SCHEDULES`.
        peak: lr0.
        total_steps: T, at least 1.
        warmup_ratio: Share of steps with warm-up.
        milestones: Shares of T at which `step` lowers the rate.
        power: Of `polynomial`; 1 in the original, 0.9 in most work on dense maps (Chen et al., arXiv 1606.00915).
        warmup_start: Share of the rate that the warm-up begins with.
    """

    def __init__(
        self,
        name: str,
        peak: float,
        total_steps: int,
        warmup_ratio: float = 0.0,
        milestones: Sequence[float] = (0.5, 0.75),
        power: float = 1.0,
        warmup_start: float = 0.0,
    ) -> None:
        self.peak, self.milestones, self.power, self.warmup_start = peak, milestones, power, warmup_start
        self.total = max(1, total_steps)
        self.warmup = int(self.total * warmup_ratio)
        self._shape: Callable[[tf.Tensor], tf.Tensor] = getattr(self, f"_{name}" if name in SCHEDULES else "_constant")

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Returns the scalar float32 rate after `step` completed updates."""
        t = tf.cast(step, tf.float64)
        return tf.cast(self.peak * self._shape(t), tf.float32)

    def _warm(self, t: tf.Tensor) -> tf.Tensor:
        if not self.warmup:
            return tf.ones_like(t)
        done = tf.minimum(t / self.warmup, 1.0)
        return self.warmup_start + (1 - self.warmup_start) * done if self.warmup_start else done

    def _after_warmup(self, t: tf.Tensor) -> tf.Tensor:
        """Share of the steps after the warm-up that are done, in [0, 1]."""
        return tf.clip_by_value((t - self.warmup) / max(1, self.total - self.warmup), 0.0, 1.0)

    def _polynomial(self, t: tf.Tensor) -> tf.Tensor:
        left = tf.nn.relu(1 - t / self.total)
        return (left if self.power == 1 else left**self.power) * self._warm(t)

    def _linear_after_warmup(self, t: tf.Tensor) -> tf.Tensor:
        return self._warm(t) * (1 - self._after_warmup(t))

    def _cosine(self, t: tf.Tensor) -> tf.Tensor:
        return self._warm(t) * 0.5 * (1 + tf.cos(math.pi * self._after_warmup(t)))

    def _inverse_sqrt(self, t: tf.Tensor) -> tf.Tensor:
        scale = self.warmup or INVERSE_SQRT_STEPS
        shift = scale - self.warmup
        return self._warm(t) * tf.sqrt(scale / tf.maximum(t + shift, scale))

    def _step(self, t: tf.Tensor) -> tf.Tensor:
        # Rounded first: 70 / 120 of 1560 is a little more than 910 in binary.
        steps = [round(share * self.total, 6) for share in self.milestones]
        passed = tf.reduce_sum(tf.cast(t >= tf.constant(steps, t.dtype), t.dtype))
        return self._warm(t) * STEP_FACTOR**passed

    def _constant(self, t: tf.Tensor) -> tf.Tensor:
        return self._warm(t)
