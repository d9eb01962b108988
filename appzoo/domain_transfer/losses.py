"""What tells domains apart and what relates them: reversed gradients, weights of rows, covariances; all in float32."""

from __future__ import annotations

import math

import tensorflow as tf

# How fast the reversed gradient rises, gamma of Ganin and Lempitsky.
_GAMMA = 10.0
# Part of the unit matrix that is added to W^T W.
_RIDGE = 1e-6


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


def covariance(kernels: tf.Tensor) -> tf.Tensor:
    """Returns Omega = (W^T W)^(1/2) / tr((W^T W)^(1/2)), float32 [weights, weights].

    It is the covariance of the columns of W that makes tr(W Omega^-1 W^T) least among those of trace 1 (Zhang and
    Yeung, A Convex Formulation for Learning Task Relationships, UAI 2010, section 3.2).

    Args:
        kernels: W, a column for each vector of output weights, [size, weights].
    """
    # A little of the unit matrix: weights may depend on each other, as all zeros do.
    square = tf.matmul(kernels, kernels, transpose_a=True) + _RIDGE * tf.eye(tf.shape(kernels)[1])
    values, vectors = tf.linalg.eigh(square)
    root = tf.matmul(vectors * tf.sqrt(values), vectors, transpose_b=True)
    return root / tf.linalg.trace(root)


def relation(kernels: tf.Tensor) -> tf.Tensor:
    """Returns tr(W Omega^-1 W^T), a scalar, with Omega = `covariance(W)` as a constant.

    Each step thus makes the covariance best for the weights, and then the weights better for the covariance.

    Args:
        kernels: W, [size, weights].
    """
    omega = tf.stop_gradient(covariance(kernels))
    return tf.reduce_sum(tf.transpose(tf.linalg.solve(omega, tf.transpose(kernels))) * kernels)
