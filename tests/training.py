"""Training without the export at its end, which costs more than a short training, for tests of what comes before."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest


@contextmanager
def without_export() -> Iterator[None]:
    """Has `jobs.train` name the folder of the export and write nothing there."""
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("appzoo.jobs.train")
        patch.setattr(module, "export_app", lambda app, run, base, *_, **__: SimpleNamespace(path=base / "model" / "1"))
        yield
