"""Starts the workers of a job on this machine, watches them, and ends them together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from easytransfer.distributed.strategy import HOW_TO_INSTALL
from easytransfer.errors import ConfigError

# Seconds between a failure of one worker and the end of the others.
GRACE_S = 30


def launch(command: Sequence[str], workers: int, environment: Mapping[str, str] | None = None) -> int:
    """Runs `workers` processes of one command that find each other, and waits for all of them.

    Every line the workers write to stderr is passed on, those of others than rank 0 with `[rank]` before it; only
    rank 0 writes to stdout. SIGTERM and SIGINT are passed on. When one worker fails, the others get `GRACE_S` seconds.

    Args:
        command: Program and arguments.
        workers: How many.
        environment: Variables beside those of this process.

    Returns:
        0, or the exit code of the first worker that failed.

    Raises:
        ConfigError: Horovod is missing.
    """
    try:
        from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
        from horovod.runner.http.http_server import RendezvousServer
    except ImportError as error:
        raise ConfigError("several workers need Horovod", received=str(error), fix=HOW_TO_INSTALL) from error
    server = RendezvousServer()
    port = server.start()
    slots = get_host_assignments(parse_hosts(f"localhost:{workers}"), workers)
    server.init(slots)
    shared = {
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_GLOO_IFACE": "lo",
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "PYTHONUNBUFFERED": "1",
    }
    processes = []
    try:
        for slot in slots:
            own = {
                "HOROVOD_HOSTNAME": slot.hostname,
                "HOROVOD_RANK": str(slot.rank),
                "HOROVOD_SIZE": str(slot.size),
                "HOROVOD_LOCAL_RANK": str(slot.local_rank),
                "HOROVOD_LOCAL_SIZE": str(slot.local_size),
                "HOROVOD_CROSS_RANK": str(slot.cross_rank),
                "HOROVOD_CROSS_SIZE": str(slot.cross_size),
            }
            processes.append(_start(command, slot.rank, {**os.environ, **shared, **own, **(environment or {})}))
        return _watch(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
        server.stop()


def _start(command: Sequence[str], rank: int, environment: Mapping[str, str]) -> subprocess.Popen:
    process = subprocess.Popen(
        list(command),
        env=dict(environment),
        stdout=None if rank == 0 else subprocess.DEVNULL,
        stderr=None if rank == 0 else subprocess.PIPE,
    )
    if rank:
        threading.Thread(target=_pass_on, args=(process, rank), daemon=True).start()
    return process


def _pass_on(process: subprocess.Popen, rank: int) -> None:
    for line in process.stderr:
        sys.stderr.write(f"[{rank}] {line.decode(errors='replace')}")
        sys.stderr.flush()


def _watch(processes: list[subprocess.Popen]) -> int:
    """Waits for all; passes signals on; ends the rest some time after the first failure."""

    def forward(number: int, _: object) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    first, deadline = 0, float("inf")
    try:
        while any(process.poll() is None for process in processes):
            failed = [process.returncode for process in processes if process.returncode]
            if failed and not first:
                first, deadline = failed[0], time.monotonic() + GRACE_S
            if time.monotonic() > deadline:
                for process in processes:
                    if process.poll() is None:
                        process.terminate()
                time.sleep(2)
                return _code(first)
            time.sleep(0.05)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return _code(first or next((process.returncode for process in processes if process.returncode), 0))


def _code(returncode: int) -> int:
    """Shell form of a process' return code: 128 + signal for a killed one."""
    return 128 - returncode if returncode < 0 else returncode
