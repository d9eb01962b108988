"""What tells domains apart, and what is made of it: reversed gradients and weights of rows; all in float32."""

from __future__ import annotations

import math

import tensorflow as tf

# How fast the reversed gradient rises, gamma of Ganin and Lempitsky.
_GAMMA = 10.0


def reversed_gradient(x: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns `x`; its gradient is multiplied by -`factor` (Ganin and Lempitsky, arXiv 1409.7495, equations 7 and 8).

    Args:
        x: Any shape.
        factor: lambda, a scalar.
    """

    @tf.custom_gradient
    def reverse(value: tf.Tensor) -> tuple[tf.Tensor, object]:
        return tf.identity(value), lambda gradient: -tf.cast(factor, gradient.dtype) * gradient

    return reverse(x)


def rising(progress: tf.Tensor) -> tf.Tensor:
    """Returns 2 / (1 + exp(-10 p)) - 1, float32, from 0 towards 1 (arXiv 1409.7495, section 4).

    Args:
        progress: p, the share of the training that is over, a scalar.
    """
    return 2.0 / (1.0 + tf.exp(-_GAMMA * tf.cast(progress, tf.float32))) - 1.0


def domain_rows(logits: tf.Tensor, is_target: tf.Tensor) -> tf.Tensor:
    """Returns -log d of target rows and -log(1 - d) of source rows, float32 [batch], with d = sigmoid(logit).

    Args:
        logits: [batch].
        is_target: 1 for rows of the target domain, 0 for others, [batch].
    """
    return tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(is_target, tf.float32), tf.cast(logits, tf.float32))


def importance(logits: tf.Tensor, source: tf.Tensor, limit: float) -> tf.Tensor:
    """Returns the weights d / (1 - d) of source rows, at most `limit`, over their mean in the batch; others have 1.

    For d = P(target | row) the weight is the ratio of the densities of the two domains times that of their sizes, which
    the mean takes out (Sugiyama et al., Density Ratio Estimation in Machine Learning, 2012, section 4.1).

    Args:
        logits: Logits of d, [batch].
        source: 1 for the source rows that count, 0 for others, [batch].
        limit: Largest ratio.

    Returns:
        float32 [batch], without gradient.
    """
    source = tf.cast(source, tf.float32)
    ratio = tf.exp(tf.minimum(tf.cast(logits, tf.float32), math.log(limit)))
    mean = tf.math.divide_no_nan(tf.reduce_sum(ratio * source), tf.reduce_sum(source))
    return tf.stop_gradient(tf.where(source > 0, tf.math.divide_no_nan(ratio, mean), 1.0))
