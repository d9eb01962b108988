"""The one place that picks the Keras implementation: tf-keras (Keras 2 API).

Keras 3 on TensorFlow has no working multi-worker or Horovod path, so no other file imports a Keras package.
Use it as `from easytransfer import keras`.
"""

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
