"""Loss of answer spans: where the answer starts and where it ends, as two choices among the tokens of a window."""

from __future__ import annotations

from easytransfer.deferred import tf
from easytransfer.losses.classification import softmax_cross_entropy_sum


def span_cross_entropy_sum(
    start_positions: tf.Tensor,
    end_positions: tf.Tensor,
    start_logits: tf.Tensor,
    end_logits: tf.Tensor,
    example_weight: tf.Tensor,
) -> tf.Tensor:
    """Returns sum_i w_i (CE(start_i) + CE(end_i)) / 2 (BERT, arXiv 1810.04805, section 4.2).

    Args:
        start_positions: Token the answer starts with, 0 ([CLS]) where the window holds none; int [batch] or [batch, 1].
        end_positions: Token the answer ends with, the same way.
        start_logits: [batch, tokens], any float type.
        end_logits: [batch, tokens], any float type.
        example_weight: w, [batch]; 0 removes an example.

    Returns:
        Scalar float32.
    """
    start = softmax_cross_entropy_sum(start_positions, start_logits, example_weight)
    return (start + softmax_cross_entropy_sum(end_positions, end_logits, example_weight)) / 2


def comprehension_loss(
    logits: tuple[tf.Tensor, tf.Tensor],
    labels: tuple[tf.Tensor, tf.Tensor],
    example_weight: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns the mean over examples of (CE start + CE end) / 2: the function of the original Python API.

    The original paired the positions of every example with the logits of every other one when they had the shape
    [batch, 1], as its readers make them.

    Args:
        logits: Start and end scores, each [batch, tokens].
        labels: Start and end positions, each int [batch] or [batch, 1].
        example_weight: [batch], default ones.
    """
    (start_logits, end_logits), (start, end) = logits, labels
    weight = tf.ones([tf.shape(start_logits)[0]]) if example_weight is None else tf.cast(example_weight, tf.float32)
    total = span_cross_entropy_sum(start, end, start_logits, end_logits, weight)
    return tf.math.divide_no_nan(total, tf.reduce_sum(weight))
