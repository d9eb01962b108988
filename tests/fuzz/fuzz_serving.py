"""Targets of the embedded server: REST requests to toy models, without a socket, and configuration files."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fuzz_case import Folder, Target
from fuzz_inputs import as_json, files, keyed, texts, values
from hypothesis import strategies as st

TOKEN = "sixteen-letters-at-least"
MOST_BYTES = 4096
REST_CODES = {200, 400, 401, 404, 405, 413, 429, 501, 504}
# What the server is made of; without it there are no targets.
NEEDED = all(map(importlib.util.find_spec, ("tensorflow_serving", "starlette", "uvicorn", "prometheus_client")))


@functools.cache
def server() -> SimpleNamespace:
    """The parts of a server of toy models, the loop they run in, and the modules that came with TensorFlow."""
    from toy_models import write_models

    from easytransfer.serving import rpc
    from easytransfer.serving.access import Gate
    from easytransfer.serving.batching import Batcher
    from easytransfer.serving.joining import BatchingParameters
    from easytransfer.serving.metrics import Metrics
    from easytransfer.serving.repository import Repository
    from easytransfer.serving.rest import RestProtocol
    from easytransfer.serving.saved_model import SavedModelServable
    from easytransfer.serving.service import Service
    from easytransfer.serving.sources import ModelDirectory

    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder, "token")
        token.write_text(TOKEN)
        repository = Repository(ModelDirectory(write_models(Path(folder, "models"))), SavedModelServable)
        repository.poll()
        gate = Gate(str(token))
    assert repository.ready
    batcher = Batcher(BatchingParameters(max_batch_size=8))
    metrics = Metrics(lambda: batcher.waiting)
    service = Service(repository, batcher, metrics, request_seconds=10, access_log=False)
    application = RestProtocol(service, gate, metrics.text, MOST_BYTES, lambda: True).application()
    calls = rpc.PredictionService(service, gate, MOST_BYTES), rpc.ModelService(service, gate, MOST_BYTES)
    return SimpleNamespace(application=application, calls=calls, loop=asyncio.new_event_loop())


# REST -------------------------------------------------------------------------------------------------------


def rest(given: tuple[int, int | str, bool, list[tuple[str, str]], list[Any]], folder: Folder) -> None:
    """A request: JSON with a status that fits, or the page."""
    number, path, known, headers, bodies = given
    method, headers = HTTP[number], [("authorization", f"Bearer {TOKEN}" if known else "Bearer no"), *headers]
    path = path if isinstance(path, str) else KNOWN_PATHS[path]
    parts = [body if isinstance(body, bytes) else as_json(body).encode() for body in bodies]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(errors="surrogatepass"), "root_path": "", "query_string": b"",
        "headers": [(key.encode(), text.encode("latin-1", "replace")) for key, text in headers],
        "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2),
    }  # fmt: skip
    messages = iter([{"type": "http.request", "body": part, "more_body": True} for part in parts])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.request", "body": b"", "more_body": False})

    async def send(message: Any) -> None:
        sent.append(message)

    server().loop.run_until_complete(server().application(scope, receive, send))
    status, kind = sent[0]["status"], dict(sent[0]["headers"]).get(b"content-type", b"")
    body = b"".join(message.get("body", b"") for message in sent[1:])
    assert status in REST_CODES, f"{status}: {body[:500]!r}"
    if status != 200 or path.startswith("/v1"):
        assert kind == b"application/json", kind
        answer = json.loads(body)
        assert isinstance(answer, dict) and (status == 200 or list(answer) == ["error"]), body[:500]
        assert status == 200 or 0 < len(answer["error"]) < MOST_BYTES * 4, len(answer["error"])


HTTP = ["POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS"]
SIGNATURES = {
    "": ["x"],
    "serving_default": ["x"],
    "table": ["tag", "signal", "sensor"],
    "picture": ["image_bytes"],
    "texts": ["text"],
    "divide": ["a", "b"],
    "flags": ["flag", "count"],
    "classify": ["inputs"],
    "regress": ["inputs"],
}
COLUMNS = [*dict.fromkeys(name for names in SIGNATURES.values() for name in names), "name"]
B64 = st.one_of(st.sampled_from(["", "AAAA", "AA", "é"]), texts()).map(lambda text: {"b64": text})
NUMBERS = st.one_of(st.integers(-1, 300), st.floats(), st.booleans())
CELL = st.one_of(NUMBERS, NUMBERS, texts(surrogates=True), B64, values())
NESTED = st.recursive(CELL, lambda inner: st.lists(inner, max_size=5), max_leaves=20)
FITTING = [0.5, "a", {"b64": "AAAA"}, True, 7, [1, 2, 3, 4, 5], [[1, 2], [3, 4]]]
VALUE = st.one_of(st.sampled_from(FITTING), st.sampled_from(FITTING), NESTED)
ROW = keyed(COLUMNS, NESTED)
EXAMPLES = st.lists(keyed(["x", "name"], VALUE), min_size=1, max_size=3)
SIGNED = st.sampled_from(list(SIGNATURES)).flatmap(
    lambda name: st.fixed_dictionaries(
        {"signature_name": st.just(name)},
        optional={
            "instances": st.lists(st.fixed_dictionaries(dict.fromkeys(SIGNATURES[name], VALUE)), max_size=3),
            "inputs": st.fixed_dictionaries(dict.fromkeys(SIGNATURES[name], st.lists(VALUE, max_size=3))),
            "examples": EXAMPLES,
        },
    )
)
ANY_BODY = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": st.one_of(st.sampled_from(list(SIGNATURES)), values()),
        "instances": st.one_of(NESTED, st.lists(ROW, max_size=3)),
        "inputs": st.one_of(NESTED, ROW),
        "examples": st.one_of(st.lists(ROW, max_size=3), values()),
        "context": st.one_of(ROW, values()),
    },
)
GOOD = [
    {"instances": [1.0, 2, -3.5e0]},
    {"inputs": {"x": [1.0]}},
    {"signature_name": "table", "instances": [{"tag": "a", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]}]},
    {"signature_name": "picture", "inputs": [{"b64": "AAAA"}]},
    {"signature_name": "flags", "inputs": {"flag": [True, False], "count": [0, 255]}},
    {"signature_name": "classify", "examples": [{"x": 0.5, "name": "a"}, {"x": [0.25]}]},
    {"signature_name": "regress", "context": {"x": 0.5}, "examples": [{"name": {"b64": "AA=="}}]},
    {"signature_name": "texts", "instances": ["\u00e9", "\ud83d\ude00"]},
]
GOOD_BYTES = [as_json(body).encode() for body in GOOD]
KINDS = (files(*GOOD_BYTES), st.sampled_from(GOOD), SIGNED, SIGNED, ANY_BODY)
BODIES = st.sampled_from(range(len(KINDS))).flatmap(lambda kind: KINDS[kind])
KNOWN_PATHS = [
    f"/v1/models/toy{version}:{call}"
    for call in ("predict", "predict", "classify", "regress")
    for version in ("", "/versions/2", "/labels/stable")
]
PATHS = texts(["/v1/models/", "toy", "/versions/", "2", "/labels/", "stable", ":predict", "/metadata", "/", "metrics"])
HEADERS = st.lists(
    st.tuples(st.sampled_from(["content-length", "content-type", "accept", "host"]), texts(["1", "9", "-", "json"]))
)
# `one_of` gives each of all alternatives the same weight, and most requests would end at the door.
REST = st.tuples(
    st.sampled_from([0] * 30 + list(range(len(HTTP)))),
    st.sampled_from([*range(len(KNOWN_PATHS)), None]).flatmap(lambda place: PATHS if place is None else st.just(place)),
    st.sampled_from([True] * 30 + [False]),
    st.sampled_from([False] * 5 + [True]).flatmap(lambda some: HEADERS if some else st.just([])),
    st.sampled_from([1] * 9 + [0, 2]).flatmap(lambda count: st.lists(BODIES, min_size=count, max_size=count)),
)


# Configuration ----------------------------------------------------------------------------------------------


def server_config(given: tuple[str, str], folder: Folder) -> None:
    """The files beside the models, as the server and as `export validate` read them."""
    from easytransfer.export.selfcheck.server_files import check_server_files
    from easytransfer.savedmodel.failure import CheckFailed
    from easytransfer.serving.joining import BatchingParameters
    from easytransfer.serving.sources import ModelDirectory

    name, text = given
    path = folder.put(name, text)
    folder.put("toy/1/saved_model.pb", "")
    with contextlib.suppress(CheckFailed):
        check_server_files(folder.path, "toy")
    sources = ModelDirectory(folder.path).sources()
    assert sources or name == "models.config"
    if name == "batching.config":
        assert BatchingParameters.read(path).max_batch_size > 0


GRAMMAR = ["model_config_list", "config", "name", "base_path", "model_platform", "model_version_policy", "latest"]
GRAMMAR += ["specific", "all", "versions", "num_versions", "version_labels", "key", "value", "max_batch_size"]
GRAMMAR += ["allowed_batch_sizes", "num_batch_threads", "prometheus_config", "enable", "path", "{", "}", ": ", "\n"]
GRAMMAR += [" ", ",", "[", "]", "<", ">", '"', "'", "#", "-1", "0", "8", "64", "1e9", "true", '"toy"', "\\377"]
BATCHING = b"max_batch_size { value: 8 }\nallowed_batch_sizes: [4, 8]\nnum_batch_threads { value: 2 }\n"
MODELS = b"""model_config_list { config { name: "toy" base_path: "/models/toy"
model_version_policy { specific { versions: 1 } } version_labels { key: "stable" value: 1 } } }"""
MONITORING = b'prometheus_config { enable: true path: "/metrics" }'
SERVER_FILES = {"models.config": MODELS, "batching.config": BATCHING, "monitoring.config": MONITORING}
SERVER_CONFIGS = st.sampled_from(list(SERVER_FILES)).flatmap(
    lambda name: st.tuples(st.just(name), st.one_of(files(SERVER_FILES[name]), texts(GRAMMAR)))
)
SERVING_TARGETS = NEEDED * (
    Target("server_config", SERVER_CONFIGS, server_config, heavy=True),
    Target("rest", REST, rest, heavy=True, prepare=server),
)
