"""A server of exported models in a thread of the test process, and small clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)  # fmt: skip

from easytransfer.serving.server import Server
from easytransfer.serving.settings import ServingConfig

SECONDS = 60


class Client:
    """Both protocols of one server.

    Args:
        rest: Address such as `http://127.0.0.1:8501`.
        rpc: Address such as `127.0.0.1:8500`; None where LiteRT exports are served.
        token: Sent with every request.
    """

    def __init__(self, rest: str, rpc: str | None, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else None
        self.http = httpx.Client(base_url=rest, timeout=SECONDS, headers=headers)
        # A channel connects when it is asked, and nobody asks for gRPC where there is none.
        self.channel = grpc.insecure_channel(rpc or "127.0.0.1:0")
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.metadata = (("authorization", f"Bearer {token}"),) if token else None

    def close(self) -> None:
        self.http.close()
        self.channel.close()

    def post(self, path: str, body: Any) -> Any:
        """Returns the answer to a REST call that must succeed."""
        reply = self.http.post(f"/v1/models/{path}", json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def refused(self, path: str, body: Any) -> tuple[int, str]:
        """Returns status and message of a REST call that must fail; the body has the documented form."""
        content = body if isinstance(body, bytes) else None
        reply = self.http.post(f"/v1/models/{path}", content=content, json=None if content is not None else body)
        assert reply.headers["content-type"].startswith("application/json")
        (key,) = reply.json()
        assert key == "error" and reply.status_code != 200
        return reply.status_code, reply.json()["error"]

    def predict(self, name: str, inputs: dict[str, Any], **spec: Any) -> Any:
        """Returns the message that answers a Predict call; `spec` takes `version`, `label` and `signature`."""
        request = predict_pb2.PredictRequest()
        fill_spec(request.model_spec, name, **spec)
        for key, value in inputs.items():
            proto = value if isinstance(value, type(request.inputs[key])) else tf.make_tensor_proto(value)
            request.inputs[key].CopyFrom(proto)
        return self.prediction.Predict(request, SECONDS, metadata=self.metadata)

    def arrays(self, name: str, inputs: dict[str, Any], **spec: Any) -> dict[str, np.ndarray]:
        """Returns the outputs of a Predict call."""
        outputs = self.predict(name, inputs, **spec).outputs
        return {key: tf.make_ndarray(value) for key, value in outputs.items()}

    def states(self, name: str) -> dict[int, str]:
        """Returns the state of each version, over gRPC."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        found = self.models.GetModelStatus(request, SECONDS, metadata=self.metadata).model_version_status
        names = get_model_status_pb2.ModelVersionStatus.State
        return {status.version: names.Name(status.state) for status in found}


def fill_spec(spec: Any, name: str, version: int | None = None, label: str | None = None, signature: str = "") -> None:
    """Fills a ModelSpec."""
    spec.name, spec.signature_name = name, signature
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label


class RunningServer:
    """Serves a folder while its block runs.

    Args:
        folder: MODEL_DIR.
        token: Sent by `client`.
        raw: Where LiteRT exports are served, makes what takes raw texts.
        **settings: Other settings of the server.

    Attributes:
        server: The server.
        client: A client of it.
    """

    def __init__(self, folder: Path, token: str | None = None, raw: Any = None, **settings: Any) -> None:
        plain = {"rest_port": 0, "poll_seconds": 0.1, "access_log": False, "log_format": "text"}
        plain |= {} if raw else {"grpc_port": 0}
        self._more = {"raw": raw} if raw else {}
        self._config = ServingConfig(model_dir=str(folder), **(plain | settings))
        self._token, self._started, self._error = token, threading.Event(), None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> RunningServer:
        self._thread.start()
        assert self._started.wait(SECONDS), "the server did not start"
        if self._error is not None:
            raise self._error
        where = self.server.addresses
        self.client = Client(where["rest"], where.get("grpc"), self._token)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.stop()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "the server did not stop"

    def stop(self) -> None:
        """Begins to stop, as on SIGTERM."""
        with contextlib.suppress(RuntimeError):  # it has stopped already
            self.loop.call_soon_threadsafe(self._end.set)

    async def _run(self) -> None:
        self._end, self.loop = asyncio.Event(), asyncio.get_running_loop()
        try:
            self.server = Server(self._config, **self._more)
            await (await self.server.start()).wait()
        except Exception as error:
            self._error = error
            return
        finally:
            self._started.set()
        await self._end.wait()
        await self.server.stop()
