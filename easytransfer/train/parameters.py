"""Which variables are trained by which optimizer, and with which share of the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easytransfer.config.job import TrainConfig
from easytransfer.errors import ConfigError
from easytransfer.layers.lora import without_base
from easytransfer.train.stages import ONE_STAGE, OptimizerPart, TrainingStage

if TYPE_CHECKING:
    import tensorflow as tf

    from easytransfer.train.task import Task


@dataclass(frozen=True)
class Parameters:
    """Variables of one optimizer with their learning-rate factors, and its part of the training."""

    variables: list[tf.Variable]
    factors: list[float]
    part: OptimizerPart


def select_parameters(task: Task, train: TrainConfig, stage: TrainingStage = ONE_STAGE) -> dict[str, Parameters]:
    """Applies freezing, layer-wise decay and what a stage trains to the variables of every optimizer of `task`.

    Group 0 of `task.layer_groups()` is the embeddings, the last the head; `num_freezed_layers=n` takes out groups 1..n,
    and group 0 too unless `freeze_embeddings=false`. A group's factor is layerwise_lr_decay ** (groups above it); a
    variable in no group has factor 1 and is never frozen. What adapters stand beside is never trained.

    Raises:
        ConfigError: More layers to freeze than the model has, or nothing left to train.
        ValueError: An optimizer has a variable that `task.model` does not own, or that another one has; or the stage
            trains what no optimizer has.
    """
    frozen, factors = _by_group(task.layer_groups(), train)
    owners: dict[int, str] = {}
    selected = {}
    owned = {id(variable) for variable in task.model.weights}
    optimizers = task.optimizers()
    trained = stage.trained([variable for part in optimizers.values() for variable in part.variables])
    for name, part in optimizers.items():
        for variable in part.variables:
            if id(variable) not in owned:
                raise ValueError(f"optimizer {name!r} has variable {variable.name}, which task.model does not own")
            if owners.setdefault(id(variable), name) != name:
                raise ValueError(
                    f"variable {variable.name} belongs to optimizers {owners[id(variable)]!r} and {name!r}"
                )
        kept = [
            v for v in without_base(part.variables) if id(v) not in frozen and (trained is None or id(v) in trained)
        ]
        selected[name] = Parameters(kept, [factors.get(id(variable), 1.0) for variable in kept], part)
    if not any(parameters.variables for parameters in selected.values()):
        raise ConfigError(
            "nothing is left to train",
            received=f"num_freezed_layers={train.num_freezed_layers}, freeze_embeddings={train.freeze_embeddings}",
            fix="freeze fewer layers",
        )
    return selected


def _by_group(groups: list[list[tf.Variable]], train: TrainConfig) -> tuple[set[int], dict[int, float]]:
    """Returns the ids of frozen variables and the factor by variable id."""
    count = train.num_freezed_layers
    embeddings = train.freeze_embeddings if train.freeze_embeddings is not None else count > 0
    layers = max(0, len(groups) - 2)
    if count > layers:
        raise ConfigError(
            "num_freezed_layers is larger than the number of encoder layers",
            received=count,
            accepted=f"0 to {layers}",
            fix="lower num_freezed_layers" if layers else "this model has no encoder layers to freeze",
        )
    if embeddings and len(groups) < 2:
        raise ConfigError(
            "freeze_embeddings does not apply: this model has no separate embeddings", fix="set freeze_embeddings=false"
        )
    frozen_groups = groups[1 : count + 1] + (groups[:1] if embeddings else [])
    frozen = {id(variable) for group in frozen_groups for variable in group}
    factors = {
        id(variable): train.layerwise_lr_decay ** (len(groups) - 1 - depth)
        for depth, group in enumerate(groups)
        for variable in group
    }
    return frozen, factors
