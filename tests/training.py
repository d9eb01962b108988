"""Trainings of tests: without the export at their end, which costs more than a short training, and stopped midway."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from easytransfer.run.report import NullReporter


@contextmanager
def without_export() -> Iterator[None]:
    """Has `jobs.train` name the folder of the export and write nothing there."""
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("appzoo.jobs.train")
        patch.setattr(module, "export_app", lambda app, run, base, *_, **__: SimpleNamespace(path=base / "model" / "1"))
        yield


class StopAt(NullReporter):
    """Stops the training when it has come to a step.

    Args:
        at: The step; None stops nothing.
    """

    def __init__(self, at: int | None) -> None:
        self._at = at

    def step(self, step: int, metrics: Any) -> None:
        """Sends the signal."""
        if step == self._at:
            os.kill(os.getpid(), signal.SIGTERM)
