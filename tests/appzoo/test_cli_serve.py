"""The command `serve`: help and mistakes at once, where it listens, an orderly end on SIGTERM, back after kill -9."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from appzoo.cli.main import main

PROGRAM = "import sys; from appzoo.cli.main import main; code = main(sys.argv[1:]); {check}; raise SystemExit(code)"
SECONDS = 90


def command(*arguments: str, check: str = "pass") -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(check=check), "serve", *arguments]


def test_help_needs_no_tensorflow(repository: Path):
    begin = time.monotonic()
    check = "assert 'tensorflow' not in sys.modules"
    done = subprocess.run(command("--help", check=check), cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--restPort" in done.stdout and "MODEL_DIR" in done.stdout
    assert time.monotonic() - begin < 5  # a second on an idle machine


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "easy_transfer_app serve MODEL_DIR"),
        (["absent"], "no such folder"),
        ([".", "--restPrt=1"], "--restPort"),
        ([".", "--restPort=70000"], "<= 65535"),
        ([".", "--tlsCert=a"], "tls_cert and tls_key"),
    ],
)
def test_mistakes_are_told_without_tensorflow(arguments, message, capsys):
    assert main(["serve", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_names_the_extra(monkeypatch, capsys, tmp_path):
    from appzoo.cli import installation as parts

    plain = parts.version
    monkeypatch.setattr(parts, "version", lambda name: None if name == "starlette" else plain(name))
    assert main(["serve", str(tmp_path)]) == 5
    error = capsys.readouterr().err
    assert "not installed: starlette" in error and "pip install" in error and len(error.splitlines()) == 1


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    import tensorflow as tf

    module, folder = tf.Module(), tmp_path_factory.mktemp("exports")
    function = tf.function(lambda x: {"y": 2 * x}).get_concrete_function(x=tf.TensorSpec([None], tf.float32))
    tf.saved_model.save(module, str(folder / "double" / "1"), signatures=function)
    return folder


def start(folder: Path, repository: Path) -> tuple[subprocess.Popen, dict]:
    """Starts the command and returns it with the line it prints when it is ready."""
    process = subprocess.Popen(
        command(str(folder), "--restPort=0", "--grpcPort=0"),
        cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert select.select([process.stdout], [], [], SECONDS)[0], "the server did not start"
    return process, json.loads(process.stdout.readline())


def test_a_stopped_server_answers_what_runs_and_a_killed_one_comes_back(model, repository):
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("tensorflow_serving")
    process, where = start(model, repository)
    try:
        assert where["models"] == {"double": [1]}
        process.kill()
        process.wait(SECONDS)
        begin = time.monotonic()
        process, where = start(model, repository)
        print(f"ready again {time.monotonic() - begin:.1f} s after kill -9")
        stopping, refused, answers = threading.Event(), [], []

        def ask() -> None:
            with httpx.Client(base_url=where["rest"], timeout=SECONDS) as client:
                while not stopping.is_set():
                    try:
                        reply = client.post("/v1/models/double:predict", json={"instances": [1.0, 2.0]})
                    except httpx.TransportError as error:
                        refused.append(error)
                        return
                    answers.append((reply.status_code, reply.json()))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answers) < 20:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        stopping.set()
        for thread in threads:
            thread.join(SECONDS)
        assert {str(answer) for answer in answers} == {"(200, {'predictions': [2.0, 4.0]})"}
        # What was asked after the end met a closed port or connection, not half an answer.
        assert all(
            isinstance(error, (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError)) for error in refused
        )
        assert json.loads(process.stdout.readline())["requests"] >= len(answers)
    finally:
        process.kill()
        process.wait(SECONDS)
