"""JSON bodies to arrays and back, by the rules of TensorFlow Serving's REST protocol."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from easytransfer.savedmodel.calling import Arrays
from easytransfer.serving.failures import ServingFailure
from easytransfer.serving.servable import LoadedSignature, TensorFacts

# What JSON values a type of numbers is made of; whole numbers where it is not listed.
_KINDS = dict.fromkeys(("float16", "bfloat16", "float32", "float64"), {int, float}) | {"bool": {bool}}
_MOST_AXES = 16


def parse_object(body: bytes) -> dict[str, Any]:
    """Returns the JSON object in a body; NaN and Infinity may stand in it.

    Raises:
        ServingFailure: It is not one.
    """
    if not body:
        raise _bad("JSON Parse error: The document is empty")
    try:
        value = json.loads(body.decode("utf-8"))
    except RecursionError:
        raise _bad("JSON Parse error: nested too deeply") from None
    except ValueError as error:
        # The reason without the document, which some of these errors carry along.
        place = f" at offset: {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise _bad(f"JSON Parse error: {reason}{place}") from None
    if not isinstance(value, dict):
        raise _bad(f"JSON Value of type {_type(value)} is not object")
    return value


def signature_name(request: Mapping[str, Any]) -> str:
    """Returns the signature a request names, empty for the default one."""
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise _bad("'signature_name' key must be a string value.")
    return name


def is_row_format(request: Mapping[str, Any]) -> bool:
    """Says whether a predict request holds `instances` (rows) rather than `inputs` (columns)."""
    if ("instances" in request) == ("inputs" in request):
        if "inputs" in request:
            raise _bad("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
        raise _bad("Missing 'inputs' or 'instances' key")
    return "instances" in request


def decode_inputs(request: Mapping[str, Any], signature: LoadedSignature) -> Arrays:
    """Returns the arrays of a predict request in either format.

    Raises:
        ServingFailure: They do not fit the signature.
    """
    facts = signature.inputs
    columns = _columns(request["instances"], facts) if is_row_format(request) else _named(request["inputs"], facts)
    return {name: _array(name, value, facts[name]) for name, value in columns.items()}


def encode_outputs(outputs: Arrays, rows: bool) -> dict[str, Any]:
    """Returns the body of an answer in the format of its request.

    Raises:
        ServingFailure: Rows were asked for, and the outputs have unequally many.
    """
    plain = {name: _plain(value, name.endswith("_bytes")) for name, value in sorted(outputs.items())}
    if not rows:
        return {"outputs": plain if len(plain) > 1 else next(iter(plain.values()))}
    counts = {len(value) if value.ndim else None for value in outputs.values()}
    if len(counts) != 1 or None in counts:
        raise _bad("the outputs have no common number of rows; use the column format, 'inputs'")
    if len(plain) == 1:
        return {"predictions": next(iter(plain.values()))}
    return {"predictions": [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]}


def is_binary(value: Any) -> bool:
    """Says whether a JSON value is `{"b64": "..."}`."""
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def to_bytes(value: Any, place: str) -> bytes:
    """Returns the bytes of a string or of a `{"b64": "..."}` object."""
    if isinstance(value, str):
        try:
            return value.encode("utf-8")
        except UnicodeEncodeError:
            raise _bad(f"{place}: a string holds half of a surrogate pair") from None
    if not is_binary(value):
        raise _bad(f"{place}: JSON Value of type {_type(value)} is not of expected type: string")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise _bad(f"{place}: Unable to base64 decode") from None


def _columns(instances: Any, facts: Mapping[str, TensorFacts]) -> dict[str, Any]:
    if not isinstance(instances, list):
        raise _bad("Expecting 'instances' to be an list/array")
    if not instances:
        raise _bad("No values in 'instances' array")
    objects = [isinstance(item, dict) and not is_binary(item) for item in instances]
    if not objects[0]:
        if len(facts) > 1:
            raise _bad(
                "instances is a plain list, but expecting list of objects as multiple input tensors required: "
                + ",".join(sorted(facts))
            )
        if any(objects):
            raise _bad(f"Expecting value/list but got object at item {objects.index(True)} of input list")
        return {next(iter(facts)): instances}
    for number, item in enumerate(instances):
        if not objects[number]:
            raise _bad(f"Expecting object but got {_type(item)} at item {number} of input list")
        if item.keys() != facts.keys():
            raise _bad(
                f"Failed to process element: {number} of 'instances' list. "
                f"JSON object: keys must be equal to: {','.join(sorted(facts))}"
            )
    return {name: [item[name] for item in instances] for name in facts}


def _named(inputs: Any, facts: Mapping[str, TensorFacts]) -> dict[str, Any]:
    if isinstance(inputs, dict) and not is_binary(inputs):
        missing = sorted(facts.keys() - inputs.keys())
        if missing:
            raise _bad(f"Missing named input: {missing[0]} in 'inputs' object.")
        return {name: inputs[name] for name in facts}
    if len(facts) > 1:
        raise _bad(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required: "
            + ",".join(sorted(facts))
        )
    return {next(iter(facts)): inputs}


def _array(name: str, value: Any, facts: TensorFacts) -> np.ndarray:
    cells: list[Any] = []
    shape = _gather(value, cells, 0, name)
    if facts.dtype == "string":
        return np.array([*(to_bytes(cell, f"input {name}") for cell in cells), None], object)[:-1].reshape(shape)
    accepted = _KINDS.get(facts.dtype, {int})
    if set(map(type, cells)) - accepted:
        wrong = next(cell for cell in cells if type(cell) not in accepted)
        raise _bad(f"input {name}: JSON Value of type {_type(wrong)} is not of expected type: {facts.dtype}")
    found = _numbers(cells, facts.numpy_type, whole=accepted == {int})
    if found is None:
        raise _bad(f"input {name}: a value cannot be converted to {facts.dtype} without loss of precision.")
    return found.reshape(shape)


def _numbers(cells: list[Any], target: np.dtype, whole: bool) -> np.ndarray | None:
    """Returns the array of a type, None if a value is out of its range."""
    if whole:
        info = np.iinfo(target)
        return np.array(cells, target) if not cells or info.min <= min(cells) <= max(cells) <= info.max else None
    try:
        exact = np.array(cells, np.float64)
    except OverflowError:
        return None
    with np.errstate(over="ignore"):
        found = exact.astype(target)
    return found if np.array_equal(np.isinf(found), np.isinf(exact)) else None


def _gather(value: Any, cells: list[Any], level: int, name: str) -> tuple[int, ...]:
    """Appends the values in nested lists to `cells` and returns the shape they form."""
    if not isinstance(value, list):
        cells.append(value)
        return ()
    if not any(isinstance(item, list) for item in value):
        cells.extend(value)
        return (len(value),)
    if level > _MOST_AXES:
        raise _bad(f"input {name}: nested too deeply")
    shapes = {_gather(item, cells, level + 1, name) for item in value}
    if len(shapes) > 1:
        raise _bad(f"input {name}: lists of unequal sizes")
    return (len(value), *shapes.pop())


def _plain(value: np.ndarray, binary: bool) -> Any:
    if value.dtype.kind != "O":
        return (value.astype(np.float32) if value.dtype.kind == "V" else value).tolist()
    return _texts(value.tolist(), binary)


def _texts(value: Any, binary: bool) -> Any:
    if isinstance(value, list):
        return [_texts(item, binary) for item in value]
    return {"b64": base64.b64encode(value).decode()} if binary else value.decode("utf-8", errors="replace")


def _type(value: Any) -> str:
    names = {dict: "Object", list: "Array", str: "String", bool: "Bool", type(None): "Null"}
    return names.get(type(value), "Number")


def _bad(message: str) -> ServingFailure:
    return ServingFailure("INVALID_ARGUMENT", message)
