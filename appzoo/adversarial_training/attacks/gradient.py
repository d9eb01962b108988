"""FGSM and PGD: steps along the gradient of a loss, each followed by a projection."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from appzoo.adversarial_training.attacks.ball import Ball

# Images to one loss per row [batch], which the attack makes as large as it can, and whether the row is misclassified.
Objective = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class Attacked(NamedTuple):
    """What an attack found.

    Attributes:
        images: The changed images, [batch, ...].
        steepness: Largest dual norm of the loss's gradient on the way, [batch]: a local Lipschitz estimate.
    """

    images: tf.Tensor
    steepness: tf.Tensor


def with_gradient(objective: Objective, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the loss of each row, whether it is misclassified, and the loss's gradient by the images."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        loss, fooled = objective(images)
        total = tf.reduce_sum(loss)
    # A classifier that rounds has no gradient: the attack stands still, and the robustness report shows it.
    return loss, fooled, tape.gradient(total, images, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def projected_gradient(
    objective: Objective, images: tf.Tensor, ball: Ball, *, start: tf.Tensor, steps: int, step_size: float | tf.Tensor
) -> Attacked:
    """Makes `steps` steps of `step_size` from `start` and returns the last point (https://arxiv.org/abs/1706.06083).

    Args:
        objective: What the attack raises; with the model in inference mode.
        images: Centres of the balls, float32 from 0 to 1, [batch, ...].
        ball: Where the result lies.
        start: First point, which may lie outside of ball and box: only steps are projected.
        steps: At least 1.
        step_size: Length of a step in the norm of the ball.
    """

    def step(number: tf.Tensor, point: tf.Tensor, steepest: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        _, _, gradient = with_gradient(objective, point)
        moved = ball.project(point + step_size * ball.direction(gradient), images)
        return number + 1, moved, tf.maximum(steepest, ball.dual_length(gradient))

    state = (tf.constant(0), tf.ensure_shape(start, images.shape), tf.zeros_like(ball.dual_length(images)))
    _, found, steepest = tf.while_loop(
        lambda number, *_: number < steps, step, state, maximum_iterations=steps, parallel_iterations=1
    )
    return Attacked(tf.stop_gradient(found), tf.stop_gradient(steepest))


def fast_gradient(objective: Objective, images: tf.Tensor, ball: Ball) -> Attacked:
    """Makes one step to the rim of the ball (FGSM, https://arxiv.org/abs/1412.6572)."""
    return projected_gradient(objective, images, ball, start=images, steps=1, step_size=ball.epsilon)
