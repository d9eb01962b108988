"""What a student learns from its meta-teacher, for each row of a batch (Meta-KD, Pan et al. 2021, arXiv 2012.01266).

Distances of layers are those of TinyBERT (Jiao et al. 2020, arXiv 1909.10351, equations 7 to 9), but of attentions as
probabilities, without padding, and as a mean over the tokens of each row, so that a row can be weighted.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def expertise(teacher_logits: tf.Tensor, labels: tf.Tensor, typicality: tf.Tensor) -> tf.Tensor:
    """Returns the domain-expertise weights (1 + t_i) / (exp((p_i - 1)^2) + 1), float32 [batch], without gradients.

    p is what the meta-teacher gives the class of the row; a weight lies between (1 + t) / (e + 1) and (1 + t) / 2
    (Meta-KD, section 3, meta-distillation).

    Args:
        teacher_logits: [batch, classes].
        labels: Classes, int [batch].
        typicality: t, [batch].
    """
    given = tf.gather(tf.nn.softmax(tf.cast(teacher_logits, tf.float32)), labels, batch_dims=1)
    return tf.stop_gradient((1 + typicality) / (tf.exp(tf.square(given - 1)) + 1))


def hidden_rows(student: Sequence[tf.Tensor], teacher: Sequence[tf.Tensor], input_mask: tf.Tensor) -> tf.Tensor:
    """Returns sum over pairs of mean_t mean_k (h_itk - h'_itk)^2 over the tokens t of each row i, float32 [batch].

    TinyBERT, equations 8 and 9: of embeddings, and of the outputs of layers.

    Args:
        student: h of each pair, [batch, tokens, width of the teacher].
        teacher: h' of each pair, of the same shape.
        input_mask: [batch, tokens], 1 for tokens.
    """
    squares = [tf.reduce_mean(tf.square(ours - theirs), axis=-1) for ours, theirs in zip(student, teacher, strict=True)]
    mask = tf.cast(input_mask, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(tf.add_n(squares) * mask, axis=1), tf.reduce_sum(mask, axis=1))


def attention_rows(student: Sequence[tf.Tensor], teacher: Sequence[tf.Tensor], input_mask: tf.Tensor) -> tf.Tensor:
    """Returns sum over pairs of mean_qk mean_h (a_ihqk - a'_ihqk)^2 over tokens q, k of each row, float32 [batch].

    TinyBERT, equation 7.

    Args:
        student: a of each pair, [batch, heads, tokens, tokens].
        teacher: a' of each pair, of the same shape.
        input_mask: [batch, tokens], 1 for tokens.
    """
    squares = [tf.reduce_mean(tf.square(ours - theirs), axis=1) for ours, theirs in zip(student, teacher, strict=True)]
    mask = tf.cast(input_mask, tf.float32)
    both = mask[:, :, tf.newaxis] * mask[:, tf.newaxis]
    return tf.math.divide_no_nan(tf.reduce_sum(tf.add_n(squares) * both, [1, 2]), tf.reduce_sum(both, [1, 2]))


def transfer_rows(student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """Returns mean_k (r_ik - r'_ik)^2, float32 [batch]: transferable knowledge distillation (Meta-KD, section 3).

    Args:
        student: r, the representation of domain and text, [batch, width of the teacher].
        teacher: r', of the same shape.
    """
    return tf.reduce_mean(tf.square(student - teacher), axis=-1)
