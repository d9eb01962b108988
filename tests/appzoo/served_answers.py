"""Asks a served export for what its manifest recorded of the model in memory, over both protocols."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from running_server import RunningServer

from easytransfer.savedmodel.array_json import decode_array, take_rows
from easytransfer.savedmodel.manifest import MANIFEST
from easytransfer.serving.json_tensors import encode_outputs

TOLERANCE = 1e-5
Arrays = dict[str, np.ndarray]


def check_served(exported: Path) -> None:
    """Serves the version folder `exported`; every signature answers like the model in memory."""
    manifest = json.loads((exported / MANIFEST).read_text(encoding="utf-8"))
    name = exported.parent.name
    with RunningServer(exported.parents[1]) as server:
        assert server.server.ready and server.client.states(name) == {int(exported.name): "AVAILABLE"}
        for signature, samples in manifest["samples"].items():
            every = {key: decode_array(value) for key, value in samples["inputs"].items()}
            for rows, outputs in samples["outputs"].items():
                if int(rows) <= manifest["max_batch_size"]:  # the server refuses more in one request
                    expected = {key: decode_array(value) for key, value in outputs.items()}
                    check_answer(server, name, signature, take_rows(every, int(rows)), expected)


def check_answer(server: RunningServer, name: str, signature: str, inputs: Arrays, expected: Arrays) -> None:
    """One request over each protocol."""
    compare(server.client.arrays(name, inputs, signature=signature), expected)
    body = {"signature_name": signature, "inputs": {key: as_json(value) for key, value in inputs.items()}}
    outputs = server.client.post(f"{name}:predict", body)["outputs"]
    outputs = outputs if len(expected) > 1 else {next(iter(expected)): outputs}
    compare({key: from_json(outputs[key], value) for key, value in expected.items()}, expected)
    if signature == "classify":
        check_classify(server, name, inputs, expected)


def check_classify(server: RunningServer, name: str, inputs: Arrays, expected: Arrays) -> None:
    """The method of that name, which has messages of its own."""
    from tensorflow_serving.apis import classification_pb2

    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = name, "classify"
    for data in inputs["inputs"]:
        request.input.example_list.examples.add().ParseFromString(data)
    reply = server.client.prediction.Classify(request, 60).result.classifications
    assert [[item.label for item in row.classes] for row in reply] == [
        [label.decode() for label in row] for row in expected["classes"]
    ]
    scores = np.array([[item.score for item in row.classes] for row in reply])
    np.testing.assert_allclose(scores, expected["scores"], rtol=TOLERANCE, atol=TOLERANCE)


def as_json(value: np.ndarray) -> Any:
    """An input in a REST request."""
    # Every string as base64: samples hold what is not UTF-8 on purpose.
    return encode_outputs({"input_bytes" if value.dtype == object else "input": value}, rows=False)["outputs"]


def from_json(value: Any, like: np.ndarray) -> np.ndarray:
    """An output in a REST answer."""
    if like.dtype != object:
        return np.array(value, like.dtype)
    flat = np.array([*np.array(value, object).ravel(), None], object)[:-1]
    decoded = (base64.b64decode(x["b64"], validate=True) if isinstance(x, dict) else x.encode() for x in flat)
    return np.array([*decoded, None], object)[:-1].reshape(like.shape)


def compare(found: Arrays, expected: Arrays) -> None:
    """Equal names, shapes and values."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].shape == value.shape and math.prod(value.shape), key
        if value.dtype.kind == "f":
            np.testing.assert_allclose(found[key], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=key)
        else:
            np.testing.assert_array_equal(found[key], value, err_msg=key)
