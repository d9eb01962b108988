"""What the methods of a task see of the training step they belong to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from easytransfer.deferred import tf

if TYPE_CHECKING:
    from easytransfer.layers.draws import RowDraws
    from easytransfer.train.loss_scale import LossScale
    from easytransfer.train.train_schedule import Span


class Loss(NamedTuple):
    """One term of an objective: `sum` over the rows of a batch, divided by the `weight` of all batches of the step.

    The weight depends on the batch alone (labels, masks, counts), never on what is trained of the model: it is added up
    over micro-batches and workers before anything is differentiated.
    """

    sum: tf.Tensor
    weight: tf.Tensor


Losses = dict[str, Loss]


class Step:
    """A step outside of training, as evaluations have it: schedules are at their end.

    Attributes:
        training: Whether weights are about to be updated.
        number: Updates made so far, an int64 scalar.
        total: Updates of the whole run.
        stage: Name of the stage; None outside of training.
        stage_number: Updates made so far in the stage, an int64 scalar.
        stage_total: Updates of the whole stage.
        epoch: Number of the epoch in which the step begins, from 0, an int64 scalar.
        draws: Random numbers of the rows that `training_batch` has used some of.
    """

    training = False
    total = stage_total = 1
    stage: str | None = None
    draws: RowDraws | None = None

    @property
    def number(self) -> tf.Tensor:
        """Returns the number of updates made so far."""
        return tf.constant(self.total, tf.int64)

    @property
    def stage_number(self) -> tf.Tensor:
        """Returns the number of updates made so far in the stage."""
        return tf.constant(self.stage_total, tf.int64)

    @property
    def epoch(self) -> tf.Tensor:
        """Returns the number of the epoch in which the step begins."""
        return tf.constant(1, tf.int64)


EVALUATION = Step()


class Stepper(Protocol):
    """What a step asks of the engine that makes it."""

    total_steps: int
    span: Span
    step: tf.Variable
    loss_scale: LossScale | None
    optimizers: Mapping[str, Any]

    def variables(self, name: str = "default") -> list[tf.Variable]:
        """Returns the variables optimizer `name` trains."""

    def epoch(self) -> tf.Tensor:
        """Returns the number of the epoch in which the next step begins."""


class TrainingStep(Step):
    """One (micro-)batch of a training step, inside the graph of the engine.

    All updates take effect together when `train_step` has returned, which makes accumulation, XLA and several workers
    give the same result.

    Args:
        engine: Makes the step.
        draws: Random numbers of the rows.
        totals: Weights of the losses in all batches of the step, in the order `objective` meets them; None where this
            batch is all of it, or where they are being found out.
    """

    training = True

    def __init__(self, engine: Stepper, draws: RowDraws, totals: tf.Tensor | None = None) -> None:
        self._engine, self.draws, self._totals = engine, draws, totals
        self.total = engine.total_steps
        self.stage, self.stage_total = engine.span.name, engine.span.end - engine.span.start
        # Of losses with weights of their own, in the order met.
        self.own_weights: list[tf.Tensor] = []
        self.divisors: dict[str, tf.Tensor | None] = {}
        self.gradients: dict[str, list[tf.Tensor | tf.IndexedSlices | None]] = {}
        self.conditions: dict[str, tf.Tensor | None] = {}

    @property
    def number(self) -> tf.Tensor:
        """Returns the number of updates made so far."""
        return self._engine.step.read_value()

    @property
    def stage_number(self) -> tf.Tensor:
        """Returns the number of updates made so far in the stage."""
        return self.number - self._engine.span.start

    @property
    def epoch(self) -> tf.Tensor:
        """Returns the number of the epoch in which the step begins.

        Raises:
            ValueError: The engine was not told how long an epoch is.
        """
        return self._engine.epoch()

    def variables(self, name: str = "default") -> list[tf.Variable]:
        """Returns the variables optimizer `name` trains, frozen ones left out."""
        return self._engine.variables(name)

    def objective(self, losses: Losses, *names: str) -> tf.Tensor:
        """Returns the scalar to differentiate for the optimizers `names`: the sum of the losses, each by its weight.

        Losses that share one weight (the same tensor) are added up and divided by it after the gradients were summed.
        The value is in float32 and, under float16, multiplied by the loss scale.
        """
        terms = list(losses.values())
        if all(weight is terms[0][1] for _, weight in terms):
            value, divisor = tf.add_n([total for total, _ in terms]), terms[0][1]
        else:
            parts = zip(terms, self._divided_by([weight for _, weight in terms]), strict=True)
            value, divisor = tf.add_n([tf.math.divide_no_nan(_float(total), by) for (total, _), by in parts]), None
        self.divisors.update(dict.fromkeys(names or ("default",), divisor))
        return self.scale(value)

    def scale(self, value: tf.Tensor) -> tf.Tensor:
        """Returns a summed loss in float32, times the loss scale under float16."""
        value, scale = _float(value), self._engine.loss_scale
        return value if scale is None else value * scale.value

    def update(self, gradients: Sequence, name: str = "default", *, when: tf.Tensor | None = None) -> None:
        """Hands gradients of `objective` to optimizer `name`. Call it once per optimizer, outside of conditionals.

        Args:
            gradients: One per variable of `variables(name)`; None for a variable the loss does not depend on.
            name: Optimizer.
            when: Scalar bool; False skips this optimizer in this step (a critic trained more often than a generator).

        Raises:
            ValueError: Unknown optimizer, no objective, second call, or another number of gradients.
        """
        known = self._engine.optimizers
        if name not in known:
            raise ValueError(f"step.update({name!r}): this is none of the optimizers {list(known)}")
        if name not in self.divisors:
            raise ValueError(f"step.update({name!r}) before step.objective(losses, {name!r})")
        expected = self.variables(name)
        if len(gradients) != len(expected):
            raise ValueError(f"optimizer {name!r} trains {len(expected)} variables, got {len(gradients)} gradients")
        if not expected:
            raise ValueError(f"optimizer {name!r} trains nothing in stage {self.stage!r}: leave its update out there")
        if name in self.gradients:
            raise ValueError(f"step.update({name!r}) was called twice in one train step; add the losses instead")
        if all(gradient is None for gradient in gradients):
            raise ValueError(f"the loss given to step.update({name!r}) depends on none of its variables")
        self.gradients[name], self.conditions[name] = list(gradients), when

    def _divided_by(self, weights: list[tf.Tensor]) -> list[tf.Tensor]:
        """Returns what losses with weights of their own are divided by."""
        first, weights = len(self.own_weights), [_float(weight) for weight in weights]
        self.own_weights += weights
        return weights if self._totals is None else [self._totals[first + i] for i in range(len(weights))]


def weighted_means(sums: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Returns each loss by its weight, 0 where only its own weight is 0 and nan where no loss has any."""
    seen = any(weights.values())
    return {name: total / weights[name] if weights[name] else 0.0 if seen else math.nan for name, total in sums.items()}


def _float(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.float32)
