"""Signatures of an application, made from what its inputs declare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from easytransfer.app.inputs.base import Input, Tensors
from easytransfer.savedmodel.signature import Signature

Predict = Callable[[Tensors], Mapping[str, tf.Tensor]]


class Served(tf.Module):
    """The way of a request: raw tensors, arrays, outputs.

    Args:
        inputs: Of the application.
        folder: Where assets were saved.
        predict: Takes the arrays of a batch to named outputs.
    """

    def __init__(self, inputs: Sequence[Input], folder: Path, predict: Predict) -> None:
        super().__init__(name="served")
        self.parts, self._predict = list(inputs), predict
        # Owners of lookup tables: what is exported must hold them.
        self.modules = [module for part in inputs if (module := part.serving_module(folder)) is not None]
        # Shapes are those that are declared, whatever the first batch looked like.
        self.specs = {name: spec for part in inputs for name, spec in part.specs().items()}
        self.raw_specs = {name: spec for part in inputs for name, spec in part.serving_specs().items()}

    def arrays(self, raw: Tensors) -> Tensors:
        """Returns the arrays of a request, inside a graph."""
        found: Tensors = {}
        for part in self.parts:
            found |= part.from_request({name: raw[name] for name in part.serving_specs()})
        return found

    def outputs(self, arrays: Tensors) -> dict[str, tf.Tensor]:
        """Returns the tensors that the application predicts for arrays, also for a batch without rows."""
        rows = tf.shape(next(iter(arrays.values())))[0]
        # Convolutions refuse a batch without rows: it gets one, whose answer is left out again.
        one = tf.maximum(1 - rows, 0)
        some = {name: tf.pad(x, [[0, one], *[[0, 0]] * (x.shape.rank - 1)]) for name, x in arrays.items()}
        return {name: value[:rows] for name, value in self._predict(some).items() if tf.is_tensor(value)}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns raw sample rows, equally many of every input."""
        found = [part.samples() for part in self.parts]
        rows = min(len(value) for each in found for value in each.values())
        return {name: value[:rows] for each in found for name, value in each.items()}


def request_signature(served: Served, answer: Predict) -> Signature:
    """Returns the signature on raw tensors.

    Args:
        served: The way of a request.
        answer: Takes outputs to what the server answers.
    """

    def serve(**raw: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return answer(served.outputs(served.arrays(raw)))

    doc = " and ".join(dict.fromkeys(part.doc for part in served.parts))
    return Signature(serve, served.raw_specs, served.samples(), doc, served)


def arrays_signature(served: Served) -> Signature:
    """Returns the signature `predict_ids`: the arrays of `encode` in, all that `postprocess` reads out."""
    arrays = served.arrays({name: tf.constant(value) for name, value in served.samples().items()})
    samples = {name: value.numpy() for name, value in arrays.items()}
    return Signature(lambda **x: served.outputs(x), served.specs, samples, "arrays as `encode` makes them", served)
