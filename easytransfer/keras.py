"""The one place that picks the Keras implementation: tf-keras (Keras 2 API).

Keras 3 on TensorFlow has no working multi-worker or Horovod path, so no other file imports a Keras package.
Use it as `from easytransfer import keras`.
"""

import sys

if "tensorflow" in sys.modules:
    _loaded = sys.modules.get("keras")
    if _loaded is not None and getattr(_loaded, "__version__", "2").startswith("3"):
        _tf_keras_used = "tf_keras" in sys.modules
        if not _tf_keras_used:
            raise ImportError(
                "Keras 3 was imported before easytransfer; import easytransfer first, "
                "or set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported"
            )

from tf_keras import (  # noqa: E402
    Input,
    Model,
    Sequential,
    activations,
    backend,
    initializers,
    layers,
    mixed_precision,
    optimizers,
    utils,
)

__all__ = [
    "Input",
    "Model",
    "Sequential",
    "activations",
    "backend",
    "initializers",
    "layers",
    "mixed_precision",
    "optimizers",
    "utils",
]
