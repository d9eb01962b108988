"""The losses of the original Python API: scalar means under their old names and argument orders.

`example_weight` is an addition: with it the mean is over the weight, so that rows padding a batch do not count.
"""

from __future__ import annotations

from easytransfer.deferred import tf
from easytransfer.losses import classification

# Keeps the masked-LM loss finite for a batch without masked tokens; the value is the original's.
_MASKED_LM_EPSILON = 1e-5


def softmax_cross_entropy(
    labels: tf.Tensor, depth: int, logits: tf.Tensor, example_weight: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns the mean of -log softmax(logits)[label].

    Args:
        labels: Class ids, int [batch] or [batch, 1].
        depth: Number of classes, the last axis of `logits`.
        logits: [batch, depth].
        example_weight: [batch], default ones.

    Raises:
        ValueError: `logits` has another number of classes than `depth`.
    """
    _check_depth(depth, logits)
    weight = _weight(example_weight, logits)
    return _mean(classification.softmax_cross_entropy_sum(labels, logits, weight), weight)


def mean_square_error(labels: tf.Tensor, logits: tf.Tensor, example_weight: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the mean of (label - logit)^2.

    Args:
        labels: [batch] or [batch, 1].
        logits: [batch] or [batch, 1].
        example_weight: [batch], default ones.
    """
    weight = _weight(example_weight, logits)
    return _mean(classification.squared_error_sum(labels, logits, weight), weight)


def multi_label_sigmoid_cross_entropy(
    labels: tf.Tensor, depth: int, logits: tf.Tensor, example_weight: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns the mean over examples and classes of the sigmoid cross entropy.

    Args:
        labels: Ids of the true classes padded with -1, int [batch, most labels].
        depth: Number of classes, the last axis of `logits`.
        logits: [batch, depth].
        example_weight: [batch], default ones.

    Raises:
        ValueError: `logits` has another number of classes than `depth`.
    """
    _check_depth(depth, logits)
    weight = _weight(example_weight, logits)
    multi_hot = tf.reduce_max(tf.one_hot(labels, depth), axis=1)  # the one-hot of -1 is all zeros
    return _mean(classification.sigmoid_cross_entropy_sum(multi_hot, logits, weight), weight)


def next_sentence_prediction_loss(
    nsp_logits: tf.Tensor, nx_sent_labels: tf.Tensor, example_weight: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns the mean cross entropy of the two-class next-sentence decision.

    Args:
        nsp_logits: [batch, 2].
        nx_sent_labels: 0 or 1, int [batch] or [batch, 1].
        example_weight: [batch], default ones.
    """
    return softmax_cross_entropy(nx_sent_labels, 2, nsp_logits, example_weight)


def masked_language_model_loss(
    lm_logits: tf.Tensor, masked_lm_ids: tf.Tensor, masked_lm_weights: tf.Tensor, vocab_size: int
) -> tf.Tensor:
    """Returns sum(w CE) / (sum(w) + 1e-5) over masked positions.

    Args:
        lm_logits: [batch, masked, vocab] or [batch * masked, vocab].
        masked_lm_ids: True token ids, int [batch, masked].
        masked_lm_weights: w, 0 for positions that only pad, [batch, masked].
        vocab_size: Last axis of `lm_logits`.

    Raises:
        ValueError: `lm_logits` has another last axis than `vocab_size`.
    """
    _check_depth(vocab_size, lm_logits)
    weight = tf.cast(tf.reshape(masked_lm_weights, [-1]), tf.float32)
    logits = tf.reshape(lm_logits, [-1, vocab_size])
    total = classification.softmax_cross_entropy_sum(masked_lm_ids, logits, weight)
    return total / (tf.reduce_sum(weight) + _MASKED_LM_EPSILON)


def _check_depth(depth: int, logits: tf.Tensor) -> None:
    classes = tf.convert_to_tensor(logits).shape[-1]
    if classes is not None and classes != depth:
        raise ValueError(f"logits have {classes} classes, {depth} were declared")


def _weight(example_weight: tf.Tensor | None, logits: tf.Tensor) -> tf.Tensor:
    if example_weight is None:
        return tf.ones([tf.shape(logits)[0]], tf.float32)
    return tf.cast(example_weight, tf.float32)


def _mean(total: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(total, tf.reduce_sum(weight))
