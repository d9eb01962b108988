"""What a student's layers are compared with: outputs, attentions and probes of its teacher's, as sums over a batch.

Outputs and attentions as in TinyBERT (Jiao et al. 2020, arXiv 1909.10351, equations 7 to 9), probes as in the original
EasyTransfer. Departs from the paper: attentions are compared as probabilities, not as scores before the softmax, and
padding counts neither as token nor as pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from appzoo.distillation_text.layer_map import LAST, UNIFORM
from easytransfer.errors import ConfigError
from easytransfer.losses.distillation import layer_at_height
from easytransfer.train.step import Loss

Pairs = Sequence[tuple[int, int]]


def layer_pairs(form: str, student: int, teacher: int) -> list[tuple[int, int]]:
    """Returns pairs of a layer of the student and one of the teacher, numbered from 1; 0 is what the first layer reads.

    `uniform` takes the layers at the same height, ceil(i N_t / N_s), and `last` the last ones of the teacher (TinyBERT,
    section 3.1); both pair the embeddings with each other.

    Args:
        form: `uniform`, `last`, or the pairs themselves, as `layer_map.check_form` takes them.
        student: Layers of the student, N_s.
        teacher: Layers of the teacher, N_t.

    Raises:
        ConfigError: A layer that is named is not there, or `last` needs more layers than the teacher has.
    """
    if form == UNIFORM:
        return [(i, layer_at_height(i, student, teacher)) for i in range(student + 1)]
    if form == LAST:
        if student > teacher:
            raise ConfigError(
                f"distillation.layer_map=last: the student has {student} layers and the teacher {teacher}",
                fix="use distillation.layer_map=uniform, or name the pairs",
            )
        return [(0, 0), *((i, teacher - student + i) for i in range(1, student + 1))]
    pairs = [(int(i), int(j)) for i, j in (pair.split(":") for pair in form.split(","))]
    for i, j in pairs:
        if i > student or j > teacher:
            raise ConfigError(
                "distillation.layer_map names a layer that is not there",
                received=f"{i}:{j}",
                accepted=f"0 to {student} of the student, 0 to {teacher} of the teacher",
            )
    return pairs


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
