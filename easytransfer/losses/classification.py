"""Losses over whole examples, SUMMED over the batch: the engine divides by the global weight (`train/task.py`).

All compute in float32 whatever the type of the logits, so they are safe under mixed precision.
"""

from __future__ import annotations

from easytransfer.deferred import tf


def softmax_cross_entropy_sum(
    labels: tf.Tensor,
    logits: tf.Tensor,
    example_weight: tf.Tensor,
    class_weights: tf.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> tf.Tensor:
    """Returns sum_i w_i c[y_i] CE(q_i, softmax(logits_i)) with q = (1 - s) onehot(y) + s / C.

    Label smoothing is section 7 of https://arxiv.org/abs/1512.00567. To get the usual weighted mean, divide by
    sum_i w_i c[y_i].

    Args:
        labels: Class ids, int [batch] or [batch, 1].
        logits: [batch, classes], any float type.
        example_weight: w, [batch]; 0 removes an example.
        class_weights: c, [classes]; None means ones.
        label_smoothing: s in [0, 1).

    Returns:
        Scalar float32.
    """
    labels, logits = tf.reshape(labels, [-1]), tf.cast(logits, tf.float32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if label_smoothing:
        uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
        losses = (1 - label_smoothing) * losses + label_smoothing * uniform
    weight = tf.cast(example_weight, tf.float32)
    if class_weights is not None:
        weight *= tf.gather(tf.cast(class_weights, tf.float32), labels)
    return _weighted_sum(losses, weight)


def sigmoid_cross_entropy_sum(
    labels: tf.Tensor,
    logits: tf.Tensor,
    example_weight: tf.Tensor,
    class_weights: tf.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> tf.Tensor:
    """Returns sum_i w_i mean_k c_k BCE(t_ik, sigmoid(logits_ik)) with t = (1 - s) y + s / 2.

    Args:
        labels: y, multi-hot [batch, classes].
        logits: [batch, classes], any float type.
        example_weight: w, [batch]; 0 removes an example.
        class_weights: c, [classes]; None means ones.
        label_smoothing: s in [0, 1).

    Returns:
        Scalar float32.
    """
    targets = tf.cast(labels, tf.float32) * (1 - label_smoothing) + label_smoothing / 2
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=tf.cast(logits, tf.float32))
    if class_weights is not None:
        losses *= tf.cast(class_weights, tf.float32)
    return _weighted_sum(tf.reduce_mean(losses, axis=-1), example_weight)


def squared_error_sum(labels: tf.Tensor, logits: tf.Tensor, example_weight: tf.Tensor) -> tf.Tensor:
    """Returns sum_i w_i (y_i - logit_i)^2.

    Args:
        labels: y, [batch] or [batch, 1].
        logits: [batch] or [batch, 1], any float type.
        example_weight: w, [batch]; 0 removes an example.

    Returns:
        Scalar float32.
    """
    # Both are flattened: [batch] minus [batch, 1] would pair every label with every prediction.
    difference = tf.reshape(tf.cast(labels, tf.float32), [-1]) - tf.reshape(tf.cast(logits, tf.float32), [-1])
    return _weighted_sum(tf.square(difference), example_weight)


def _weighted_sum(losses: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(losses * tf.cast(weight, tf.float32))
