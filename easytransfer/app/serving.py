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

    def tensors(self, raw: Tensors) -> Tensors:
        """Returns, inside a graph, the arrays of a request, and what else the inputs know of it."""
        found: Tensors = {}
        for part in self.parts:
            found |= part.from_request({name: raw[name] for name in part.serving_specs()})
        return found

    def outputs(self, arrays: Tensors) -> dict[str, tf.Tensor]:
        """Returns the tensors that the application predicts for arrays, also for a batch without rows."""
        arrays = {name: arrays[name] for name in self.specs}
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
        answer: Takes outputs, and what else the inputs know of the request, to what the server answers.
    """

    def serve(**raw: tf.Tensor) -> Mapping[str, tf.Tensor]:
        found = served.tensors(raw)
        beside = {name: value for name, value in found.items() if name not in served.specs}
        return answer({**beside, **served.outputs(found)})

    doc = " and ".join(dict.fromkeys(part.doc for part in served.parts))
    return Signature(serve, served.raw_specs, served.samples(), doc, served)


def labels_signature(labels: Sequence[str]) -> Signature:
    """Returns the signature `labels`: numbers of classes in, their names out.

    An output has a row for each row of a request. Names of all classes beside `probabilities` would stand in every one
    of them, so clients ask for them once. A row has as many numbers as one likes: servers limit rows, not classes.

    Args:
        labels: Names in the order of `probabilities`.
    """

    def named(class_id: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"label": tf.gather(tf.constant(list(labels)), class_id)}

    samples = np.array([[0, len(labels) - 1]], np.int32)
    spec = tf.TensorSpec([None, None], tf.int32)
    return Signature(named, {"class_id": spec}, {"class_id": samples}, "numbers of classes to their names")


def arrays_signature(served: Served) -> Signature:
    """Returns the signature `predict_ids`: the arrays of `encode` in, all that `postprocess` reads out."""
    found = served.tensors({name: tf.constant(value) for name, value in served.samples().items()})
    samples = {name: found[name].numpy() for name in served.specs}
    return Signature(lambda **x: served.outputs(x), served.specs, samples, "arrays as `encode` makes them", served)
