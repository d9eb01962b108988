"""Starts the workers of a job, watches them, ends them together, and in an elastic job starts them again."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from easytransfer.distributed.strategy import RESTARTS
from easytransfer.errors import ConfigError, Interrupted, ResourceError
from easytransfer.installing import HOROVOD_LINE
from easytransfer.run.log import warn

# Seconds between a failure of one worker and the end of the others.
GRACE_S = 30
# Seconds between two looks at the hosts of an elastic job.
LOOK_S = 5
# Exit code of ssh when it cannot reach a host.
_NO_CONNECTION = 255
# Ends a worker on another host when its connection ends: the launcher holds the other end of this stdin open.
_ENDS_WITH_STDIN = "exec 3<&0; { cat <&3; kill -HUP $$; } >/dev/null 2>&1 &"
# Losses on one host, without a new checkpoint between them, after which it gets no more workers.
PATIENCE = 3


@dataclass
class Hosts:
    """Where workers run.

    Attributes:
        text: `host:slots,...`; `localhost` is this machine.
        script: Program that prints `host:slots` lines; asked again and again, it replaces `text`.
        remote_shell: Command that takes a host and a command line, for hosts that are not this machine, and passes on
            its stdin, as `ssh` does; without a terminal (`-t`), which would mix what workers print.
        interface: Network interface for the exchanges; `lo` when all workers are here.
    """

    text: str
    script: str | None = None
    remote_shell: str = "ssh"
    interface: str | None = None

    def look(self) -> list[tuple[str, int]]:
        """Returns every host that is there now with its slots.

        Raises:
            ConfigError: The script fails.
        """
        if self.script is None:
            return [_host(entry) for entry in self.text.split(",")]
        try:
            result = subprocess.run([self.script], capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            raise ConfigError(f"{self.script} cannot tell the hosts", received=str(error)) from error
        return [_host(line) for line in result.stdout.split()]


@dataclass
class Elastic:
    """How a job goes on when workers come and go.

    Attributes:
        least: Workers it needs; with fewer it waits for hosts.
        most: Workers it uses.
        position: Tells how far the job's checkpoints are; unchanged between two losses, the job is not getting on.
    """

    least: int
    most: int
    position: Callable[[], Any]
    losses: Counter[str] = field(default_factory=Counter)

    def use(self, hosts: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Returns the hosts to use with their workers: at most `most`, none where workers are lost again and again."""
        found, room = [], self.most
        for host, slots in hosts:
            if room and slots and self.losses[host] < PATIENCE:
                found.append((host, min(slots, room)))
                room -= found[-1][1]
        return found


def launch(
    command: Sequence[str],
    hosts: Hosts,
    environment: Mapping[str, str] | None = None,
    elastic: Elastic | None = None,
) -> int:
    """Runs one process of a command for every slot of the hosts, makes them find each other, and waits for all.

    Every line the workers write to stderr is passed on, those of others than rank 0 with `[rank]` before it; only
    rank 0 writes to stdout. SIGTERM and SIGINT are passed on. When one worker fails, the others get `GRACE_S` seconds.

    An elastic job does not fail with a worker that is killed or cut off: the others are ended too, and all start
    again, as many as the hosts have slots, from the last checkpoint. When the script of the hosts reports others than
    before, the workers are asked to save first. A job that starts again has the environment variable `RESTARTS`.

    Args:
        command: Program and arguments.
        hosts: Where to run.
        environment: Variables beside those of this process.
        elastic: None ends the job with its first worker.

    Returns:
        0, or the exit code of the first worker that failed.

    Raises:
        ConfigError: Horovod is missing.
        ResourceError: An elastic job is not getting on, or no host is left.
    """
    _import_horovod()
    with _Signals() as signals:
        if elastic is None:
            return _Generation(command, hosts, hosts.look(), environment or {}, signals).wait()
        restarts = 0
        while True:
            slots = _wait_for_slots(hosts, elastic, signals)
            if slots is None:
                return Interrupted.exit_code
            before = elastic.position()
            generation = _Generation(
                command, hosts, slots, {**(environment or {}), RESTARTS: str(restarts)}, signals, elastic
            )
            code = generation.wait()
            if not generation.again:
                return code
            restarts += 1
            if elastic.position() != before:
                elastic.losses.clear()
            elastic.losses.update(generation.lost_on)


def _import_horovod() -> tuple[Any, Any, Any]:
    try:
        from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
        from horovod.runner.http.http_server import RendezvousServer
    except ImportError as error:
        raise ConfigError("several workers need Horovod", received=str(error), fix=HOROVOD_LINE) from error
    return RendezvousServer, get_host_assignments, parse_hosts


def _host(entry: str) -> tuple[str, int]:
    host, _, slots = entry.strip().partition(":")
    if not slots.isdigit() and slots:
        raise ConfigError("this is no host", received=entry, accepted="host or host:slots")
    return host, int(slots or 1)


def _wait_for_slots(hosts: Hosts, elastic: Elastic, signals: _Signals) -> list[tuple[str, int]] | None:
    """Returns hosts with enough slots as soon as there are some, None when told to stop."""
    waiting = False
    while True:
        found = elastic.use(hosts.look())
        total = sum(slots for _, slots in found)
        if total >= elastic.least:
            return found
        if hosts.script is None:
            raise ResourceError(
                f"workers were lost {PATIENCE} times without a new checkpoint between",
                fix="see the messages above; a smaller save_checkpoint_steps saves more often",
            )
        if not waiting:
            warn(f"{total} workers have a host, {elastic.least} are needed: waiting for hosts")
            waiting = True
        if signals.wait(LOOK_S):
            return None


class _Signals:
    """Catches SIGTERM and SIGINT of the main thread as long as the job runs."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.pass_on: Callable[[int], None] = lambda number: None
        self._event, self._before = threading.Event(), {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._catch) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, _: object) -> None:
        self.received = number
        self._event.set()
        self.pass_on(number)

    def wait(self, seconds: float) -> bool:
        """Waits; returns whether a signal came."""
        return self._event.wait(seconds)


class _Generation:
    """The processes of a job between two restarts.

    Attributes:
        again: After `wait`: whether an elastic job has to start again.
        lost_on: Hosts of the workers that were lost.
    """

    def __init__(
        self,
        command: Sequence[str],
        hosts: Hosts,
        slots: list[tuple[str, int]],
        environment: Mapping[str, str],
        signals: _Signals,
        elastic: Elastic | None = None,
    ) -> None:
        self._hosts, self._slots, self._elastic, self._signals = hosts, slots, elastic, signals
        self.again, self.lost_on, self._asked = False, list[str](), False
        rendezvous, assign, parse = _import_horovod()
        self._server = rendezvous()
        port = self._server.start()
        plan = assign(parse(",".join(f"{host}:{n}" for host, n in slots)), sum(n for _, n in slots))
        self._server.init(plan)
        here = all(slot.hostname == "localhost" for slot in plan)
        interface = hosts.interface or ("lo" if here else None)
        shared = {
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1" if here else _address(plan[-1].hostname),
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
            "PYTHONUNBUFFERED": "1",
            **({"HOROVOD_GLOO_IFACE": interface} if interface else {}),
            **environment,
        }
        self._names = [slot.hostname for slot in plan]
        self._processes = []
        signals.pass_on = self._send
        try:
            for slot in plan:
                own = {
                    "HOROVOD_HOSTNAME": slot.hostname,
                    "HOROVOD_RANK": str(slot.rank),
                    "HOROVOD_SIZE": str(slot.size),
                    "HOROVOD_LOCAL_RANK": str(slot.local_rank),
                    "HOROVOD_LOCAL_SIZE": str(slot.local_size),
                    "HOROVOD_CROSS_RANK": str(slot.cross_rank),
                    "HOROVOD_CROSS_SIZE": str(slot.cross_size),
                }
                self._processes.append(self._start(command, slot, {**shared, **own}))
        except BaseException:
            self._end()
            raise

    def _start(self, command: Sequence[str], slot: Any, variables: dict[str, str]) -> subprocess.Popen:
        environment = dict(os.environ)
        if slot.hostname == "localhost":
            words, environment = list(command), {**environment, **variables}
        else:
            worker = shlex.join(["env", *(f"{name}={value}" for name, value in variables.items()), *command])
            there = f"{_ENDS_WITH_STDIN} cd {shlex.quote(os.getcwd())} && exec {worker} </dev/null 3<&-"
            words = [*shlex.split(self._hosts.remote_shell), slot.hostname, there]
        chief = slot.rank == 0
        process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL if slot.hostname == "localhost" else subprocess.PIPE,
            stdout=None if chief else subprocess.DEVNULL,
            stderr=None if chief else subprocess.PIPE,
        )
        if not chief:
            threading.Thread(target=_pass_lines, args=(process, slot.rank), daemon=True).start()
        return process

    def wait(self) -> int:
        """Waits for all workers; returns 0 or the first failure's exit code."""
        try:
            return self._watch()
        finally:
            self._signals.pass_on = lambda number: None
            self._end()

    def _watch(self) -> int:
        deadline, look = float("inf"), time.monotonic() + LOOK_S
        failed: dict[int, int] = {}
        while True:
            codes = [process.poll() for process in self._processes]
            for rank, code in enumerate(codes):
                if code and rank not in failed:
                    failed[rank] = code
                    deadline = min(deadline, time.monotonic() + GRACE_S)
            first = _code(next(iter(failed.values()), 0))
            if failed and self._elastic and self._signals.received is None and self._starts_again(failed):
                return first
            now = time.monotonic()
            if all(code is not None for code in codes) or now > deadline:
                self.again = self._asked and set(failed.values()) == {Interrupted.exit_code}
                return first
            if self._elastic and self._hosts.script and not self._asked and now > look:
                look = now + LOOK_S
                self._look()
            time.sleep(0.05)

    def _starts_again(self, failed: dict[int, int]) -> bool:
        """Whether workers were lost, and none of them failed by itself."""
        gone = {rank: code for rank, code in failed.items() if code < 0 or code == _NO_CONNECTION}
        cut_off = {rank for rank, code in failed.items() if code == Interrupted.exit_code}
        if len(gone) + len(cut_off) < len(failed) or (self._asked and not gone):
            return False
        # The others notice that a worker is gone and end, too; the first to be seen may be one of them.
        lost = sorted(gone or cut_off)
        self.again, self.lost_on = True, sorted({self._names[rank] for rank in lost})
        ranks = ", ".join(f"{rank} on {self._names[rank]}" for rank in lost)
        warn(f"worker {ranks} was lost (exit code {_code(failed[lost[0]])}); all go on from the last checkpoint")
        return True

    def _look(self) -> None:
        """Asks the workers to save and leave when there are other hosts than before."""
        now = self._elastic.use(self._hosts.look())
        if now != self._slots and sum(slots for _, slots in now) >= self._elastic.least:
            names = ", ".join(f"{host}:{slots}" for host, slots in now)
            warn(f"hosts are now {names}: the workers save and start again")
            self._asked = True
            self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        """Signals the workers here: all stop at the same step when one is told to. Without any, ends all."""
        here = [p for p, name in zip(self._processes, self._names, strict=True) if name == "localhost"]
        for process in here or self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def _end(self) -> None:
        """Ends what still runs; what is on the disk is whole at every moment."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        for process in self._processes:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self._server.stop()


def _pass_lines(process: subprocess.Popen, rank: int) -> None:
    for line in process.stderr:
        sys.stderr.write(f"[{rank}] {line.decode(errors='replace')}")
        sys.stderr.flush()


def _address(host: str) -> str:
    """The address of this machine as `host` sees it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing
        return probe.getsockname()[0]


def _code(returncode: int) -> int:
    """Shell form of a process' return code: 128 + signal for a killed one."""
    return 128 - returncode if returncode < 0 else returncode
