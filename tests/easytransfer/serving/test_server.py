"""The running server: swaps under load, limits, deadlines, token, TLS, metrics, log, warm-up."""

import json
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from running_server import SECONDS, Client, RunningServer, fill_spec
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, predict_pb2
from toy_models import save_toy

from easytransfer.errors import ConfigError, ResourceError
from easytransfer.export.warmup import write_warmup
from easytransfer.savedmodel.signature import Signature
from easytransfer.serving.repository import Target

TOKEN = "a-token-of-enough-characters"


def until(condition, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def publish(source: Path, model: Path, version: int) -> None:
    """Copies a version as `export` publishes one: under another name, then renamed."""
    shutil.copytree(source, model / f".staging-{version}")
    (model / f".staging-{version}").rename(model / str(version))


def slow_down(server: RunningServer, name: str, version: int, seconds: float) -> None:
    """Makes the default signature of a version take time."""
    with server.server.repository.lease(Target(name, version)) as servable:
        plain = servable.signatures["serving_default"]

        def call(inputs):
            time.sleep(seconds)
            return plain.call(inputs)

        servable.signatures["serving_default"] = replace(plain, call=call)


class Load(threading.Thread):
    """Asks again and again, over one protocol, and checks that each answer is that of one version.

    Version v adds 10 v to half of its input.
    """

    def __init__(self, server: RunningServer, over_rest: bool) -> None:
        super().__init__(daemon=True)
        where = server.server.addresses
        self._client, self._over_rest = Client(where["rest"], where["grpc"]), over_rest
        self.stopping, self.answers, self.errors = threading.Event(), [], []

    def run(self) -> None:
        values = np.arange(1, 9, dtype=np.float32)
        while not self.stopping.is_set():
            try:
                if self._over_rest:
                    reply = self._client.http.post("/v1/models/m:predict", json={"instances": values.tolist()})
                    reply.raise_for_status()
                    found, version = np.array(reply.json()["predictions"]), None
                else:
                    message = self._client.predict("m", {"x": values})
                    found, version = tf.make_ndarray(message.outputs["y"]), message.model_spec.version.value
                added = set((found - 0.5 * values).tolist())
                assert len(added) == 1, f"a mixture of versions: {added}"
                answered = round(added.pop() / 10)
                assert version in (None, answered)
                self.answers.append(answered)
            except Exception as error:
                self.errors.append(repr(error))
        self._client.close()


def test_versions_are_exchanged_under_load_without_a_failure_or_a_mixture(tmp_path):
    versions = 6
    sources = {
        v: save_toy(tmp_path / "made" / str(v), 10.0 * v, only="serving_default") for v in range(1, versions + 1)
    }
    model = tmp_path / "base" / "m"
    model.mkdir(parents=True)
    publish(sources[1], model, 1)
    with RunningServer(tmp_path / "base") as server:
        loads = [Load(server, over_rest=number % 2 == 0) for number in range(4)]
        for load in loads:
            load.start()
        for version in range(2, versions + 1):
            publish(sources[version], model, version)
            until(lambda v=version: all(load.answers[-1:] == [v] or load.errors for load in loads))
        for load in loads:
            load.stopping.set()
            load.join(SECONDS)
        assert [load.errors for load in loads] == [[]] * 4
        for load in loads:
            assert load.answers == sorted(load.answers), "an older version answered after a newer one"
            assert set(load.answers) == set(range(1, versions + 1))
        until(lambda: server.client.states("m") == {**dict.fromkeys(range(1, versions), "END"), versions: "AVAILABLE"})


def test_a_damaged_version_is_reported_and_the_old_one_goes_on(tmp_path, half_plus):
    publish(half_plus, tmp_path / "m", 1)
    with RunningServer(tmp_path) as server:
        (tmp_path / "m" / "2").mkdir()
        (tmp_path / "m" / "2" / "saved_model.pb").write_bytes(b"not a program")
        until(lambda: server.client.states("m").get(2) == "END")
        assert server.client.post("m:predict", {"instances": [2.0]}) == {"predictions": [8.0]}
        found = server.client.http.get("/v1/models/m/versions/2").json()["model_version_status"][0]
        assert found["status"]["error_code"] == "UNKNOWN" and "saved_model.pb" in found["status"]["error_message"]


def test_warm_up_requests_run_before_a_version_is_available(tmp_path, half_plus):
    publish(half_plus, tmp_path / "m", 1)
    signature = Signature(dict, {"x": tf.TensorSpec([None], tf.float32)}, {"x": np.ones(1, np.float32)})
    (tmp_path / "m" / "1" / "assets.extra").mkdir()
    write_warmup(tmp_path / "m" / "1", "m", {"serving_default": signature}, 4)
    publish(half_plus, tmp_path / "broken", 1)
    (tmp_path / "broken" / "1" / "assets.extra").mkdir()
    write_warmup(tmp_path / "broken" / "1", "m", {"absent": signature}, 4)
    with RunningServer(tmp_path) as server:
        assert server.client.states("m") == {1: "AVAILABLE"} and server.client.states("broken") == {1: "END"}
        assert server.client.http.get("/healthz").status_code == 200
        assert server.client.http.get("/readyz").status_code == 503


def test_limits_of_size_time_and_queue(tmp_path, half_plus):
    publish(half_plus, tmp_path / "m", 1)
    (tmp_path / "batching.config").write_text(
        "max_batch_size { value: 1 } max_enqueued_batches { value: 1 } num_batch_threads { value: 1 }"
    )
    with RunningServer(tmp_path, max_request_mb=0.01, request_seconds=0.5) as server:
        client, body = server.client, {"instances": [1.0]}
        assert client.refused("m:predict", {"instances": [1.0] * 5000})[0] == 413
        assert client.http.post("/v1/models/m:predict", content=iter([b" " * 20_000] * 3)).status_code == 413
        with pytest.raises(grpc.RpcError) as failure:
            client.predict("m", {"x": np.ones(10_000, np.float32)})
        assert failure.value.code().name == "RESOURCE_EXHAUSTED"
        status, message = client.refused("m:predict", {"instances": [1.0, 2.0]})
        assert status == 400 and "1 rows, not 2" in message
        slow_down(server, "m", 1, 1.5)
        status, message = client.refused("m:predict", body)
        assert status == 504 and "0.5 s" in message
        with httpx.Client(base_url=server.server.addresses["rest"], timeout=SECONDS) as http:
            found = []
            threads = [
                threading.Thread(target=lambda: found.append(http.post("/v1/models/m:predict", json=body).status_code))
                for _ in range(6)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert 429 in found and set(found) <= {429, 504}
        with pytest.raises(grpc.RpcError) as failure:
            client.prediction.Predict(_request(), 0.2)
        assert failure.value.code().name == "DEADLINE_EXCEEDED"


def _request() -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    fill_spec(request.model_spec, "m")
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    return request


def test_requests_that_run_are_answered_when_the_server_stops(tmp_path, half_plus):
    publish(half_plus, tmp_path / "m", 1)
    with RunningServer(tmp_path) as server:
        slow_down(server, "m", 1, 1.0)
        found = []
        client = server.client
        threads = [
            threading.Thread(target=lambda: found.append(client.post("m:predict", {"instances": [2.0]}))),
            threading.Thread(target=lambda: found.append(client.arrays("m", {"x": np.float32([2.0])})["y"].tolist())),
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.4)
        server.stop()
        for thread in threads:
            thread.join(SECONDS)
        assert sorted(map(str, found)) == ["[8.0]", "{'predictions': [8.0]}"]
        assert not server.server.ready
        with pytest.raises(httpx.TransportError):
            client.http.get("/healthz")


def test_only_those_with_the_token_are_answered_and_it_is_never_written(tmp_path, half_plus, capfd):
    publish(half_plus, tmp_path / "m", 1)
    (tmp_path / "token").write_text(TOKEN + "\n")
    with RunningServer(tmp_path, token=TOKEN, token_file=str(tmp_path / "token"), access_log=True) as server:
        assert server.client.post("m:predict", {"instances": [2.0]}) == {"predictions": [8.0]}
        assert server.client.arrays("m", {"x": np.float32([2.0])})["y"].tolist() == [8.0]
        where = server.server.addresses
        for token in (None, "another-token-of-characters", TOKEN + "x"):
            stranger = Client(where["rest"], where["grpc"], token)
            status, message = stranger.refused("m:predict", {"instances": [2.0]})
            assert status == 401 and TOKEN not in message
            with pytest.raises(grpc.RpcError) as failure:
                stranger.predict("m", {"x": np.float32([2.0])})
            assert failure.value.code().name == "UNAUTHENTICATED"
            with pytest.raises(grpc.RpcError) as failure:
                stranger.states("m")
            assert failure.value.code().name == "UNAUTHENTICATED"
            paths = {"/": 200, "/healthz": 200, "/readyz": 200, "/page/models": 401, "/v1/models/m": 401}
            paths["/monitoring/prometheus/metrics"] = 401
            assert {path: stranger.http.get(path).status_code for path in paths} == paths
            stranger.close()
    written = capfd.readouterr()
    assert TOKEN not in written.out + written.err and "another-token" not in written.out + written.err


@pytest.mark.parametrize("content", [None, "short"])
def test_an_unusable_token_file_is_refused(tmp_path, half_plus, content):
    if content:
        (tmp_path / "token").write_text(content)
    with (
        pytest.raises(ConfigError, match="token") as failure,
        RunningServer(half_plus, token_file=str(tmp_path / "token")),
    ):
        pass
    assert content is None or content not in str(failure.value).replace("too short", "")


def test_tls_on_both_ports(tmp_path, half_plus):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate of this test")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    with RunningServer(half_plus, tls_cert=str(certificate), tls_key=str(key)) as server:
        where, name = server.server.addresses, half_plus.parent.name
        reply = httpx.post(
            f"{where['rest']}/v1/models/{name}:predict", json={"instances": [2.0]}, verify=str(certificate)
        )
        assert where["rest"].startswith("https://") and reply.json() == {"predictions": [8.0]}
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(where["grpc"], credentials) as channel:
            request = get_model_status_pb2.GetModelStatusRequest()
            request.model_spec.name = name
            found = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, SECONDS)
            assert found.model_version_status[0].version == 1
    with (
        pytest.raises(ConfigError, match="certificate"),
        RunningServer(half_plus, tls_cert=str(key), tls_key=str(certificate)),
    ):
        pass


def test_answers_do_not_wait_for_acknowledgements(running):
    """Every answer took 40 ms more: its end was held back until the client had acknowledged its beginning."""
    with running.server._listen(0) as listener, socket.create_connection(listener.getsockname()):
        with listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_taken_is_named(half_plus, running):
    port = int(running.server.addresses["rest"].rsplit(":", 1)[1])
    with pytest.raises(ResourceError, match=f"127.0.0.1:{port}"), RunningServer(half_plus, rest_port=port):
        pass
    port = int(running.server.addresses["grpc"].rsplit(":", 1)[1])
    with pytest.raises(ResourceError, match=f"127.0.0.1:{port}"), RunningServer(half_plus, grpc_port=port):
        pass


def test_metrics_have_the_names_of_tensorflow_serving(running):
    running.client.post("toy:predict", {"instances": [1.0]})
    running.client.refused("../secret:predict", {"instances": [1.0]})
    running.client.refused("made-up:predict", {"instances": [1.0]})
    reply = running.client.http.get("/monitoring/prometheus/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    lines = dict(line.rsplit(" ", 1) for line in reply.text.splitlines() if not line.startswith("#"))
    assert float(lines[':tensorflow:serving:request_count{model_name="toy",status="OK"}']) >= 1
    assert float(lines[':tensorflow:serving:request_count{model_name="unknown",status="NOT_FOUND"}']) >= 1
    latency = ':tensorflow:serving:request_latency_count{API="predict",entrypoint="REST",model_name="toy"}'
    assert float(lines[latency]) >= 1 and float(lines["process_resident_memory_bytes"]) > 1e6
    assert "made-up" not in reply.text


def test_a_log_line_says_what_was_asked_but_not_its_contents(tmp_path, half_plus, capfd):
    publish(half_plus, tmp_path / "m", 1)
    with RunningServer(tmp_path, access_log=True) as server:
        server.client.post("m:predict", {"instances": [1234.5, 2.0]})
        server.client.refused("secret-name:predict", {"instances": ["secret text"]})
        server.client.arrays("m", {"x": np.float32([1.0])}, version=1)
    written = capfd.readouterr().err
    requests = [json.loads(line) for line in written.splitlines() if '"event": "request"' in line]
    assert [(r["entry"], r["model"], r["version"], r["status"], r["rows"]) for r in requests] == [
        ("REST", "m", 1, "OK", 2), ("REST", "unknown", None, "NOT_FOUND", 0), ("GRPC", "m", 1, "OK", 1)
    ]  # fmt: skip
    assert requests[0]["ms"] >= 0 and "1234.5" not in written and "secret" not in written


STRANGE_PATHS = ["/v1/models/..%2f..%2fetc", "/v1/models/../../etc/passwd", "/v1/models/toy/versions/-1"]
STRANGE_PATHS += ["/v1/models", "/v1/", "/v2/models/toy", "/etc/passwd"]


@pytest.mark.parametrize("path", STRANGE_PATHS)
def test_paths_that_are_none_of_ours(running, path):
    with httpx.Client(base_url=running.server.addresses["rest"]) as http:
        reply = http.send(http.build_request("GET", running.server.addresses["rest"] + path))
    assert reply.status_code in (400, 404) and list(reply.json()) == ["error"]


def test_what_a_model_refuses_is_explained_without_places_in_its_graph(running):
    body = {"signature_name": "picture", "instances": [{"b64": ""}]}
    status, message = running.client.refused("toy:predict", body)
    assert status == 400 and "an image is empty" in message and "Graph execution" not in message


def test_the_page_brings_nothing_along_and_may_run_nothing_else(running):
    reply = running.client.http.get("/")
    policy = reply.headers["content-security-policy"]
    assert reply.headers["content-type"].startswith("text/html") and "default-src 'none'" in policy
    assert (
        "unsafe" not in policy and policy.count("sha256-") == 2 and reply.headers["x-content-type-options"] == "nosniff"
    )
    for word in ("innerHTML", "http://", "https://", "eval(", "onclick", "style="):
        assert word not in reply.text
    assert running.client.http.get("/page/models").json() == {"models": ["toy"]}
