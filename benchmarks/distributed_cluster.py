"""The processes of one subject of `distributed.py`, each on its own host, watched and measured from outside."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from shaped_links import DEVICE, Links

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("distributed_worker.py")
PORT = 2222
# Seconds after which a process that does not answer counts as stuck; longer than any block of steps.
PATIENCE_S = 1200
TAIL = 1500


class RunFailed(Exception):
    """A process of a subject ended or answered nothing; the message has the end of what it wrote."""


class Program:
    """One process that takes commands on stdin and answers on stdout.

    Args:
        name: Of its host.
        command: What to run.
        environment: All its variables.
    """

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name, self._errors = name, tempfile.TemporaryFile()
        # A session of its own: Ctrl-C goes to the benchmark, which ends its processes in order.
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            if line.startswith("@"):
                self._answers.put(json.loads(line[1:]))

    def send(self, **command: Any) -> None:
        """Sends a command; a process that has ended is noticed when its answer is waited for."""
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def answer(self) -> dict[str, Any] | None:
        """Returns the next answer, or None after a short while without one."""
        try:
            return self._answers.get(timeout=0.05)
        except queue.Empty:
            return None

    def failure(self, what: str) -> RunFailed:
        """Returns an error with the end of the process' stderr."""
        self._errors.seek(0)
        return RunFailed(f"{self.name} {what}: {self._errors.read().decode(errors='replace')[-TAIL:]}")

    def cpu_seconds(self) -> float:
        """Returns the processor time used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mb(self) -> float:
        """Returns the largest resident memory so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def end(self) -> None:
        """Kills the process."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._errors.close()


class Cluster:
    """Starts all processes of a subject; a context manager that ends them.

    Args:
        links: Hosts `worker0`, `worker1`, ..., `server` and `coordinator`.
        settings: Of the run; `kind` decides which processes there are.

    Attributes:
        programs: All processes.
        trainers: Those that take commands, rank 0 first.
    """

    def __init__(self, links: Links, settings: dict[str, Any]) -> None:
        self._links, self._settings = links, settings
        self.programs: list[Program] = []
        self.trainers: list[Program] = []

    def __enter__(self) -> Cluster:
        starts = {"alone": self._start_alone, "server": self._start_server, "mirrored": self._start_mirrored}
        try:
            starts.get(self._settings["kind"], self._start_horovod)()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs:
            program.end()

    def answers(self, programs: list[Program]) -> list[dict[str, Any]]:
        """Waits for one answer of each.

        Raises:
            RunFailed: A process ended, or an answer takes too long.
        """
        found: dict[str, dict[str, Any]] = {}
        deadline = time.monotonic() + PATIENCE_S
        while len(found) < len(programs):
            for program in programs:
                if program.name not in found and (reply := program.answer()) is not None:
                    found[program.name] = reply
            for program in self.programs:
                if program.process.poll() is not None:
                    raise program.failure(f"ended with {program.process.returncode}")
            if time.monotonic() > deadline:
                late = next(program for program in programs if program.name not in found)
                raise late.failure("does not answer")
        return [found[program.name] for program in programs]

    def ask(self, **command: Any) -> list[dict[str, Any]]:
        """Sends a command to all ranks and returns their answers in order."""
        for program in self.trainers:
            program.send(**command)
        return self.answers(self.trainers)

    def _start_alone(self) -> None:
        self.trainers = [self._start("worker0", 0, rank=0, parts=1)]

    def _start_horovod(self) -> None:
        workers = self._settings["workers"]
        rendezvous = self._start("coordinator", None, role="rendezvous")
        port = self.answers([rendezvous])[0]["port"]
        for rank in range(workers):
            variables = {
                "HOROVOD_HOSTNAME": f"worker{rank}",
                "HOROVOD_RANK": rank,
                "HOROVOD_SIZE": workers,
                "HOROVOD_LOCAL_RANK": 0,
                "HOROVOD_LOCAL_SIZE": 1,
                "HOROVOD_CROSS_RANK": rank,
                "HOROVOD_CROSS_SIZE": workers,
                "HOROVOD_CONTROLLER": "gloo",
                "HOROVOD_CPU_OPERATIONS": "gloo",
                "HOROVOD_GLOO_IFACE": DEVICE,
                "HOROVOD_GLOO_RENDEZVOUS_ADDR": "coordinator",
                "HOROVOD_GLOO_RENDEZVOUS_PORT": port,
                "HOROVOD_GLOO_TIMEOUT_SECONDS": PATIENCE_S,
            }
            self.trainers.append(self._start(f"worker{rank}", rank, variables, rank=rank))

    def _start_mirrored(self) -> None:
        for rank in range(self._settings["workers"]):
            cluster = {"worker": self._addresses()}
            self.trainers.append(self._start(f"worker{rank}", rank, _task(cluster, "worker", rank), rank=rank))

    def _start_server(self) -> None:
        workers = self._settings["workers"]
        cluster = {"chief": [f"coordinator:{PORT}"], "ps": [f"server:{PORT}"], "worker": self._addresses()}
        # A server needs a thread for every process that may wait in it.
        threads = {"TF_NUM_INTEROP_THREADS": workers + 1}
        servers = [self._start("server", None, _task(cluster, "ps", 0) | threads, role="server")]
        for rank in range(workers):
            variables = _task(cluster, "worker", rank) | threads
            servers.append(self._start(f"worker{rank}", rank, variables, role="server"))
        self.answers(servers)
        self.trainers = [self._start("coordinator", None, _task(cluster, "chief", 0) | threads, rank=0)]

    def _addresses(self) -> list[str]:
        return [f"worker{rank}:{PORT}" for rank in range(self._settings["workers"])]

    def _start(
        self, host: str, place: int | None, variables: dict[str, object] | None = None, **options: object
    ) -> Program:
        """Starts a process, on one core if it has a place among the workers; they share cores if there are too few."""
        cores = sorted(os.sched_getaffinity(0))
        settings = {"role": "train", "parts": self._settings["workers"], **self._settings, **options}
        command = [sys.executable, str(WORKER), json.dumps(settings)]
        core = None if place is None else cores[place % len(cores)]
        environment = _environment() | {name: str(value) for name, value in (variables or {}).items()}
        program = Program(host, self._links.command(host, command, core), environment)
        self.programs.append(program)
        return program


def _task(cluster: dict[str, list[str]], kind: str, index: int) -> dict[str, object]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def _environment() -> dict[str, str]:
    # A proxy of this machine would be asked for the hosts of the benchmark.
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {
        "CUDA_VISIBLE_DEVICES": "",
        "GRPC_FAIL_FAST": "use_caller",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # With oneDNN, two einsums at a time crash some starts of a process (TensorFlow 2.20).
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_NUM_INTEROP_THREADS": "2",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_USE_LEGACY_KERAS": "1",
    }
