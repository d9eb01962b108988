"""The weight of the robust term while training goes on, and the risks that decide it.

Wu et al., Do Wider Neural Networks Really Help Adversarial Robustness? (https://arxiv.org/abs/2010.01279)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from appzoo.adversarial_training.config import AdversarialSettings, AdversarialTrainingConfig, width_ratio
from easytransfer.errors import ConfigError, ModelError
from easytransfer.run.folder import RunFolder
from easytransfer.run.log import say, warn
from easytransfer.train import checkpoint

# Share of the old value in the running risks.
DECAY = 0.9
# Lambda moves when the ratio leaves this band around zeta.
LOW, HIGH = 0.95, 1.05
_LEAST_RISK = 1e-8
# Step of lambda per epoch of one step; see `war_alpha`.
_ALPHA_PER_EPOCH = 0.8
# Settings without which a ratio says nothing about another run's.
_SAME = ("adv_method", "norm", "epsilon", "attack_steps", "step_size", "start_deviation")


@dataclass(frozen=True)
class Course:
    """How lambda moves under war.

    Attributes:
        zeta: Ratio of natural to robust risk to keep; None leaves lambda as it is.
        alpha: Step of lambda.
        largest: Largest lambda.
        begin: Steps before lambda first moves.
        end: Steps after which it moves no more; None = never.
    """

    zeta: float | None = None
    alpha: float = 0.0
    largest: float = 0.0
    begin: int = 0
    end: int | None = None


class LambdaController:
    """Keeps lambda and the running risks, the same on all workers and exact in a resumed run.

    After every batch, with R the ratio of the running natural to the running robust risk, lambda rises by alpha where
    R < 0.95 zeta, up to `largest`, and falls by alpha where R > 1.05 zeta, down to its first value.

    Departs from the paper: its update rule is in no public code; this band around the ratio is ours.

    Args:
        first: Lambda at the start.
        course: How it moves.

    Example:
        >>> controller = LambdaController(6.0, Course(zeta=40.0, alpha=0.1, largest=60.0))
        >>> controller.update(tf.constant([1.0, 0.05, 2.0]), tf.constant(0))  # R = 20
        >>> float(controller.value())
        6.1
    """

    def __init__(self, first: float, course: Course) -> None:
        self.first, self.course = first, course
        self._lambda = tf.Variable(first, dtype=tf.float32, trainable=False, name="lambda")
        self._natural = tf.Variable(0.0, trainable=False, name="natural_risk")
        self._robust = tf.Variable(0.0, trainable=False, name="robust_risk")
        self._batches = tf.Variable(0, dtype=tf.int64, trainable=False, name="batches")

    def value(self) -> tf.Tensor:
        """Returns lambda, a constant for gradients."""
        return tf.stop_gradient(self._lambda.read_value())

    def update(self, sums: tf.Tensor, step: tf.Tensor) -> None:
        """Takes the risks of a batch and moves lambda.

        Args:
            sums: Natural and robust risk, both summed over rows and without lambda, and the number of rows; over all
                workers, float32 [3].
            step: Updates made so far.
        """
        natural, robust = sums[0] / sums[2], sums[1] / sums[2]
        good = tf.math.is_finite(natural) & tf.math.is_finite(robust)
        first = self._batches == 0
        natural = tf.where(first, natural, DECAY * self._natural + (1 - DECAY) * natural)
        robust = tf.where(first, robust, DECAY * self._robust + (1 - DECAY) * robust)
        self._lambda.assign(tf.where(good, self._next(natural / tf.maximum(robust, _LEAST_RISK), step), self._lambda))
        self._natural.assign(tf.where(good, natural, self._natural))
        self._robust.assign(tf.where(good, robust, self._robust))
        self._batches.assign_add(tf.cast(good, tf.int64))

    def _next(self, ratio: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        now, course = self._lambda.read_value(), self.course
        if course.zeta is None:
            return now
        active = step >= tf.cast(course.begin, step.dtype)
        if course.end is not None:
            active &= step < tf.cast(course.end, step.dtype)
        raised, lowered = tf.minimum(now + course.alpha, course.largest), tf.maximum(now - course.alpha, self.first)
        moved = tf.where(ratio < LOW * course.zeta, raised, tf.where(ratio > HIGH * course.zeta, lowered, now))
        return tf.where(active, moved, now)

    @property
    def batches(self) -> int:
        """Batches seen so far."""
        return int(self._batches.numpy())

    def state(self) -> dict[str, Any]:
        """Returns lambda and the running risks as plain numbers, exactly."""
        names = {"lambda": self._lambda, "natural_risk": self._natural, "robust_risk": self._robust}
        return {"batches": self.batches, **{name: float(variable.numpy()) for name, variable in names.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what `state` returned."""
        self._lambda.assign(state["lambda"])
        self._natural.assign(state["natural_risk"])
        self._robust.assign(state["robust_risk"])
        self._batches.assign(state["batches"])


def controller_of(config: AdversarialTrainingConfig, steps_per_epoch: float) -> LambdaController:
    """Returns the controller that the configuration asks for.

    Args:
        config: Resolved configuration.
        steps_per_epoch: Updates of an epoch.

    Raises:
        ConfigError: The thin run cannot be compared with this one.
        ModelError: The folder of the thin run holds none.
    """
    chosen = config.adversarial
    if chosen.adv_lambda_mode == "sqrt":
        ratio = width_ratio(config.model.network, str(chosen.thin_network))
        first = chosen.adv_lambda * ratio**0.5
        say(f"lambda is {first:.4g}: {chosen.adv_lambda:g} times the root of {ratio:g}")
        return LambdaController(first, Course())
    if chosen.adv_lambda_mode == "fixed":
        return LambdaController(chosen.adv_lambda, Course())
    zeta = _zeta(str(chosen.war_zeta), config)
    course = Course(
        zeta=zeta,
        alpha=chosen.war_alpha or _ALPHA_PER_EPOCH / steps_per_epoch,
        largest=chosen.war_lambda_max,
        begin=round(chosen.war_skip_epochs * steps_per_epoch),
        end=None if chosen.war_freeze_epoch is None else round(chosen.war_freeze_epoch * steps_per_epoch),
    )
    say(f"war keeps natural by robust risk at {zeta:.4g}; lambda moves by {course.alpha:.3g} from step {course.begin}")
    return LambdaController(chosen.adv_lambda, course)


def _zeta(given: str, config: AdversarialTrainingConfig) -> float:
    """Returns the number, or the ratio at the end of the run in a folder."""
    try:
        return float(given)
    except ValueError:
        pass
    folder = Path(given)
    path = checkpoint.resolve(folder if (folder / checkpoint.STATE).is_file() else folder / "model.ckpt-last")
    state = json.loads((path / checkpoint.STATE).read_text(encoding="utf-8"))["task"]
    if not state.get("batches") or not state["robust_risk"] > 0:
        raise ModelError(f"{path} has no risks", fix="war_zeta takes a run of adversarial_training")
    _check_comparable(path.parent, config)
    return state["natural_risk"] / state["robust_risk"]


def _check_comparable(folder: Path, config: AdversarialTrainingConfig) -> None:
    stored, own = RunFolder(folder).config, config.adversarial
    thin = AdversarialSettings.model_validate(stored["adversarial"])
    for name in _SAME:
        theirs, mine = getattr(thin, name), getattr(own, name)
        if theirs != mine:
            raise ConfigError(
                f"adversarial.{name} differs from that of the thin run {folder}",
                received=mine,
                accepted=str(theirs),
                fix="a ratio of risks means something only between runs with the same attack and loss",
            )
    pairs = {
        "adversarial.adv_lambda": (thin.adv_lambda, own.adv_lambda),
        "train.num_epochs": (stored["train"]["num_epochs"], config.train.num_epochs),
    }
    for name, (theirs, mine) in pairs.items():
        if theirs != mine:
            warn(f"{name} is {mine:g}, that of the thin run {theirs:g}: its ratio of risks may not fit")
