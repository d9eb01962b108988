"""Losses. `classification`, `sequence`, `comprehension`, `matching` and `spherical` hold losses summed over the batch,
so that any split of a global batch agrees; the names of this package are those of the original Python API, means over
the batch."""

from __future__ import annotations

import importlib
from typing import Any

# The original's names and the modules that have them, found on first use: importing this package loads no TensorFlow.
_PLACES = {
    "build_kd_loss": "distillation",
    "build_kd_probes_loss": "distillation",
    "comprehension_loss": "comprehension",
    "image_reconstruction_kld_loss": "patches",
    "image_reconstruction_mse_loss": "patches",
    "masked_language_model_loss": "means",
    "matching_embedding_margin_loss": "matching",
    "mean_square_error": "means",
    "multi_label_sigmoid_cross_entropy": "means",
    "next_sentence_prediction_loss": "means",
    "sequence_labeling_loss": "sequence",
    "softmax_cross_entropy": "means",
}

__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"easytransfer.losses.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
