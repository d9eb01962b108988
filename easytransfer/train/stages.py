"""Stages of a training: parts of a run that train other variables, with another optimizer, or on other losses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from easytransfer import keras
from easytransfer.config.job import TrainConfig
from easytransfer.optim.base import NO_DECAY

if TYPE_CHECKING:
    import tensorflow as tf

_FREEZING = ("num_freezed_layers", "freeze_embeddings")
# Fields of `TrainConfig` that a stage may have of its own; the others belong to the run.
SETTINGS = (
    *("optimizer_type", "learning_rate", "weight_decay_ratio", "momentum", "nesterov"),
    *("adam_beta1", "adam_beta2", "adam_epsilon", "lr_decay", "lr_power", "lr_milestones"),
    *("warmup_ratio", "warmup_start"),
    *("gradient_clip", "clip_norm_value", "layerwise_lr_decay", "ema_decay", *_FREEZING),
)


@dataclass(frozen=True, eq=False)
class OptimizerPart:
    """What one of the optimizers of a training has of its own.

    Attributes:
        variables: Trained by it and by no other one.
        settings: Fields of `TrainConfig` that differ for it, such as its `weight_decay_ratio`.
        no_decay: Regular expressions of the names of variables that it does not decay.
    """

    variables: Sequence[tf.Variable]
    settings: Mapping[str, Any] = field(default_factory=dict)
    no_decay: Sequence[str] = NO_DECAY


@dataclass(frozen=True, eq=False)
class TrainingStage:
    """One stage. Each has new optimizers, and a learning-rate schedule over its own steps.

    Attributes:
        name: What `step.stage`, checkpoints and reports call it.
        epochs: Passes over the training table; fractions are allowed. Without `steps` either, `train.num_epochs`.
        steps: Updates, in place of `epochs`.
        trains: What is trained: variables, such as those of `layer_groups`, or regular expressions of names of
            variables; None = all that optimizers and freezing leave. What is not trained stays as it is, bit for bit,
            the moving statistics of its batch normalization included.
        settings: Fields of `TrainConfig` that differ in this stage, see `SETTINGS`.
        begin: Called on every worker before the first step with the weights of the stage before (averaged ones where
            there are any), such as to copy a network into the teacher of the stage; the first worker's result counts.
            False ends the training: this stage and those behind it are not needed, and the one before was the last.

    Example:
        >>> [TrainingStage("head", epochs=2, trains=["^head/"], settings={"learning_rate": 1e-3}),
        ...  TrainingStage("all")]
    """

    name: str
    epochs: float | None = None
    steps: int | None = None
    trains: Sequence[tf.Variable | str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    begin: Callable[[], bool | None] | None = None

    @property
    def freezes(self) -> bool:
        """Whether the stage itself says what is not trained."""
        return self.trains is not None or any(name in self.settings for name in _FREEZING)

    def config(self, train: TrainConfig) -> TrainConfig:
        """Returns the settings of the run with those of the stage.

        Raises:
            ValueError: A value is not allowed.
        """
        if not self.settings:
            return train
        return type(train).model_validate({**train.model_dump(), **self.settings})

    def trained(self, variables: Sequence[tf.Variable]) -> set[int] | None:
        """Returns the ids of those of `variables` that the stage trains, None for all.

        Raises:
            ValueError: An entry of `trains` is none of them, or the name of none matches it.
        """
        if self.trains is None:
            return None
        found: set[int] = set()
        for wanted in self.trains:
            is_pattern = isinstance(wanted, str)
            ids = {id(v) for v in variables if (re.search(wanted, v.name) if is_pattern else v is wanted)}
            if not ids:
                what = f"a name like {wanted!r}" if is_pattern else wanted.name
                raise ValueError(f"stage {self.name!r} trains {what}, which is none of the variables of optimizers")
            found |= ids
        return found


# The course of a method that says nothing of stages.
ONE_STAGE = TrainingStage("training")


def check_stages(stages: Sequence[TrainingStage]) -> None:
    """Checks what an application says of its stages.

    Raises:
        ValueError: There are none, two have one name, a length is not positive or given twice, or a setting is not one
            of a stage.
    """
    names = [stage.name for stage in stages]
    if not names or not all(names) or len(set(names)) < len(names):
        raise ValueError(f"stages need names that differ, not {names}")
    for stage in stages:
        lengths = [length for length in (stage.epochs, stage.steps) if length is not None]
        if len(lengths) > 1 or any(length <= 0 for length in lengths):
            raise ValueError(
                f"stage {stage.name!r} has epochs={stage.epochs} and steps={stage.steps}: give one of them, above 0"
            )
        wrong = [name for name in stage.settings if name not in SETTINGS]
        if wrong:
            raise ValueError(f"stage {stage.name!r} sets {', '.join(wrong)}; a stage has {', '.join(SETTINGS)}")


@contextmanager
def kept_statistics(model: keras.Model, trained: Sequence[tf.Variable]) -> Iterator[None]:
    """Context in which batch normalization that is not trained uses its moving statistics and leaves them alone.

    Such a layer has scale or offset, and none of them is in `trained`; one without either is left as it is.
    """
    ids = {id(variable) for variable in trained}
    still = [
        layer
        for layer in model.submodules
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable_variables
        and not any(id(variable) in ids for variable in layer.trainable_variables)
    ]
    for layer in still:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in still:
            layer.trainable = True
