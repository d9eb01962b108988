"""Layers that two or more model families or applications use, and the original's basic ones by name."""

from __future__ import annotations

import importlib
from typing import Any

# Found on first use, so that importing this package does not load TensorFlow.
_MODULES = {
    **dict.fromkeys(("Dense", "Dropout", "Embedding", "LayerNormalization", "get_initializer"), "plain"),
    **{"TextCNNEncoder": "text_cnn", "BiCNNEncoder": "bicnn", "HybridCNNEncoder": "hcnn", "DAMEncoder": "dam"},
}

__all__ = list(_MODULES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"easytransfer.layers.{_MODULES[name]}"), name)
