"""APGD: gradient steps with momentum that choose their own length for each row.

Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks
(https://arxiv.org/abs/2003.01690), algorithm 1 and section 3; the names are those of the paper.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from appzoo.adversarial_training.attacks.ball import Ball
from appzoo.adversarial_training.attacks.gradient import Attacked, Objective, with_gradient

# Share of the new step, against the last one (section 3.1).
ALPHA = 0.75
# Share of steps since the last checkpoint that must have raised the loss (condition 1).
RHO = 0.75
# Section 3.2: first checkpoint, what each interval is shorter than the one before, shortest interval, as shares.
_FIRST, _SHORTER, _SHORTEST = 0.22, 0.03, 0.06


class _State(NamedTuple):
    """Loop variables; all but `k` have one entry per row."""

    k: tf.Tensor
    x: tf.Tensor  # point to step from
    previous: tf.Tensor  # point before it
    loss: tf.Tensor  # at x
    gradient: tf.Tensor  # at x
    best: tf.Tensor  # x_max
    best_loss: tf.Tensor
    best_gradient: tf.Tensor
    found: tf.Tensor  # first misclassified point; the best one while there is none
    fooled: tf.Tensor  # whether there is one
    eta: tf.Tensor  # step size
    rises: tf.Tensor  # steps since the checkpoint that raised the loss
    kept_eta: tf.Tensor  # whether the step size stayed the same at the last checkpoint
    checked_loss: tf.Tensor  # best loss at the last checkpoint
    steepest: tf.Tensor


def checkpoints(steps: int) -> list[int]:
    """Returns the iterations w_1, w_2, ... below `steps` at which step sizes may be halved."""
    shares = [0.0, _FIRST]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - _SHORTER, _SHORTEST))
    # Rounded first: sums such as 0.22 + 0.19 are a little more than they are in decimal.
    found = [math.ceil(round(share * steps, 9)) for share in shares]
    return sorted({each for each in found if 0 < each < steps})


def auto_step(objective: Objective, images: tf.Tensor, ball: Ball, *, start: tf.Tensor, steps: int) -> Attacked:
    """Returns the first misclassified point that `steps` iterations meet, or the one of highest loss without any.

    Args:
        objective: What the attack raises; with the model in inference mode.
        images: Centres of the balls, float32 from 0 to 1, [batch, ...].
        ball: Where the result lies.
        start: First point; it is projected.
        steps: Iterations, at least 1.
    """
    wide = [-1] + [1] * (images.shape.rank - 1)
    marks = [0, *checkpoints(steps)]
    # Length of the interval that ends at iteration k, 0 where none ends.
    lengths = [0] * (steps + 1)
    for before, mark in zip(marks, marks[1:], strict=False):
        lengths[mark] = mark - before

    def step(*values: tf.Tensor) -> _State:
        s = _State(*values)
        z = ball.project(s.x + tf.reshape(s.eta, wide) * ball.direction(s.gradient), images)
        # The first step has no momentum.
        alpha = tf.where(s.k > 0, ALPHA, 1.0)
        x = ball.project(s.x + alpha * (z - s.x) + (1 - alpha) * (s.x - s.previous), images)
        moved = _moved(s, x, *with_gradient(objective, x), ball, wide)
        return _checked(moved, tf.gather(tf.constant(lengths), moved.k), wide)

    first = _first(tf.ensure_shape(ball.project(start, images), images.shape), objective, ball)
    end = tf.while_loop(lambda k, *_: k < steps, step, first, maximum_iterations=steps, parallel_iterations=1)
    return Attacked(tf.stop_gradient(end.found), tf.stop_gradient(end.steepest))


def _first(x: tf.Tensor, objective: Objective, ball: Ball) -> _State:
    loss, fooled, gradient = with_gradient(objective, x)
    return _State(
        k=tf.constant(0),
        x=x,
        previous=x,
        loss=loss,
        gradient=gradient,
        best=x,
        best_loss=loss,
        best_gradient=gradient,
        found=x,
        fooled=fooled,
        eta=tf.ones_like(loss) * 2.0 * ball.epsilon,
        rises=tf.zeros_like(loss, tf.int32),
        kept_eta=tf.zeros_like(fooled),
        checked_loss=loss,
        steepest=ball.dual_length(gradient),
    )


def _moved(
    s: _State, x: tf.Tensor, loss: tf.Tensor, fooled: tf.Tensor, gradient: tf.Tensor, ball: Ball, wide: list[int]
) -> _State:
    """Returns the state at the next point, with what is best so far."""
    better = loss > s.best_loss
    is_better, was_fooled = tf.reshape(better, wide), tf.reshape(s.fooled, wide)
    best = tf.where(is_better, x, s.best)
    return s._replace(
        k=s.k + 1,
        x=x,
        previous=s.x,
        loss=loss,
        gradient=gradient,
        best=best,
        best_loss=tf.maximum(loss, s.best_loss),
        best_gradient=tf.where(is_better, gradient, s.best_gradient),
        found=tf.where(was_fooled, s.found, tf.where(tf.reshape(fooled, wide), x, best)),
        fooled=s.fooled | fooled,
        rises=s.rises + tf.cast(loss > s.loss, tf.int32),
        steepest=tf.maximum(s.steepest, ball.dual_length(gradient)),
    )


def _checked(s: _State, length: tf.Tensor, wide: list[int]) -> _State:
    """Halves step sizes and goes back to the best point, at a checkpoint that ends `length` iterations.

    The paper's conditions look at points up to x(w), and it applies them behind x(w + 1); here they apply at once.
    """
    here = length > 0
    few_rises = tf.cast(s.rises, tf.float32) < RHO * tf.cast(length, tf.float32)
    stuck = s.kept_eta & (s.best_loss <= s.checked_loss)
    halve = here & (few_rises | stuck)
    back = tf.reshape(halve, wide)
    return s._replace(
        x=tf.where(back, s.best, s.x),
        loss=tf.where(halve, s.best_loss, s.loss),
        gradient=tf.where(back, s.best_gradient, s.gradient),
        eta=tf.where(halve, s.eta / 2, s.eta),
        kept_eta=tf.where(here, ~halve, s.kept_eta),
        checked_loss=tf.where(here, s.best_loss, s.checked_loss),
        rises=tf.where(here, 0, s.rises),
    )
