"""Core of EasyTransfer: configuration, data, training, presets and export. Knows no model and no application."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, Protocol

from easytransfer.version import VERSION as __version__  # noqa: F401

# Read by TensorFlow when it is first imported, so they are set before any module of ours imports it.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# Off by default on some x86 CPUs; measured 1.4 times faster on a BERT training step there.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# TensorFlow's failures reach Python as exceptions; what else it logs is about GPUs and CPU features that are not there.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


# Names of the original's Python API and the modules that have them. They load TensorFlow, so only when asked for.
_COMPAT = {"base_model": "application", "Config": "config", "ModeKeys": "config", "FLAGS": "command_line"}


# The package that holds the applications registers itself in this entry-point group: the core names none.
_ENTRY_POINTS = "easytransfer.python"


class Model(Protocol):
    """A trained model, as `load` and `train` return it; `appzoo.python.Model` says more.

    Attributes:
        columns: The columns it reads.
        labels: Class names in the order of the probabilities, None where there are none.
        result: What the training returned, None of a model that was loaded.
    """

    columns: list[str]
    labels: list[str] | None
    result: dict[str, Any] | None

    def __call__(self, rows: Any) -> Any:
        """Returns a mapping for each row, or a frame for a frame."""

    def evaluate(self, table: Any) -> dict[str, float]:
        """Returns the metrics of a labelled table or frame."""


def load(path: str | os.PathLike[str], **settings: Any) -> Model:
    """Opens a trained model, to be called with rows and measured on tables.

        model = easytransfer.load("runs/mine")
        model(["a text", "another one"])
        model.evaluate("dev.csv")

    Args:
        path: A run folder, one of its checkpoints, or an export.
        **settings: Flags of `easy_transfer_app predict`, such as `batchSize=64`.

    Raises:
        ConfigError: A setting is unknown or wrong.
        ModelError: There is no model.
    """
    return applications().load(path, **settings)


def applications() -> Any:
    """Returns the module with `load` and `train` of the installed package of applications.

    Raises:
        ConfigError: None is installed.
    """
    import importlib.metadata

    from easytransfer.errors import ConfigError
    from easytransfer.installing import install_line

    for entry in importlib.metadata.entry_points(group=_ENTRY_POINTS):
        return entry.load()
    raise ConfigError("no applications are installed", fix=f"type {install_line()}")


if TYPE_CHECKING:

    def train(**settings: Any) -> Model:
        """Trains and returns the model; the package `easytransfer.train`, which can be called, says more."""


def __getattr__(name: str) -> Any:
    if name == "train":
        return importlib.import_module("easytransfer.train")  # which can be called
    if name in _COMPAT:
        return getattr(importlib.import_module(f"easytransfer.compat.{_COMPAT[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
