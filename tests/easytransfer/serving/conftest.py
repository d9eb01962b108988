"""Models and servers of the serving tests."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("tensorflow_serving", "starlette", "httpx")):
    collect_ignore_glob = ["test_*.py"]  # without the extras serving and test
else:
    from running_server import Client, RunningServer
    from toy_models import save_toy, write_models


@pytest.fixture(scope="session")
def toy_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `toy` in the versions 2 and 3, and `models.config`."""
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def half_plus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder with the default signature only, quick to load; it adds 7."""
    return save_toy(tmp_path_factory.mktemp("half_plus") / "1", 7.0, only="serving_default")


@pytest.fixture(scope="session")
def running(toy_base: Path) -> "Iterator[RunningServer]":
    """A server of `toy_base`."""
    with RunningServer(toy_base) as server:
        yield server


REAL = [os.environ.get(name) for name in ("TFS_REST_URL", "TFS_GRPC_ADDR")]


@pytest.fixture(scope="session", params=["easytransfer", *(["tensorflow_serving"] if all(REAL) else [])])
def client(request) -> "Iterator[Client]":
    """A client of our server, and of a TensorFlow Serving instance where the environment names one.

    `TFS_REST_URL` and `TFS_GRPC_ADDR` name one that serves what `toy_models.py` writes.
    """
    if request.param == "easytransfer":
        yield request.getfixturevalue("running").client
        return
    found = Client(*map(str, REAL))
    yield found
    found.close()
