"""Logits on a sphere, and the divergence of a student from a teacher.

Spherical Knowledge Distillation (https://arxiv.org/abs/2010.07485) takes the magnitude out of logits: it is confidence,
which a small network cannot copy from a large one. Everything is computed in float32 whatever the type of the logits.
"""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from easytransfer.losses.adversarial import kl_rows

# Added to the variance (the squared length, for `l2`) in training, and where nothing is trained.
TRAINING_EPSILON, VALIDATION_EPSILON = 1e-7, 1e-9

Variant = Literal["layer_norm", "teacher_std", "l2"]


def deviation(logits: tf.Tensor) -> tf.Tensor:
    """Returns the standard deviation over the classes (dividing by their number), float32 [batch]."""
    return tf.math.reduce_std(tf.cast(logits, tf.float32), axis=-1)


def length(logits: tf.Tensor) -> tf.Tensor:
    """Returns the Euclidean norm over the classes, float32 [batch]."""
    return tf.norm(tf.cast(logits, tf.float32), axis=-1)


def on_sphere(logits: tf.Tensor, epsilon: float = TRAINING_EPSILON) -> tf.Tensor:
    """Returns (z - mean) / sqrt(variance + epsilon) over the classes: centred, of norm sqrt(classes).

    Args:
        logits: z, [batch, classes].
        epsilon: Keeps the result finite where all logits are equal.
    """
    logits = tf.cast(logits, tf.float32)
    centred = logits - tf.reduce_mean(logits, axis=-1, keepdims=True)
    return centred * tf.math.rsqrt(tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True) + epsilon)


def at_unit_length(logits: tf.Tensor, epsilon: float = TRAINING_EPSILON) -> tf.Tensor:
    """Returns z / sqrt(|z|^2 + epsilon), which unlike `on_sphere` depends on what all logits have in common."""
    logits = tf.cast(logits, tf.float32)
    return logits * tf.math.rsqrt(tf.reduce_sum(tf.square(logits), axis=-1, keepdims=True) + epsilon)


def rescaled_pair(
    variant: Variant,
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    multiplier: tf.Tensor | float = 1.0,
    epsilon: float = TRAINING_EPSILON,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the logits of student and teacher that the losses are computed on. No gradient reaches the teacher.

    With N = `on_sphere`, U = `at_unit_length`, s and t the deviations of the logits z_s and z_t, and the multiplier m:

        layer_norm    m N(z_s),   m N(z_t)
        teacher_std   t N(z_s),   z_t
        l2            m U(z_s),   m U(z_t)

    Args:
        variant: One of the above.
        student_logits: [batch, classes].
        teacher_logits: [batch, classes].
        multiplier: Scalar, or [batch, 1].
        epsilon: See `on_sphere`.

    Raises:
        ValueError: Unknown variant, or shapes that differ.
    """
    teacher_logits = tf.stop_gradient(tf.cast(teacher_logits, tf.float32))
    student_logits = tf.convert_to_tensor(student_logits)
    if not teacher_logits.shape.is_compatible_with(student_logits.shape):
        raise ValueError(f"teacher logits are {teacher_logits.shape}, student logits {student_logits.shape}")
    if variant == "layer_norm":
        return multiplier * on_sphere(student_logits, epsilon), multiplier * on_sphere(teacher_logits, epsilon)
    if variant == "teacher_std":
        return deviation(teacher_logits)[:, None] * on_sphere(student_logits, epsilon), teacher_logits
    if variant == "l2":
        return multiplier * at_unit_length(student_logits, epsilon), multiplier * at_unit_length(
            teacher_logits, epsilon
        )
    raise ValueError(f"unknown variant {variant!r}; accepted: layer_norm, teacher_std, l2")


def divergence_sum(
    teacher_logits: tf.Tensor, student_logits: tf.Tensor, temperature: float, example_weight: tf.Tensor
) -> tf.Tensor:
    """Returns T^2 sum_i w_i KL(softmax(t_i / T) || softmax(s_i / T)), a float32 scalar.

    Args:
        teacher_logits: t, [batch, classes].
        student_logits: s, [batch, classes].
        temperature: T.
        example_weight: w, [batch]; 0 removes an example.
    """
    rows = kl_rows(*(tf.cast(z, tf.float32) / temperature for z in (teacher_logits, student_logits)))
    return temperature**2 * tf.reduce_sum(rows * tf.cast(example_weight, tf.float32))
