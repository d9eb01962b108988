"""Settings of the trackers of experiments."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from easytransfer.config.schema import ConfigModel, setting

TrackerName = Literal["mlflow", "wandb"]


class TrackingConfig(ConfigModel):
    """Where settings, metrics and results of a training are written beside its run folder."""

    trackers: list[TrackerName] = setting(
        [],
        "mlflow, wandb, or both; each needs the extra of its name. Nothing leaves this machine by default.",
        modes="T",
    )
    project: str = setting(
        "easytransfer", "Experiment of MLflow, project of Weights & Biases.", advanced=True, modes="T", min_length=1
    )
    mlflow_uri: str | None = setting(
        None,
        "Folder or address of MLflow's store; default: the folder mlruns beside the run folder. An address of another "
        "machine needs offline=false.",
        advanced=True,
        modes="T",
        path="one",
    )
    wandb_mode: Literal["offline", "online"] = setting(
        "offline",
        "offline writes the folder wandb beside the run folder, which `wandb sync` uploads; online sends as it goes, "
        "and needs offline=false.",
        advanced=True,
        modes="T",
    )

    @field_validator("trackers")
    @classmethod
    def _each_once(cls, value: list[TrackerName]) -> list[TrackerName]:
        if len(set(value)) < len(value):
            raise ValueError("each at most once")
        return value
