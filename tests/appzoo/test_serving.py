"""Every application through the server: train, export, serve; both protocols answer like the model in memory."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from appzoo import discovery
from appzoo.cli.reader import JobReader
from easytransfer.export.selfcheck.layout import MANIFEST
from easytransfer.export.selfcheck.values import decode_array

pytest.importorskip("tensorflow_serving", reason="needs easytransfer[serving]")
pytest.importorskip("starlette", reason="needs easytransfer[serving]")

APPLICATIONS = discovery.applications()
# One on text and one on images by default, all others with `-m slow`.
DEFAULT = ("text_classify/smoke.yaml", "image_classify/smoke.yaml")
CONFIGS = [
    pytest.param(path, marks=() if f"{name}/{path.name}" in DEFAULT else pytest.mark.slow, id=f"{name}-{path.stem}")
    for name in APPLICATIONS
    for path in sorted((Path(discovery.__file__).parent / name / "configs").glob("smoke*.yaml"))
]
TOLERANCE = 1e-5


@pytest.fixture
def exported(request, repository: Path, needed_runs, tiny_model, tmp_path, monkeypatch) -> Path:
    """The application trained for a step with its smoke configuration, and exported."""
    from appzoo import jobs

    path = request.param
    config_class = discovery.config_class(JobReader("train", [f"--config={path}"], []).read().config.model_name)
    values = {"checkpoint_dir": tmp_path / "run", "train.num_epochs": 0.001, **needed_runs(path)}
    if "pretrain_model_name_or_path" in config_class.model_fields["model"].annotation.model_fields:
        values["model.pretrain_model_name_or_path"] = tiny_model
    monkeypatch.chdir(repository)
    # The checks of an export in a fresh process have their own tests, and cost more than all the rest here.
    saved_model = importlib.import_module("easytransfer.export.saved_model")
    monkeypatch.setattr(saved_model, "validate", lambda *_, **__: {"ok": True, "checks": [], "latency_ms": {}})
    arguments = [f"--config={path}", *(f"--set={key}={value}" for key, value in values.items())]
    return Path(jobs.train(JobReader("train", arguments, []).read().config)["export"])


@pytest.mark.parametrize("exported", CONFIGS, indirect=True)
def test_served_answers_equal_those_in_memory(exported: Path):
    from running_server import RunningServer

    manifest = json.loads((exported / MANIFEST).read_text(encoding="utf-8"))
    name = exported.parent.name
    with RunningServer(exported.parents[1]) as server:
        assert server.server.ready and server.client.states(name) == {1: "AVAILABLE"}
        for signature, samples in manifest["samples"].items():
            inputs = {key: decode_array(value) for key, value in samples["inputs"].items()}
            rows = str(len(next(iter(inputs.values()))))
            expected = {key: decode_array(value) for key, value in samples["outputs"][rows].items()}
            compare(server.client.arrays(name, inputs, signature=signature), expected)
            body = {"signature_name": signature, "inputs": {key: as_json(value) for key, value in inputs.items()}}
            outputs = server.client.post(f"{name}:predict", body)["outputs"]
            outputs = outputs if len(expected) > 1 else {next(iter(expected)): outputs}
            compare({key: from_json(outputs[key], value) for key, value in expected.items()}, expected)
            if signature == "classify":
                check_classify(server, name, inputs, expected)


def check_classify(server: SimpleNamespace, name: str, inputs: dict[str, Any], expected: dict[str, Any]) -> None:
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


def as_json(value: Any) -> Any:
    from easytransfer.serving.json_tensors import encode_outputs

    # Every string as base64: samples hold what is not UTF-8 on purpose.
    return encode_outputs({"input_bytes" if value.dtype == object else "input": value}, rows=False)["outputs"]


def from_json(value: Any, like: np.ndarray) -> np.ndarray:
    if like.dtype != object:
        return np.array(value, like.dtype)
    flat = np.array([*np.array(value, object).ravel(), None], object)[:-1]
    return np.array([*(text.encode() for text in flat), None], object)[:-1].reshape(like.shape)


def compare(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].shape == value.shape and math.prod(value.shape), key
        if value.dtype.kind == "f":
            np.testing.assert_allclose(found[key], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=key)
        else:
            np.testing.assert_array_equal(found[key], value, err_msg=key)
