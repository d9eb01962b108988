"""A SavedModel as TensorFlow Serving loads it: one session of TensorFlow."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework import tensor_pb2

from easytransfer.savedmodel.calling import Arrays, Caller, session_callers
from easytransfer.savedmodel.graph import graph_operators, graph_signatures, load_needed_operators, read_saved_model
from easytransfer.savedmodel.requests import WARMUP, read_requests
from easytransfer.serving.failures import ServingFailure
from easytransfer.serving.servable import LoadedSignature, Servable, facts_of

# More than TensorFlow computes with; multiplying the lengths of a million axes would take minutes.
_MOST_AXES = 64
_DECODERS = re.compile("Decode(Image|WebP|Gif|Png|Bmp|Jpeg|AndCropJpeg)")
# Lines of a message of TensorFlow that say where in the graph something failed; of several reasons, all are indented.
_PLACE = re.compile(r"\s(?!\s*\(\d+\))|Graph execution error|Detected at node|<stack traces|\[\[|\d+ root error")
# How TensorFlow wraps the text of an assertion in the graph: this, the text and a closing bracket.
_ASSERTION = "assertion failed: ["


class SavedModelServable(Servable):
    """A version of a SavedModel.

    Args:
        name: Name of the model.
        version: Number of the version.
        folder: The version folder.
        threads: Cores that one call may use.

    Attributes:
        definitions: The signatures as TensorFlow's messages, by name.
    """

    def __init__(self, name: str, version: int, folder: Path, threads: int = 1) -> None:
        super().__init__(name, version)
        proto = read_saved_model(folder)
        load_needed_operators(proto)
        meta = proto.meta_graphs[0]
        # A session answers in the thread that asks, without the detours of an eager call and of a pool of threads.
        options = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=-1)
        options.gpu_options.allow_growth = True
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=options)
        callers = session_callers(self._session, folder)
        facts = graph_signatures(meta)
        decodes = any(map(_DECODERS.fullmatch, graph_operators(proto)))
        self.definitions = {key: meta.signature_def[key] for key in facts}
        self.signatures = {
            key: LoadedSignature(key, facts_of(each["inputs"]), facts_of(each["outputs"]), _told(callers[key]), decodes)
            for key, each in facts.items()
            if key in callers
        }
        if (folder / WARMUP).is_file():
            self._warm_up(folder)

    def described(self) -> dict[str, Any]:
        """Returns the signatures in the JSON form of `SignatureDef`."""
        return {
            name: json_format.MessageToDict(
                definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
            for name, definition in self.definitions.items()
        }

    def close(self) -> None:
        """Gives back its memory; nobody may ask it any more."""
        self._session.close()

    def _warm_up(self, folder: Path) -> None:
        for request in read_requests(folder):
            inputs = {item.key: array_of(tensor_pb2.TensorProto.FromString(item.value)) for item in request.inputs}
            self.signature(request.model_spec.signature_name).call(inputs)


def array_of(tensor: Any, most_bytes: int | None = None) -> np.ndarray:
    """Returns the array in a `TensorProto`.

    Args:
        tensor: The message.
        most_bytes: Largest array. A message may hold one value for a shape of any size.

    Raises:
        ServingFailure: The message is damaged or its array too large.
    """
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    if len(sizes) > _MOST_AXES:
        raise ServingFailure("INVALID_ARGUMENT", f"a tensor of {len(sizes)} axes is refused")
    try:
        size = math.prod(sizes) * np.dtype(tf.dtypes.as_dtype(tensor.dtype).as_numpy_dtype).itemsize
        if min(sizes, default=0) < 0 or (most_bytes is not None and size > most_bytes):
            raise ServingFailure("INVALID_ARGUMENT", f"a tensor of the shape {sizes} is refused")
        return tf.make_ndarray(tensor)
    except KeyError:
        # Handles of resources and variants, which are of no type of NumPy.
        raise ServingFailure("INVALID_ARGUMENT", f"a tensor of the type {tensor.dtype} is refused") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise ServingFailure("INVALID_ARGUMENT", f"a tensor cannot be read: {error}") from error


def _told(caller: Caller) -> Caller:
    """Returns the function with what the model itself refuses as what is told to a client."""

    def call(inputs: Mapping[str, np.ndarray]) -> Arrays:
        try:
            return caller(inputs)
        except tf.errors.OpError as error:
            raise _refused(error) from error
        except UnicodeDecodeError as error:
            # TensorFlow repeats what it refuses in its message, and Python cannot decode the message.
            raise ServingFailure("INVALID_ARGUMENT", "the model refuses an input that is not UTF-8") from error

    return call


def _refused(error: tf.errors.OpError) -> ServingFailure:
    """Returns what the model's own refusal means to a client, without the places in the graph TensorFlow puts first."""
    codes = {"InvalidArgumentError": "INVALID_ARGUMENT", "OutOfRangeError": "INVALID_ARGUMENT"}
    lines = [line.strip() for line in error.message.splitlines() if line and not _PLACE.match(line)]
    said = (lines or ["the model failed"])[0]
    _, assertion, text = said.rpartition(_ASSERTION)
    if assertion and text.endswith("]"):
        said = text[:-1]
    said = said.replace("\\'", "'")  # an assertion escapes what is quoted in it
    return ServingFailure(codes.get(type(error).__name__, "INTERNAL"), said[:500])
