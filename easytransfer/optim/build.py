"""From the training configuration to a schedule and an optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from easytransfer.config.job import TrainConfig
from easytransfer.errors import ConfigError
from easytransfer.optim.adamw import AdamW
from easytransfer.optim.adaptive import Adadelta, Adagrad
from easytransfer.optim.base import NO_DECAY, Optimizer
from easytransfer.optim.lamb import LAMB
from easytransfer.optim.schedule import Schedule
from easytransfer.optim.sgd import SGD

# beta2 of the original for adam without weight decay; `compat_v1` asks for it.
COMPAT_BETA2 = 0.98


def build_schedule(train: TrainConfig, total_steps: int) -> Schedule:
    """Returns the learning-rate schedule over `total_steps` updates."""
    return Schedule(
        train.lr_decay,
        train.learning_rate,
        total_steps,
        train.warmup_ratio,
        train.lr_milestones,
        train.lr_power,
        train.warmup_start,
    )


def build_optimizer(
    train: TrainConfig,
    variables: Sequence[tf.Variable],
    factors: Sequence[float] | None = None,
    no_decay: Sequence[str] = NO_DECAY,
) -> Optimizer:
    """Returns the configured optimizer for `variables`.

    Args:
        train: Training section of the configuration.
        variables: Variables it updates.
        factors: Learning-rate factor per variable.
        no_decay: Regular expressions of variable names that are not decayed.

    Raises:
        ConfigError: Weight decay with an optimizer that has none.
    """
    name, decay = train.optimizer_type, train.weight_decay_ratio
    if name in ("adagrad", "adadelta"):
        if decay:
            raise ConfigError(
                f"weight_decay_ratio is not used by optimizer_type={name}",
                received=decay,
                accepted="adam, adamw, lamb or sgd with weight decay",
                fix="set weight_decay_ratio=0 or choose another optimizer_type",
            )
        return (Adagrad if name == "adagrad" else Adadelta)(variables, factors=factors)
    if name == "sgd":
        momentum = {"momentum": train.momentum, "nesterov": train.nesterov}
        return SGD(variables, factors=factors, weight_decay=decay, no_decay=no_decay, **momentum)
    beta2 = COMPAT_BETA2 if train.compat_v1 and name == "adam" and not decay else train.adam_beta2
    return (LAMB if name == "lamb" else AdamW)(
        variables,
        factors=factors,
        weight_decay=decay,
        no_decay=no_decay,
        beta1=train.adam_beta1,
        beta2=beta2,
        epsilon=train.adam_epsilon,
    )
