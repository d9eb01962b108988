"""How far the predictions of several networks are apart, and the weight of that in the loss.

Zhao et al., "Towards Better Accuracy-efficiency Trade-offs: Divide and Co-training", arXiv 2011.14660, section 3.
"""

from __future__ import annotations

import math

import tensorflow as tf

# The weight in the first epoch, which a warm-up from 0 would leave without any.
LEAST_WEIGHT = 0.005


def jensen_shannon(logits: tf.Tensor) -> tf.Tensor:
    """Returns H(mean_i p_i) - mean_i H(p_i) in nats, with p_i = softmax(logits_i); gradients reach all networks.

    0 where all predictions are equal, at most the logarithm of the number of networks.

    Args:
        logits: [batch, networks, classes], any float type.

    Returns:
        float32 [batch].
    """
    logs, count = tf.nn.log_softmax(tf.cast(logits, tf.float32)), logits.shape[1]
    # The same number as the mean of KL(p_i || mean), which does not take the logarithm of a probability.
    mean = tf.reduce_logsumexp(logs, axis=1, keepdims=True) - math.log(count)
    return tf.reduce_sum(tf.exp(logs) * (logs - mean), axis=[1, 2]) / count


def pairwise_divergence(logits: tf.Tensor) -> tf.Tensor:
    """Returns sum over pairs i != j of KL(p_j || p_i) / (networks - 1); the target p_j of a pair gets no gradient.

    Args:
        logits: [batch, networks, classes] of at least two networks, any float type.

    Returns:
        float32 [batch].
    """
    logs, count = tf.nn.log_softmax(tf.cast(logits, tf.float32)), logits.shape[1]
    targets = tf.stop_gradient(logs)
    # [batch, j, i, classes]; where i is j the value is 0, and so is its gradient.
    pairs = tf.exp(targets)[:, :, None] * (targets[:, :, None] - logs[:, None])
    return tf.reduce_sum(pairs, axis=[1, 2, 3]) / (count - 1)


def weight_of_epoch(epoch: tf.Tensor, weight: float, warmup_epochs: float) -> tf.Tensor:
    """Returns max(weight * epoch / warmup_epochs, 0.005), float32, and `weight` after the warm-up.

    Args:
        epoch: Number of the epoch, from 0; a scalar integer.
        weight: Weight after the warm-up; where it is below 0.005 there is none.
        warmup_epochs: Epochs of warm-up.
    """
    if weight <= LEAST_WEIGHT or not warmup_epochs:
        return tf.constant(weight, tf.float32)
    rising = weight * tf.cast(epoch, tf.float32) / warmup_epochs
    return tf.clip_by_value(rising, LEAST_WEIGHT, weight)
