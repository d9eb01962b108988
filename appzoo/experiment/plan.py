"""What an experiment trains: the arms of an application, each a configuration or a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from appzoo.discovery import resolve
from appzoo.tuning.space import with_values
from easytransfer.app.arms import Arm
from easytransfer.config.job import JobConfig
from easytransfer.errors import ConfigError, did_you_mean
from easytransfer.run.comparison import flat


@dataclass(frozen=True)
class PlannedArm:
    """An arm of one experiment.

    Attributes:
        name: Its name.
        what: What it is, in few words.
        config: Configuration of its trainings, but for seed and folder; None for what is finished.
        finished: The finished run or export; None for what is trained.
    """

    name: str
    what: str
    config: JobConfig | None = None
    finished: Path | None = None


def planned_arms(config: JobConfig, names: Sequence[str] = ()) -> list[PlannedArm]:
    """Returns the arms of an experiment, the one that others are compared with first.

    Args:
        config: The configuration as given.
        names: Of the arms; empty for the baselines of the application and what the configuration says.

    Raises:
        ConfigError: There is no such arm, it does not fit the configuration, or two are the same.
    """
    application, variant = resolve(str(config.model_name))
    declared = application.arms(variant) or {str(config.model_name): Arm()}
    values = flat(config.model_dump(mode="json"))
    for name in names:
        if name not in declared:
            raise ConfigError(
                f"{config.model_name} has no such arm",
                received=name,
                accepted=declared,
                fix=did_you_mean(name, declared),
            )
    if twice := next((name for at, name in enumerate(names) if name in names[:at]), None):
        raise ConfigError("an arm is named twice", received=twice)
    chosen = names or [name for name, arm in declared.items() if arm.baseline or _is_given(arm, values)]
    arms = [_planned(config, name, declared[name], values) for name in chosen]
    trained = [(arm.name, arm.config.model_dump()) for arm in arms if arm.config is not None]
    if not trained:
        raise ConfigError("no arm of the experiment is trained", received=",".join(chosen), accepted=declared)
    for (first, one), (second, other) in combinations(trained, 2):
        if one == other:
            raise ConfigError(f"the arms {first} and {second} are the same training", fix="name one of them in --arms")
    return arms


def _is_given(arm: Arm, values: Mapping[str, Any]) -> bool:
    return arm.finished is None and all(values.get(path) == value for path, value in arm.settings.items())


def _planned(config: JobConfig, name: str, arm: Arm, values: Mapping[str, Any]) -> PlannedArm:
    if arm.finished is None:
        shown = ", ".join(f"{path}={value}" for path, value in arm.settings.items() if value is not None)
        return PlannedArm(name, shown or "as configured", with_values(config, arm.settings, f"arm {name}"))
    place = values.get(arm.finished)
    if place is None:
        raise ConfigError(
            f"the arm {name} is a finished run, and {arm.finished} names none",
            fix=f"set {arm.finished}, or name the other arms in --arms",
        )
    if not Path(place).exists():
        raise ConfigError(f"the arm {name} is a finished run, and there is none", received=str(place))
    if not config.data.eval_table:
        raise ConfigError(
            f"the arm {name} is measured on the evaluation table, and there is none",
            fix="give --evalTable=FILE, or name the other arms in --arms",
        )
    return PlannedArm(name, f"the run {place}", finished=Path(place))
