"""Stochastic gradient descent with momentum, the optimizer of most image recipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from easytransfer.optim.base import Optimizer


class SGD(Optimizer):
    """g <- g + decay * w;  m <- momentum * m + g;  w <- w - lr * m, or with Nesterov w <- w - lr * (g + momentum * m).

    Sutskever et al. 2013, with the rate outside of the momentum and the decay inside it, as PyTorch has them.

    Args:
        variables: Variables to update.
        momentum: Share of the old direction that is kept.
        nesterov: Whether the gradient counts once more than the older ones.
        **options: See `Optimizer`; its decay is not decoupled here.
    """

    SLOTS = ("momentum",)

    def __init__(
        self, variables: Sequence[tf.Variable], *, momentum: float = 0.9, nesterov: bool = False, **options: Any
    ) -> None:
        super().__init__(variables, **options)
        self.momentum, self.nesterov = momentum, nesterov

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
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=slots["momentum"].handle,
            lr=tf.cast(rate, variable.dtype),
            grad=gradient + dtype(decay) * variable if decay else gradient,
            momentum=dtype(self.momentum),
            use_nesterov=self.nesterov,
        )
