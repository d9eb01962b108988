"""Losses: `classification` is summed per batch so that any split of the global batch agrees; `means` is the old API."""

from __future__ import annotations

import importlib
from typing import Any

# The names of the original Python API, found on first use so that importing this package does not load TensorFlow.
_MEANS = (
    "masked_language_model_loss",
    "mean_square_error",
    "multi_label_sigmoid_cross_entropy",
    "next_sentence_prediction_loss",
    "softmax_cross_entropy",
)

__all__ = list(_MEANS)


def __getattr__(name: str) -> Any:
    if name not in _MEANS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("easytransfer.losses.means"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MEANS])
