"""Losses of maps and existence, by row: the sums and weights that a step divides (sheet 3)."""

from __future__ import annotations

import tensorflow as tf

from appzoo.lane_detection.config import LaneSettings

# Label of pixels that losses leave out.
IGNORED = 255
# What the dice loss adds to each of its two sums of squares.
_DICE_SMOOTH = 0.001


def weighted_cross_entropy(mask: tf.Tensor, logits: tf.Tensor, background: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the weighted cross entropy of each row and the sum of its weights, float32 [batch] both.

    Their sums over all rows, divided, are the loss: the divisor is the weight of the pixels and not their number.

    Args:
        mask: Slots, 0 for background, `IGNORED` for pixels without weight; uint8 [batch, height, width].
        logits: [batch, height, width, classes].
        background: Weight of a background pixel; that of a lane is 1.
    """
    labels = tf.cast(mask, tf.int32)
    weight = tf.where(labels == 0, background, 1.0) * tf.cast(labels != IGNORED, tf.float32)
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(labels == IGNORED, 0, labels), logits)
    return tf.reduce_sum(each * weight, (1, 2)), tf.reduce_sum(weight, (1, 2))


def dice(mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns 1 - 2 sum(p t) / (sum(p^2) + sum(t^2) + 0.002) of each row, over all pixels and lanes together.

    Args:
        mask: As in `weighted_cross_entropy`; ignored pixels are of no lane.
        logits: [batch, height, width, classes]; p is their softmax without the background.
    """
    p = tf.nn.softmax(logits)[..., 1:]
    t = tf.one_hot(tf.cast(mask, tf.int32) - 1, p.shape[-1])
    axes = (1, 2, 3)
    squares = tf.reduce_sum(p * p, axes) + tf.reduce_sum(t, axes) + 2 * _DICE_SMOOTH
    return 1 - 2 * tf.reduce_sum(p * t, axes) / squares


def existence(exist: tf.Tensor, logits: tf.Tensor, double_sigmoid: bool = False) -> tf.Tensor:
    """Returns the binary cross entropy of each row, its mean over slots [batch].

    Args:
        exist: 0 or 1 [batch, slots].
        logits: [batch, slots].
        double_sigmoid: Takes the sigmoid of the sigmoid, as the authors' code does.
    """
    logits = tf.sigmoid(logits) if double_sigmoid else logits
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(exist, tf.float32), logits), axis=1)


def row_losses(
    mask: tf.Tensor, exist: tf.Tensor, logits: tf.Tensor, exist_logits: tf.Tensor, settings: LaneSettings
) -> dict[str, tf.Tensor]:
    """Returns `seg_sum`, `seg_weight` and `exist_sum` of each row, float32 [batch]; losses are made of them.

    Args:
        mask: Slots [batch, height, width].
        exist: Which have a lane [batch, slots].
        logits: [batch, height, width, classes].
        exist_logits: [batch, slots].
        settings: Which losses.
    """
    if settings.seg_loss == "dice":
        total = dice(mask, logits)
        weight = tf.ones_like(total)
    else:
        total, weight = weighted_cross_entropy(mask, logits, settings.background_weight)
    return {
        "seg_sum": total,
        "seg_weight": weight,
        "exist_sum": existence(exist, exist_logits, settings.double_sigmoid),
    }


def pixel_counts(mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns how many pixels of each lane are in both and in one or both of label and prediction.

    Args:
        mask: Slots [batch, height, width]; ignored pixels do not count.
        logits: [batch, height, width, classes].

    Returns:
        int32 [batch, classes - 1, 2], intersection and union.
    """
    lanes, labels = logits.shape[-1] - 1, tf.cast(mask, tf.int32)
    known = (labels != IGNORED)[..., None]
    predicted = tf.one_hot(tf.argmax(logits, -1, tf.int32) - 1, lanes, True, False, dtype=tf.bool) & known
    true = tf.one_hot(labels - 1, lanes, True, False, dtype=tf.bool) & known
    counts = [tf.reduce_sum(tf.cast(both, tf.int32), (1, 2)) for both in (predicted & true, predicted | true)]
    return tf.stack(counts, axis=-1)
