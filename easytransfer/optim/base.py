"""Base of the optimizers: variables, slots, exclusions by name, learning-rate factors."""

from __future__ import annotations

import abc
import re
from collections.abc import Sequence

import tensorflow as tf

from easytransfer.distributed.shards import mark_shard, shard_of

# What runs before `NO_DECAY` had its present form did not decay (the original's list); a resumed one goes on so.
FORMER_NO_DECAY = ("LayerNorm", "layer_norm", "bias")
# Variables whose names match any of these are not decayed: biases, and scales and offsets of layer and batch
# normalization. The original's list, and what its networks had none of.
NO_DECAY = (*FORMER_NO_DECAY, r"(^|/)(gamma|beta)(:|$)")


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether any of the regular expressions is found in `name`."""
    return any(re.search(pattern, name) for pattern in patterns)


class Optimizer(tf.Module, abc.ABC):
    """Updates a fixed list of variables from dense gradients.

    Gradients of embeddings must be made dense by the caller: moments decay for every row at every step, also for rows
    the batch did not touch, and a sparse update would skip that. All state lives in `slots` and `iterations`.

    Args:
        variables: Variables to update.
        factors: Learning-rate factor of each variable (layer-wise decay); 1 when None.
        weight_decay: Decoupled decay rate.
        no_decay: Regular expressions of variable names that are not decayed.
    """

    SLOTS: tuple[str, ...] = ()
    INITIAL: float = 0.0

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        *,
        factors: Sequence[float] | None = None,
        weight_decay: float = 0.0,
        no_decay: Sequence[str] = NO_DECAY,
    ) -> None:
        super().__init__()
        self.variables_updated = list(variables)
        self.factors = [1.0] * len(self.variables_updated) if factors is None else list(factors)
        if len(self.factors) != len(self.variables_updated):
            raise ValueError(f"{len(self.factors)} factors for {len(self.variables_updated)} variables")
        self._weight_decay = weight_decay
        self.leave_out(no_decay)
        self.iterations = tf.Variable(0, dtype=tf.int64, trainable=False, name="iterations")
        self.slots = [{slot: self._slot(variable) for slot in self.SLOTS} for variable in self.variables_updated]

    def leave_out(self, no_decay: Sequence[str]) -> None:
        """Sets which variables are not decayed, by regular expressions of their names; before the first step."""
        self.no_decay = tuple(no_decay)
        rate = self._weight_decay
        self.decays = [0.0 if matches(v.name, self.no_decay) else rate for v in self.variables_updated]

    def _slot(self, variable: tf.Variable) -> tf.Variable:
        """Makes a slot; that of a variable split over workers is split in the same way."""
        initial = tf.fill(variable.shape, tf.constant(self.INITIAL, variable.dtype))
        slot = tf.Variable(initial, trainable=False)
        shard = shard_of(variable)
        if shard is not None:
            mark_shard(slot, shard)
        return slot

    def apply(self, gradients: Sequence[tf.Tensor | None], learning_rate: tf.Tensor) -> None:
        """Updates every variable whose gradient is not None, and counts one iteration.

        Args:
            gradients: Dense gradients in the order of `variables_updated`.
            learning_rate: Scalar rate of this step.
        """
        step = tf.cast(self.iterations.assign_add(1), tf.float64)
        rate = tf.cast(learning_rate, tf.float64)
        for i, (variable, gradient) in enumerate(zip(self.variables_updated, gradients, strict=True)):
            if gradient is not None:
                self._update(variable, gradient, rate * self.factors[i], step, self.decays[i], self.slots[i])

    @abc.abstractmethod
    def _update(
        self,
        variable: tf.Variable,
        gradient: tf.Tensor,
        rate: tf.Tensor,
        step: tf.Tensor,
        decay: float,
        slots: dict[str, tf.Variable],
    ) -> None:
        """Updates one variable; `rate` and `step` are float64 scalars, `step` counts from 1."""
