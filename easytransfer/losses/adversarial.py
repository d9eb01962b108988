"""Losses of adversarial attack and defence, one number per row; all in float32 whatever the type of the logits."""

from __future__ import annotations

import tensorflow as tf

# Keeps the ratio of a row whose logits are all equal finite.
_RATIO_EPSILON = 1e-12


def cross_entropy_rows(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns -log softmax(z)[y], float32 [batch].

    Args:
        labels: y, int [batch].
        logits: z, [batch, classes].
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=tf.cast(logits, tf.float32))


def kl_rows(logits: tf.Tensor, other_logits: tf.Tensor) -> tf.Tensor:
    """Returns KL(softmax(z) || softmax(z')), float32 [batch], with a gradient into both arguments.

    The regulariser of TRADES (https://arxiv.org/abs/1901.08573, equation 5).

    Args:
        logits: z of the natural images, [batch, classes].
        other_logits: z' of the changed ones.
    """
    first, second = (tf.nn.log_softmax(tf.cast(each, tf.float32)) for each in (logits, other_logits))
    return tf.reduce_sum(tf.exp(first) * (first - second), axis=-1)


def margin_rows(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns max_{i != y} z_i - z_y, float32 [batch]: above 0 where the row is misclassified.

    Args:
        labels: y, int [batch].
        logits: z, [batch, classes].
    """
    logits = tf.cast(logits, tf.float32)
    true = tf.gather(logits, labels, batch_dims=1)
    return _largest_other(labels, logits) - true


def carlini_wagner_rows(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns -max(z_y - max_{i != y} z_i, 0), float32 [batch]: at most 0, which a misclassified row has.

    The objective of Carlini and Wagner (https://arxiv.org/abs/1608.04644, f_6 without confidence) as PGD maximises it.

    Args:
        labels: y, int [batch].
        logits: z, [batch, classes].
    """
    return tf.minimum(margin_rows(labels, logits), 0.0)


def logits_ratio_rows(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns -(z_y - max_{i != y} z_i) / (z_(1) - z_(3)), float32 [batch], with z_(k) the k-th largest logit.

    Difference of logits ratio of Croce and Hein (https://arxiv.org/abs/2003.01690, section 4.2), free of the scale of
    the logits.

    Args:
        labels: y, int [batch].
        logits: z, [batch, classes].

    Raises:
        ValueError: There are fewer than three classes.
    """
    if logits.shape[-1] is not None and logits.shape[-1] < 3:
        raise ValueError(f"the difference of logits ratio needs three classes, there are {logits.shape[-1]}")
    largest = tf.math.top_k(tf.cast(logits, tf.float32), k=3).values
    return margin_rows(labels, logits) / (largest[:, 0] - largest[:, 2] + _RATIO_EPSILON)


def excess_rows(labels: tf.Tensor, logits: tf.Tensor, other_logits: tf.Tensor) -> tf.Tensor:
    """Returns max(CE(z', y), CE(z, y)) - CE(z, y), float32 [batch]: what the change costs.

    The regulariser of the generalised adversarial training of Wu et al. (https://arxiv.org/abs/2010.01279,
    equation 1.1); added with weight 1 to CE(z, y) it gives the training of Madry et al.

    Args:
        labels: y, int [batch].
        logits: z of the natural images, [batch, classes].
        other_logits: z' of the changed ones.
    """
    natural = cross_entropy_rows(labels, logits)
    return tf.maximum(cross_entropy_rows(labels, other_logits), natural) - natural


def _largest_other(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    # Multiplying by 1 - onehot instead would put 0 in place of the true logit, which is the maximum of negative ones.
    own = tf.one_hot(labels, tf.shape(logits)[-1], on_value=True, off_value=False, dtype=tf.bool)
    return tf.reduce_max(tf.where(own, tf.constant(float("-inf")), logits), axis=-1)
