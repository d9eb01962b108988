"""What a student's layers are compared with: outputs, attentions and probes of its teacher's, as sums over a batch.

Outputs and attentions as in TinyBERT (Jiao et al. 2020, arXiv 1909.10351, equations 7 to 9), probes as in the original
EasyTransfer. Departs from the paper: attentions are compared as probabilities, not as scores before the softmax, and
padding counts neither as token nor as pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from easytransfer.train.step import Loss


def hidden_loss(student: Sequence[tf.Tensor], teacher: Sequence[tf.Tensor], token_weight: tf.Tensor) -> Loss:
    """Returns sum over pairs of sum_it w_it mean_k (h_itk - h'_itk)^2, by the sum of w.

    Args:
        student: h of each pair, [batch, tokens, width of the teacher].
        teacher: h' of each pair, of the same shape.
        token_weight: w, [batch, tokens], 0 for padding.
    """
    squares = [tf.reduce_mean(tf.square(ours - theirs), axis=-1) for ours, theirs in zip(student, teacher, strict=True)]
    return Loss(tf.reduce_sum(tf.add_n(squares) * token_weight), tf.reduce_sum(token_weight))


def attention_loss(student: Sequence[tf.Tensor], teacher: Sequence[tf.Tensor], token_weight: tf.Tensor) -> Loss:
    """Returns sum over pairs of sum_iqk w_iq w_ik mean_h (a_ihqk - a'_ihqk)^2, by the sum of w_iq w_ik.

    Args:
        student: a of each pair, [batch, heads, tokens, tokens].
        teacher: a' of each pair, of the same shape.
        token_weight: w, [batch, tokens], 0 for padding and 1 for tokens.
    """
    squares = [tf.reduce_mean(tf.square(ours - theirs), axis=1) for ours, theirs in zip(student, teacher, strict=True)]
    weight = token_weight[:, :, tf.newaxis] * token_weight[:, tf.newaxis]
    return Loss(tf.reduce_sum(tf.add_n(squares) * weight), tf.reduce_sum(weight))
