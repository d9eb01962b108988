"""The one place that picks the Keras implementation: tf-keras (Keras 2 API), imported when it is first used.

Keras 3 on TensorFlow has no working multi-worker or Horovod path, so no other file imports a Keras package.
Use it as `from easytransfer import keras`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_keras import (
        Input,
        Model,
        Sequential,
        activations,
        applications,
        backend,
        initializers,
        layers,
        mixed_precision,
        models,
        optimizers,
        utils,
    )

__all__ = [
    "Input",
    "Model",
    "Sequential",
    "activations",
    "applications",
    "backend",
    "initializers",
    "layers",
    "mixed_precision",
    "models",
    "optimizers",
    "utils",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("tf_keras"), name)
