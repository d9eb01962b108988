"""Losses over labelled tokens of a sequence; -1 marks positions without a label."""

from __future__ import annotations

from easytransfer.deferred import tf
from easytransfer.losses.classification import softmax_cross_entropy_sum


def token_cross_entropy_sum(
    labels: tf.Tensor, logits: tf.Tensor, example_weight: tf.Tensor, label_smoothing: float = 0.0
) -> tf.Tensor:
    """Returns the softmax cross entropy summed over labelled tokens; divide by `labelled_tokens` for the mean.

    Args:
        labels: Tag ids, int [batch, tokens]; negative where there is no label.
        logits: [batch, tokens, tags], any float type.
        example_weight: [batch]; 0 removes an example.
        label_smoothing: Share of the target spread over all tags.

    Returns:
        Scalar float32.
    """
    weight = tf.reshape(_token_weight(labels, example_weight), [-1])
    flat = tf.reshape(logits, [-1, tf.shape(logits)[-1]])
    return softmax_cross_entropy_sum(tf.maximum(labels, 0), flat, weight, label_smoothing=label_smoothing)


def labelled_tokens(labels: tf.Tensor, example_weight: tf.Tensor) -> tf.Tensor:
    """Returns the number of labelled tokens, each counted with the weight of its example.

    Args:
        labels: Tag ids, int [batch, tokens]; negative where there is no label.
        example_weight: [batch].

    Returns:
        Scalar float32.
    """
    return tf.reduce_sum(_token_weight(labels, example_weight))


def sequence_labeling_loss(logits: tf.Tensor, labels: tf.Tensor, num_labels: int) -> tf.Tensor:
    """Returns the mean cross entropy over labelled tokens, under the original's name and argument order.

    The original divided by all positions, so that padding made the loss smaller.

    Args:
        logits: [batch, tokens, num_labels].
        labels: Tag ids, int [batch, tokens]; -1 where there is no label.
        num_labels: Number of tags.

    Raises:
        ValueError: `logits` has another number of tags than `num_labels`.
    """
    tags = tf.convert_to_tensor(logits).shape[-1]
    if tags is not None and tags != num_labels:
        raise ValueError(f"logits have {tags} tags, {num_labels} were declared")
    weight = tf.ones([tf.shape(logits)[0]], tf.float32)
    return tf.math.divide_no_nan(token_cross_entropy_sum(labels, logits, weight), labelled_tokens(labels, weight))


def _token_weight(labels: tf.Tensor, example_weight: tf.Tensor) -> tf.Tensor:
    """Returns the weight of every token, float32 [batch, tokens]."""
    return tf.cast(tf.greater_equal(labels, 0), tf.float32) * tf.cast(example_weight, tf.float32)[:, tf.newaxis]
