"""Makes the attack of a name."""

from __future__ import annotations

import tensorflow as tf

from appzoo.adversarial_training.attacks.auto_step import auto_step
from appzoo.adversarial_training.attacks.ball import Ball
from appzoo.adversarial_training.attacks.gradient import Attacked, Objective, fast_gradient, projected_gradient
from appzoo.adversarial_training.attacks.names import STEP_SHARE, NamedAttack
from appzoo.adversarial_training.attacks.noise import Draws, random_start
from appzoo.adversarial_training.attacks.objectives import Logits, objective


def attacked(
    attack: NamedAttack,
    logits: Logits,
    images: tf.Tensor,
    labels: tf.Tensor,
    ball: Ball,
    draws: Draws,
    step_size: float | tf.Tensor | None = None,
) -> Attacked:
    """Attacks a batch. PGD and APGD start at a uniformly random point of the ball, FGSM at the images.

    Args:
        attack: What `named_attack` returns.
        logits: The attacked model in inference mode.
        images: float32 from 0 to 1, [batch, ...].
        labels: Class ids, int [batch].
        ball: Where the result lies.
        draws: Random numbers of the starts.
        step_size: Of PGD; 7/31 of the radius when None.
    """
    if attack.kind == "fgsm":
        return fast_gradient(objective("ce", logits, labels, images), images, ball)
    start = random_start(images, ball, draws)
    if attack.kind == "noise":
        return Attacked(ball.project(start, images), tf.zeros_like(ball.dual_length(images)))
    found = None
    for loss in attack.losses:
        goal = objective(loss, logits, labels, images)
        if attack.kind == "pgd":
            size = STEP_SHARE * ball.epsilon if step_size is None else step_size
            this = projected_gradient(goal, images, ball, start=start, steps=attack.steps, step_size=size)
        else:
            this = auto_step(goal, images, ball, start=start, steps=attack.steps)
        found = this if found is None else _worse(found, this, goal)
    return found


def _worse(first: Attacked, second: Attacked, goal: Objective) -> Attacked:
    """Returns the first result of the rows that it fooled, the second of the others."""
    _, fooled = goal(first.images)
    wide = tf.reshape(fooled, [-1] + [1] * (first.images.shape.rank - 1))
    images = tf.where(wide, first.images, second.images)
    return Attacked(images, tf.maximum(first.steepness, second.steepness))
