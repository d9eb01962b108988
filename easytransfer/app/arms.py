"""The arms of an experiment: trainings of one application that are compared with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Arm:
    """One side of an experiment; an application declares its own in `ARMS` of its `arms.py`.

    Attributes:
        settings: What is set in place of the settings given, by dotted path.
        finished: Path of the setting that names a finished run or export: the arm is measured and never trained.
        baseline: Whether it runs in every experiment; the others do where `settings` is what the configuration says.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    finished: str | None = None
    baseline: bool = False
