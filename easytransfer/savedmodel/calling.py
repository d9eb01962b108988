"""Calls the signatures of a SavedModel with NumPy arrays, under either of TensorFlow's two loaders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

Arrays = dict[str, np.ndarray]
Caller = Callable[[Mapping[str, np.ndarray]], Arrays]


def eager_callers(folder: Path) -> dict[str, Caller]:
    """Loads the export as TensorFlow 2 programs do; returns a function of NumPy arrays for every signature."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))

    def caller(name: str) -> Caller:
        function = loaded.signatures[name]
        specs = function.structured_input_signature[1]

        def call(inputs: Mapping[str, np.ndarray]) -> Arrays:
            # Closes over `loaded`: signatures alone do not keep its variables alive.
            assert loaded is not None
            tensors = {key: tf.constant(value, specs[key].dtype) for key, value in inputs.items()}
            return {key: value.numpy() for key, value in function(**tensors).items()}

        return call

    return {name: caller(name) for name in loaded.signatures}


def session_callers(session: tf.compat.v1.Session, folder: Path) -> dict[str, Caller]:
    """Loads the export into a TensorFlow 1 session, as TensorFlow Serving does.

    Args:
        session: Of an empty graph; as long as it is open, the functions work, also in several threads at once.
        folder: The export.

    Returns:
        A function of NumPy arrays for every signature.
    """
    import tensorflow as tf

    with session.graph.as_default():
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))

    def caller(signature: Any) -> Caller:
        names = sorted(signature.inputs)
        outputs = {key: info.name for key, info in signature.outputs.items()}
        run = session.make_callable(outputs, [signature.inputs[name].name for name in names])

        def call(inputs: Mapping[str, np.ndarray]) -> Arrays:
            return run(*(inputs[name] for name in names))

        return call

    return {name: caller(s) for name, s in meta.signature_def.items() if not name.startswith("__")}
