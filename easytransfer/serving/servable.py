"""One loaded version of a model: what its signatures take and give, and how they are called. Imports no TensorFlow."""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from easytransfer.deferred import tf
from easytransfer.savedmodel.calling import Caller
from easytransfer.serving.failures import ServingFailure

DEFAULT_SIGNATURE = "serving_default"
# TensorFlow's decoder of animated WebP pictures writes behind the memory it takes. Exports of this project refuse them
# in the graph; earlier ones and graphs of other people give them to the decoder. Bit 1 of the flags says animation.
_ANIMATED_FLAGS = b"".join(re.escape(bytes([flags])) for flags in range(256) if flags & 2)
_ANIMATED_WEBP = re.compile(rb"RIFF.{4}WEBPVP8X.{4}[" + _ANIMATED_FLAGS + rb"]", re.DOTALL)


@dataclass(frozen=True)
class TensorFacts:
    """Type and shape of an input or output; None stands for a length that is free, or for any shape at all."""

    dtype: str
    shape: tuple[int | None, ...] | None

    @property
    def numpy_type(self) -> np.dtype:
        """Type of its arrays; strings are bytes in arrays of objects."""
        if self.dtype == "string":
            return np.dtype(object)
        try:
            return np.dtype(self.dtype)
        except TypeError:
            # Of TensorFlow alone, such as bfloat16.
            return np.dtype(tf.dtypes.as_dtype(self.dtype).as_numpy_dtype)

    @property
    def has_batch_axis(self) -> bool:
        """Says whether the first axis is free."""
        return bool(self.shape) and self.shape[0] is None

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Says whether an array of such a shape may be given."""
        if self.shape is None:
            return True
        pairs = zip(shape, self.shape, strict=False)
        return len(shape) == len(self.shape) and all(want in (None, have) for have, want in pairs)


@dataclass(frozen=True, eq=False)
class LoadedSignature:
    """One way to call a loaded model.

    Attributes:
        name: Its name.
        inputs: What it takes.
        outputs: What it gives.
        call: From arrays to arrays, safe to be used by several threads.
        decodes: Whether the graph decodes pictures.
        by_row: Whether each row is computed on its own, so that companions make none of them cheaper.
    """

    name: str
    inputs: Mapping[str, TensorFacts]
    outputs: Mapping[str, TensorFacts]
    call: Caller
    decodes: bool = False
    by_row: bool = False

    @property
    def joins(self) -> bool:
        """Says whether rows of several requests can be computed together."""
        return all(facts.has_batch_axis for facts in (*self.inputs.values(), *self.outputs.values()))

    @property
    def waits(self) -> bool:
        """Says whether companions make rows cheaper, so that requests wait for each other and fill batches up."""
        return self.joins and not self.by_row

    @property
    def divides(self) -> bool:
        """Says whether rows of one request can be computed apart: no output is padded to its longest row."""
        return self.joins and all(None not in (facts.shape or ())[1:] for facts in self.outputs.values())

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of inputs whose length decides how much there is to compute; `_bytes` marks images and the like."""
        texts = (name for name, facts in self.inputs.items() if facts.dtype == "string" and facts.shape == (None,))
        return tuple(name for name in texts if not name.endswith("_bytes"))

    def check(self, inputs: Mapping[str, np.ndarray]) -> int:
        """Returns the number of rows of a request.

        Raises:
            ServingFailure: An input is missing, unknown, has another type or shape than it must, or holds an animation
                that a decoder in the graph could get.
        """
        if inputs.keys() != self.inputs.keys():
            sent, needed = (", ".join(sorted(names)) for names in (inputs, self.inputs))
            raise ServingFailure(
                "INVALID_ARGUMENT", f"signature {self.name} takes the inputs {{{needed}}}; the request has {{{sent}}}"
            )
        for name, value in inputs.items():
            facts = self.inputs[name]
            if value.dtype != facts.numpy_type:
                raise ServingFailure(
                    "INVALID_ARGUMENT", f"input {name} must be of type {facts.dtype}, not {value.dtype}"
                )
            if not facts.fits(value.shape):
                raise ServingFailure(
                    "INVALID_ARGUMENT",
                    f"input {name} must have the shape {_shown(facts.shape)}, not {_shown(value.shape)}",
                )
            if self.decodes and value.dtype == object:
                _refuse_animations(name, value)
        if not self.joins:
            return 1
        rows = {len(value) for value in inputs.values()}
        if len(rows) != 1:
            raise ServingFailure("INVALID_ARGUMENT", f"the inputs have unequally many rows: {sorted(rows)}")
        return rows.pop()


class Servable(abc.ABC):
    """A version of a model, loaded and warmed up.

    Args:
        name: Name of the model.
        version: Number of the version.

    Attributes:
        signatures: Its signatures by name, as they can be called.
    """

    signatures: Mapping[str, LoadedSignature]

    def __init__(self, name: str, version: int) -> None:
        self.name, self.version = name, version

    def signature(self, name: str) -> LoadedSignature:
        """Returns a signature by name; the empty name is the default one.

        Raises:
            ServingFailure: There is none of this name.
        """
        found = self.signatures.get(name or DEFAULT_SIGNATURE)
        if found is None:
            raise ServingFailure(
                "INVALID_ARGUMENT",
                f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def; '
                f"the model has {', '.join(sorted(self.signatures))}",
            )
        return found

    @abc.abstractmethod
    def described(self) -> dict[str, Any]:
        """Returns the signatures in the JSON form of TensorFlow Serving's `SignatureDef`, by name."""

    @abc.abstractmethod
    def close(self) -> None:
        """Gives back its memory; nobody may ask it any more."""


def facts_of(side: Mapping[str, Mapping[str, Any]]) -> dict[str, TensorFacts]:
    """Returns the facts of the inputs or outputs of a signature, declared as `dtype` and `shape` by name."""
    shapes = {name: entry["shape"] for name, entry in side.items()}
    return {
        name: TensorFacts(entry["dtype"], None if shapes[name] is None else tuple(shapes[name]))
        for name, entry in side.items()
    }


def _refuse_animations(name: str, value: np.ndarray) -> None:
    """Raises ServingFailure where bytes are, or hold as a `tf.Example` does, an animated WebP picture."""
    for row, cell in enumerate(value.flat):
        if isinstance(cell, bytes) and _ANIMATED_WEBP.search(cell):
            raise ServingFailure(
                "INVALID_ARGUMENT", f"input {name}, row {row}: animated image: pictures of one frame are read"
            )


def _shown(shape: tuple[int | None, ...] | None) -> str:
    return "[" + ", ".join("?" if length is None else str(length) for length in shape or ()) + "]"
