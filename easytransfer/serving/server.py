"""The server: its protocols on one event loop, models loaded by a thread beside it, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import math
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from easytransfer.errors import ConfigError, ModelError, ResourceError
from easytransfer.litert.interpreters import require_litert
from easytransfer.run.log import LOGGER, say, warn
from easytransfer.serving.access import Gate
from easytransfer.serving.batching import Batcher, thread_count
from easytransfer.serving.joining import BatchingParameters
from easytransfer.serving.litert import LiteRtServable, RawCaller
from easytransfer.serving.metrics import Metrics
from easytransfer.serving.repository import Repository, Target
from easytransfer.serving.rest import RestProtocol
from easytransfer.serving.servable import Servable
from easytransfer.serving.service import Service
from easytransfer.serving.settings import ServingConfig
from easytransfer.serving.sources import SAVED_MODEL, ModelDirectory

if TYPE_CHECKING:
    from easytransfer.serving.rpc import RpcServer

_KEEP_ALIVE_SECONDS = 75
# Interpreters have one thread: as many as there are cores compute at once.
_EVERY_CORE = BatchingParameters(num_batch_threads=len(os.sched_getaffinity(0)))


class _HttpServer(uvicorn.Server):
    """uvicorn without its own handling of signals, which would end the process with the signal's exit code."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """One server in one event loop: of SavedModels by REST and gRPC, or of LiteRT exports by REST, without TensorFlow.

    Args:
        config: Settings.
        raw: Makes what takes the raw texts of requests for a LiteRT export; by default there is no such signature.

    Attributes:
        repository: The models.
        addresses: `rest` and, of SavedModels, `grpc`, once `start` has returned.

    Raises:
        ConfigError: A configuration file, the certificate or the token is not usable, or gRPC is asked for.
        ModelError: There is nothing to serve.
        ResourceError: LiteRT is not installed.
    """

    def __init__(self, config: ServingConfig, raw: RawCaller = lambda model: None) -> None:
        self._config = config
        gate, most_bytes = Gate(config.token_file), int(config.max_request_mb * 2**20)
        directory = ModelDirectory(str(config.model_dir))
        graphs = directory.program == SAVED_MODEL
        if not graphs:
            _check_litert(config)
        parameters = _parameters(config, directory.base, BatchingParameters() if graphs else _EVERY_CORE)
        self.repository = Repository(directory, _graph_loader(parameters) if graphs else _litert_loader(raw))
        self._batcher = Batcher(parameters, self._observe)
        self._metrics = Metrics(lambda: self._batcher.waiting)
        self.service = Service(
            self.repository, self._batcher, self._metrics,
            request_seconds=config.request_seconds, access_log=config.access_log,
        )  # fmt: skip
        rest = RestProtocol(self.service, gate, self._metrics.text, most_bytes, lambda: self.ready)
        self._http = _HttpServer(self._http_config(rest))
        self._rpc: RpcServer | None = None
        if graphs:
            from easytransfer.serving.rpc import RpcServer

            self._rpc = RpcServer(config, self.service, gate, most_bytes, lambda: self.ready)
        self._draining = False
        self._stopped = threading.Event()
        self.addresses: dict[str, str] = {}

    @property
    def ready(self) -> bool:
        """Says whether requests should be sent here."""
        return not self._draining and self.repository.ready

    async def start(self) -> asyncio.Event:
        """Listens, and begins to load.

        Returns:
            Set when every version that is there was loaded or left out.

        Raises:
            ResourceError: A port is taken.
        """
        config, looked = self._config, asyncio.Event()
        listener = self._listen(config.rest_port)
        rest_port, grpc_port = listener.getsockname()[1], None
        if self._rpc is not None:
            try:
                grpc_port = await self._rpc.start()
            except ResourceError:
                listener.close()
                raise
        self._serving = asyncio.create_task(self._http.serve(sockets=[listener]))
        while not self._http.started and not self._serving.done():
            await asyncio.sleep(0.01)
        host = f"[{config.host}]" if ":" in config.host else config.host
        scheme = "https" if config.tls_cert else "http"
        self.addresses = {"rest": f"{scheme}://{host}:{rest_port}"}
        if grpc_port is not None:
            self.addresses["grpc"] = f"{host}:{grpc_port}"
        self._watcher = threading.Thread(
            target=self._watch, args=(asyncio.get_running_loop(), looked), name="models", daemon=True
        )
        self._watcher.start()
        return looked

    async def stop(self) -> None:
        """Answers what is running, refuses what is new, and ends."""
        self._draining = True
        self._stopped.set()
        await asyncio.sleep(self._config.drain_delay_seconds)
        self._http.should_exit = True
        await asyncio.gather(*([self._rpc.stop()] if self._rpc is not None else []), self._serving)
        await asyncio.to_thread(self._batcher.close)

    def _watch(self, loop: asyncio.AbstractEventLoop, looked: asyncio.Event) -> None:
        """Polls the folders; the first time at once."""
        self._poll()
        with contextlib.suppress(RuntimeError):  # the loop has ended in the meantime
            loop.call_soon_threadsafe(looked.set)
        while self._config.poll_seconds and not self._stopped.wait(self._config.poll_seconds):
            self._poll()

    def _poll(self) -> None:
        try:
            self.repository.poll()
        except Exception as error:  # a folder that changes while it is read; the next look is soon
            warn(f"looking for versions failed: {type(error).__name__}: {error}")

    def _observe(self, servable: Any, rows: int, size: int, seconds: float) -> None:
        self._metrics.batch(servable.name, rows, size, seconds)

    def _listen(self, port: int) -> socket.socket:
        host = self._config.host
        try:
            listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
            # Connections inherit it. asyncio does not set it for sockets made like this, and without it the end of
            # every answer waits 40 ms for the client's delayed acknowledgement of its beginning.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return listener
        except OSError as error:
            raise ResourceError(f"cannot listen on {host}:{port}: {error.strerror}", fix="see --restPort") from error

    def _http_config(self, rest: RestProtocol) -> uvicorn.Config:
        config = self._config
        found = uvicorn.Config(
            rest.application(), lifespan="off", ws="none", log_config=None, log_level="error", access_log=False,
            proxy_headers=False, server_header=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=math.ceil(config.drain_seconds),
            ssl_certfile=config.tls_cert, ssl_keyfile=config.tls_key,
        )  # fmt: skip
        try:
            found.load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                "the certificate or its key cannot be used",
                received=f"{config.tls_cert}, {config.tls_key}: {error.strerror or type(error).__name__}",
                accepted="files in PEM form",
            ) from error
        logging.getLogger("uvicorn").handlers = logging.getLogger(LOGGER).handlers
        return found


def serve(config: ServingConfig, announce: Callable[[dict[str, Any]], None], raw: RawCaller) -> dict[str, Any]:
    """Serves until SIGTERM or SIGINT.

    Args:
        config: Settings.
        announce: Told where to find the server, once it is ready.
        raw: As of `Server`.

    Returns:
        What was done.

    Raises:
        ModelError: No version of any model can be loaded.
    """
    return asyncio.run(_serve(config, announce, raw))


async def _serve(config: ServingConfig, announce: Callable[[dict[str, Any]], None], raw: RawCaller) -> dict[str, Any]:
    # What was imported stays: collections pass over it, and do not keep requests waiting.
    gc.freeze()
    server, stop = Server(config, raw), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    looked = await server.start()
    shown = {"rest": "REST", "grpc": "gRPC"}
    say("listening on " + " and ".join(f"{where} ({shown[kind]})" for kind, where in server.addresses.items()))
    waits = [asyncio.create_task(event.wait()) for event in (looked, stop)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            models = {name: _available(server.repository, name) for name in server.repository.names}
            if not any(models.values()):
                raise ModelError(
                    f"no version of any model in {config.model_dir} can be served", fix="see the log above"
                )
            announce({**server.addresses, "models": models})
            await stop.wait()
        say("stopping: requests that are running are answered")
    finally:
        await server.stop()
        for wait in waits:
            wait.cancel()
    return {"requests": server.service.answered}


def _available(repository: Repository, name: str) -> list[int]:
    states = repository.status(Target(name)) if name in repository else {}
    return sorted(version for version, status in states.items() if status.state == "AVAILABLE")


def _graph_loader(parameters: BatchingParameters) -> Callable[[str, int, Path], Servable]:
    from easytransfer.serving.saved_model import SavedModelServable

    # The cores are shared among the batches that are computed at once.
    threads = max(1, len(os.sched_getaffinity(0)) // thread_count(parameters))
    return functools.partial(SavedModelServable, threads=threads)


def _litert_loader(raw: RawCaller) -> Callable[[str, int, Path], Servable]:
    return functools.partial(LiteRtServable, raw=raw)


def _check_litert(config: ServingConfig) -> None:
    """Checks what a server of LiteRT exports needs and does not have.

    Raises:
        ConfigError: gRPC is asked for.
        ResourceError: LiteRT is not installed.
    """
    if "grpc_port" in config.model_fields_set:
        raise ConfigError(
            "LiteRT exports are served over REST alone: gRPC would import TensorFlow, which its messages are part of",
            received=f"grpcPort {config.grpc_port}",
            fix="leave grpcPort out, or serve the SavedModel of the same run",
        )
    require_litert()


def _parameters(config: ServingConfig, base: Path, built_in: BatchingParameters) -> BatchingParameters:
    """Returns the parameters of the file that is given or stands beside the models."""
    path = Path(config.batching_config) if config.batching_config else base / "batching.config"
    return BatchingParameters.read(path) if config.batching_config or path.is_file() else built_in
