"""Core of EasyTransfer: configuration, data, training, presets and export. Knows no model and no application."""

from __future__ import annotations

import importlib
import os
from typing import Any

from easytransfer.version import VERSION as __version__  # noqa: F401

# Read by TensorFlow when it is first imported, so they are set before any module of ours imports it.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# Off by default on some x86 CPUs; measured 1.4 times faster on a BERT training step there.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# TensorFlow's failures reach Python as exceptions; what else it logs is about GPUs and CPU features that are not there.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


# Names of the original's Python API and the modules that have them. They load TensorFlow, so only when asked for.
_COMPAT = {"base_model": "application", "Config": "config", "ModeKeys": "config", "FLAGS": "command_line"}


def __getattr__(name: str) -> Any:
    if name in _COMPAT:
        return getattr(importlib.import_module(f"easytransfer.compat.{_COMPAT[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
