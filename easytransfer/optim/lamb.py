"""Layer-wise adaptive moments for large batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from easytransfer.distributed.shards import whole_squares
from easytransfer.optim.base import Optimizer, matches


class LAMB(Optimizer):
    """u = m^ / (sqrt(v^) + eps) + decay * w;  r = |w| / |u| when both are > 0, else 1;  w <- w - lr * r * u.

    You et al., Large Batch Optimization for Deep Learning (arXiv 1904.00962), algorithm 2; m^ and v^ are the
    bias-corrected moments.

    Args:
        variables: Variables to update.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        epsilon: Added to the root of the second moment.
        no_adaptation: Regular expressions of variable names with r = 1.
        **options: See `Optimizer`.
    """

    SLOTS = ("m", "v")

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        no_adaptation: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(variables, **options)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.no_adaptation = tuple(no_adaptation)

    def _update(
        self,
        variable: tf.Variable,
        gradient: tf.Tensor,
        rate: tf.Tensor,
        step: tf.Tensor,
        decay: float,
        slots: dict[str, tf.Variable],
    ) -> None:
        dtype = variable.dtype
        m = slots["m"].assign(self.beta1 * slots["m"] + (1 - self.beta1) * gradient)
        v = slots["v"].assign(self.beta2 * slots["v"] + (1 - self.beta2) * tf.square(gradient))
        # In float64: of 1 - beta^t float32 has few digits left while t is small.
        m_hat = m / tf.cast(1 - tf.pow(tf.constant(self.beta1, tf.float64), step), dtype)
        v_hat = v / tf.cast(1 - tf.pow(tf.constant(self.beta2, tf.float64), step), dtype)
        update = m_hat / (tf.sqrt(v_hat) + self.epsilon)
        if decay:
            update += decay * variable
        rate = tf.cast(rate, dtype)
        if not matches(variable.name, self.no_adaptation):
            # Norms of the whole variable, also where this worker holds a part of it.
            weight_norm, update_norm = tf.unstack(tf.sqrt(whole_squares([variable, update], variable)))
            both = (weight_norm > 0) & (update_norm > 0)
            rate *= tf.where(both, tf.math.divide_no_nan(weight_norm, update_norm), tf.ones([], dtype))
        variable.assign_sub(rate * update)
