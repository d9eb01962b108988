"""Arrays as JSON, for the samples in a manifest."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np


def encode_array(array: np.ndarray) -> dict[str, Any]:
    """Returns dtype, shape and values; bytes that are not UTF-8 become `{"b64": ...}`, as in REST requests."""
    array = np.asarray(array)
    if array.dtype.kind in "OSU":
        return {"dtype": "string", "shape": list(array.shape), "values": [_encode(v) for v in array.ravel().tolist()]}
    return {"dtype": array.dtype.name, "shape": list(array.shape), "values": array.ravel().tolist()}


def decode_array(value: Mapping[str, Any]) -> np.ndarray:
    """Returns the array of `encode_array`; strings as bytes in an object array."""
    if value["dtype"] == "string":
        flat = np.array([_decode(v) for v in value["values"]] + [None], object)[:-1]
        return flat.reshape(value["shape"])
    return np.array(value["values"], value["dtype"]).reshape(value["shape"])


def take_rows(arrays: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Returns `count` rows of every array, from the first on and around again when there are fewer."""
    return {name: array[np.arange(count) % len(array)] for name, array in arrays.items()}


def _encode(value: str | bytes) -> str | dict[str, str]:
    data = value.encode() if isinstance(value, str) else bytes(value)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(data).decode()}


def _decode(value: str | dict[str, str]) -> bytes:
    return value.encode() if isinstance(value, str) else base64.b64decode(value["b64"])
