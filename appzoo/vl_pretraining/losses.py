"""Losses of vision-language pre-training, by row: sums over what is guessed, and how much that is.

All compute in float32. Divided by the weights of the whole step, they are means over the selected items.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

# In place of minus infinity, which would make gradients no numbers.
_NEVER = -1e9


class RowLoss(NamedTuple):
    """A loss of each row.

    Attributes:
        sum: Over the selected items, float32 [batch].
        weight: How many items there are, float32 [batch]; of the batch alone.
        right: How many of them are guessed, float32 [batch]; zeros where nothing can be right.
    """

    sum: tf.Tensor
    weight: tf.Tensor
    right: tf.Tensor


def class_loss(
    logits: tf.Tensor, labels: tf.Tensor, selected: tf.Tensor, confidence: tf.Tensor | None = None
) -> RowLoss:
    """Returns the cross entropy of selected items.

    Args:
        logits: [batch, items, classes].
        labels: int32 [batch, items]; those of items that are not selected may be anything.
        selected: 1 for selected items, float32 [batch, items].
        confidence: Factor of each item's cross entropy in the sum, not in the weight, as in the code of LXMERT;
            None = 1.
    """
    logits = tf.cast(logits, tf.float32)
    safe = tf.where(selected > 0, labels, 0)
    nll = tf.nn.sparse_softmax_cross_entropy_with_logits(safe, logits)
    # `==` forgets shapes where axes are open.
    right = tf.cast(tf.math.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), safe), tf.float32)
    scale = selected if confidence is None else selected * confidence
    return RowLoss(_sum(nll * scale), _sum(selected), _sum(right * selected))


def feature_loss(kind: str, predicted: tf.Tensor, wanted: tf.Tensor, selected: tf.Tensor) -> RowLoss:
    """Returns how far predicted features of selected regions are from the wanted ones.

    Args:
        kind: `smooth_l1`: mean over the dimensions of d^2 / 2 below |d| = 1 and |d| - 1/2 above (LXMERT); `mse`: mean
            of d^2 (UNITER, arXiv 1909.11740); `kl`: KL(softmax(wanted) || softmax(predicted)) (FashionBERT, arXiv
            2005.09801, equation 3).
        predicted: [batch, K, F].
        wanted: [batch, K, F].
        selected: float32 [batch, K].
    """
    predicted, wanted = tf.cast(predicted, tf.float32), tf.cast(wanted, tf.float32)
    if kind == "kl":
        target = tf.nn.log_softmax(wanted)
        value = tf.reduce_sum(tf.exp(target) * (target - tf.nn.log_softmax(predicted)), axis=-1)
    else:
        apart = tf.abs(predicted - wanted)
        squared = tf.square(apart)
        value = squared if kind == "mse" else tf.where(apart < 1, squared / 2, apart - 0.5)
        value = tf.reduce_mean(value, axis=-1)
    return RowLoss(_sum(value * selected), _sum(selected), tf.zeros_like(selected[:, 0]))


def pointer_loss(scores: tf.Tensor, regions: tf.Tensor, region_mask: tf.Tensor) -> RowLoss:
    """Returns -log of the probability that a label points to the regions with its text.

    Args:
        scores: [batch, S, K].
        regions: 1 for regions with the text of the label, float32 [batch, S, K]; a label without any takes no part.
        region_mask: int32 [batch, K].
    """
    real = tf.cast(region_mask, tf.float32)[:, tf.newaxis]
    scores = tf.cast(scores, tf.float32) + _NEVER * (1 - real)
    log_p = tf.nn.log_softmax(scores)
    selected = tf.reduce_max(regions, axis=2)
    shared = tf.reduce_logsumexp(log_p + tf.where(regions > 0, 0.0, _NEVER), axis=2)
    best = tf.argmax(scores, axis=2, output_type=tf.int32)
    right = tf.gather(regions, best, batch_dims=2)
    return RowLoss(-_sum(tf.where(selected > 0, shared, 0.0)), _sum(selected), _sum(right * selected))


def adaptive_weights(losses: tf.Tensor) -> tf.Tensor:
    """Returns FashionBERT's weights of n losses, which add up to 1, without gradient.

    w_k is proportional to the product of n - g_j over j != k, with g = softmax(losses)^2 (arXiv 2005.09801, section
    3.3, and the authors' code, there for n = 3): a loss that is large weighs more.

    Args:
        losses: Means over the step, float32 [n].
    """
    gradient = tf.square(tf.nn.softmax(tf.stop_gradient(losses)))
    # The product of all divided by the own one, normalised.
    inverse = 1.0 / (tf.cast(tf.size(losses), tf.float32) - gradient)
    return inverse / tf.reduce_sum(inverse)


def _sum(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values, axis=1)
