"""Adam with bias correction and decoupled weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.optim.base import Optimizer


class AdamW(Optimizer):
    """eta_t = lr * sqrt(1 - b2^t) / (1 - b1^t);  w <- w - eta_t * (m / (sqrt(v) + eps) + decay * w).

    Loshchilov and Hutter, Decoupled Weight Decay Regularization, with epsilon outside the bias correction as in the
    original EasyTransfer. With `weight_decay` 0 this is Adam. One fused kernel per variable does moments and update;
    the decay term is a multiplication of w before it, which is the same formula.

    Args:
        variables: Variables to update.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        epsilon: Added to the root of the second moment.
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
        **options: Any,
    ) -> None:
        super().__init__(variables, **options)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def _update(
        self,
        variable: tf.Variable,
        gradient: tf.Tensor,
        rate: tf.Tensor,
        step: tf.Tensor,
        decay: float,
        slots: dict[str, tf.Variable],
    ) -> None:
        dtype = variable.dtype.as_numpy_dtype
        # The kernel works with betas rounded to the variable's dtype. Correcting with the same rounded values makes the
        # first steps exact: in float32, 1 - 0.999 alone is off by 5e-5.
        beta1, beta2 = np.float64(dtype(self.beta1)), np.float64(dtype(self.beta2))
        eta = rate * tf.sqrt(1 - tf.pow(beta2, step)) / (1 - tf.pow(beta1, step))
        if decay:
            variable.assign(variable * tf.cast(1 - eta * decay, variable.dtype))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=slots["m"].handle,
            v=slots["v"].handle,
            beta1_power=dtype(0),  # Bias correction is in eta already.
            beta2_power=dtype(0),
            lr=tf.cast(eta, variable.dtype),
            beta1=dtype(self.beta1),
            beta2=dtype(self.beta2),
            epsilon=dtype(self.epsilon),
            grad=gradient,
        )
