"""`tf.Example` messages for Classify and Regress, from JSON and from the messages of gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from easytransfer.deferred import tf
from easytransfer.serving.failures import ServingFailure
from easytransfer.serving.json_tensors import to_bytes

_INT64 = range(-(2**63), 2**63)


def examples_of_json(request: Mapping[str, Any]) -> list[bytes]:
    """Returns the serialized examples of a classify or regress request, the features of `context` in each.

    A feature takes its type from its values: strings and `{"b64": ...}` are bytes, numbers with a fraction or an
    exponent are floats, whole numbers, true and false are integers.

    Raises:
        ServingFailure: The request is not formed as it must be.
    """
    examples = request.get("examples")
    if not isinstance(examples, list) or not examples:
        raise _bad("key 'examples' is expected, with a list of at least one example")
    context = _features(request.get("context", {}), "context")
    found = []
    for number, item in enumerate(examples):
        features = _features(item, f"example {number}")
        both = sorted(features.keys() & context.keys())
        if both:
            raise _bad(f"example {number}: feature {both[0]} stands in the context already")
        found.append(_serialized(tf.train.Features(feature=features | context)))
    return found


def examples_of_input(message: Any) -> list[bytes]:
    """Returns the serialized examples of an `Input` message.

    Raises:
        ServingFailure: There are none.
    """
    kind = message.WhichOneof("kind")
    if kind is None:
        raise _bad("Input is empty")
    given = getattr(message, kind)
    if not given.examples:
        raise _bad("Input is empty")
    if kind == "example_list":
        return [example.SerializeToString() for example in given.examples]
    found = []
    for example in given.examples:
        # Features of the example win, as when TensorFlow Serving parses the two one after the other.
        merged = tf.train.Example(features=given.context.features)
        for name, feature in example.features.feature.items():
            merged.features.feature[name].CopyFrom(feature)
        found.append(merged.SerializeToString())
    return found


def _serialized(features: tf.train.Features) -> bytes:
    return tf.train.Example(features=features).SerializeToString()


def _features(value: Any, place: str) -> dict[str, tf.train.Feature]:
    if not isinstance(value, dict):
        raise _bad(f"{place} must be a JSON object")
    for name in value:
        to_bytes(name, place)  # refuses what a message cannot hold
    return {name: _feature(cells if isinstance(cells, list) else [cells], name) for name, cells in value.items()}


def _feature(cells: list[Any], name: str) -> tf.train.Feature:
    kinds = {type(cell) for cell in cells}
    if kinds <= {str, dict}:
        values = [to_bytes(cell, f"Feature: {name}") for cell in cells]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if kinds == {float}:
        return tf.train.Feature(float_list=tf.train.FloatList(value=cells))
    if kinds <= {int, bool}:
        if not all(cell in _INT64 for cell in cells):
            raise _bad(f"Feature: {name} has a number that is not int64")
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(cell) for cell in cells]))
    raise _bad(f"Unexpected element type in feature: {name}; all values must be strings, decimals, or whole numbers")


def _bad(message: str) -> ServingFailure:
    return ServingFailure("INVALID_ARGUMENT", message)
