"""Weights that an export keeps in fewer bytes, as float16 or int8, and computes with in float32."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.config.job import WeightType
from easytransfer.errors import ModelError

# Biases and normalisation stay as they are: they are few, and their rounding would count most.
SMALLEST = 4096
_INT8_LARGEST = 127


class StoredWeight(tf.saved_model.experimental.TrackableResource):
    """A float32 variable that is stored in fewer bytes and made again when the export is loaded.

    The server holds float32 and is as fast as without: files, downloads and loading get smaller.

    Args:
        variable: A trained float32 weight.
        kind: `float16`, or `int8`: whole numbers from -127 to 127 times one scale for each index of the last axis, of
            embedding tables for each row.

    Raises:
        ModelError: A weight is too large for float16, or not finite.
    """

    def __init__(self, variable: tf.Variable, kind: WeightType) -> None:
        super().__init__()
        self._shape, self._name = variable.shape, f"weight_{uuid.uuid4().hex}"
        value = variable.numpy()
        self.scale: tf.Variable | None = None
        if kind == "float16":
            with np.errstate(over="ignore"):
                stored = value.astype(np.float16)
        else:
            rows = "embedding" in variable.name
            axes = tuple(range(1, value.ndim) if rows else range(value.ndim - 1))
            scale = np.abs(value).max(axis=axes, keepdims=True) / _INT8_LARGEST
            scale = np.where(scale == 0, 1, scale).astype(np.float32)
            stored = np.rint(value / scale)
            self.scale = tf.Variable(scale, trainable=False)
        if not np.isfinite(stored).all():
            raise ModelError(f"the weight {variable.name} has numbers that {kind} cannot hold", fix="use float32")
        self.stored = tf.Variable(stored.astype(kind), trainable=False)
        self._initialize()

    @property
    def variables(self) -> list[tf.Variable]:
        """What is stored; an export must hold these too, since resources do not hold what they are made from."""
        return [self.stored] if self.scale is None else [self.stored, self.scale]

    def expanded(self) -> tf.Tensor:
        """Returns the float32 weight."""
        value = tf.cast(self.stored, tf.float32)
        return value if self.scale is None else value * self.scale

    def _create_resource(self) -> tf.Tensor:
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=self._shape, shared_name=self._name)

    def _initialize(self) -> None:
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=self.expanded())

    def _destroy_resource(self) -> None:
        tf.raw_ops.DestroyResourceOp(resource=self.resource_handle)


@contextmanager
def stored_weights(variables: Iterable[tf.Variable], kind: WeightType) -> Iterator[list[tuple[Any, StoredWeight]]]:
    """Context in which variables have the values that are left of them in `kind`.

    Yields:
        The variables that are stored so, each with what stores it; none for float32.
    """
    chosen = [v for v in variables if v.dtype == tf.float32 and v.shape.rank > 1 and np.prod(v.shape) >= SMALLEST]
    stored = [] if kind == "float32" else [(variable, StoredWeight(variable, kind)) for variable in chosen]
    before = [variable.numpy() for variable, _ in stored]
    for variable, weight in stored:
        variable.assign(weight.expanded())
    try:
        yield stored
    finally:
        for (variable, _), value in zip(stored, before, strict=True):
            variable.assign(value)


def with_stored(function: Any, stored: Iterable[tuple[tf.Variable, StoredWeight]]) -> Any:
    """Returns a traced function that takes stored weights in place of variables.

    Args:
        function: A concrete function with named tensors as arguments and results.
        stored: Variables and what takes their place.
    """
    replaced: Mapping[int, tf.Tensor] = {id(variable.handle): weight.resource_handle for variable, weight in stored}
    if not replaced:
        return function
    count = len(function.inputs) - len(function.captured_inputs)
    arguments, captures = function.inputs[:count], function.inputs[count:]
    graph, results = function.graph.as_graph_def(), [tensor.name for tensor in function.outputs]

    def serve(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        sources = {tensor.name: inputs[tensor.op.name] for tensor in arguments}
        for tensor, captured in zip(captures, function.captured_inputs, strict=True):
            sources[tensor.name] = tf.compat.v1.get_default_graph().capture(replaced.get(id(captured), captured))
        found = tf.graph_util.import_graph_def(graph, sources, results, name="")
        return dict(zip(sorted(function.structured_outputs), found, strict=True))

    specs = {tensor.op.name: tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.op.name) for tensor in arguments}
    return tf.function(serve).get_concrete_function(**specs)
