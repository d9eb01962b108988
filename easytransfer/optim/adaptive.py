"""Adagrad and Adadelta with TensorFlow's kernels and the defaults of its first version, which the original used."""

from __future__ import annotations

import tensorflow as tf

from easytransfer.optim.base import Optimizer


class Adagrad(Optimizer):
    """a <- a + g^2 (from 0.1);  w <- w - lr * g / sqrt(a). Duchi et al., 2011."""

    SLOTS = ("accumulator",)
    INITIAL = 0.1

    def _update(
        self,
        variable: tf.Variable,
        gradient: tf.Tensor,
        rate: tf.Tensor,
        step: tf.Tensor,
        decay: float,
        slots: dict[str, tf.Variable],
    ) -> None:
        tf.raw_ops.ResourceApplyAdagrad(
            var=variable.handle, accum=slots["accumulator"].handle, lr=tf.cast(rate, variable.dtype), grad=gradient
        )


class Adadelta(Optimizer):
    """Zeiler, ADADELTA (arXiv 1212.5701), algorithm 1, with rho 0.95 and epsilon 1e-8; the update is scaled by lr."""

    SLOTS = ("accumulator", "update")
    RHO = 0.95
    EPSILON = 1e-8

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
        tf.raw_ops.ResourceApplyAdadelta(
            var=variable.handle,
            accum=slots["accumulator"].handle,
            accum_update=slots["update"].handle,
            lr=tf.cast(rate, variable.dtype),
            rho=dtype(self.RHO),
            epsilon=dtype(self.EPSILON),
            grad=gradient,
        )
