"""Hosts on one machine: network namespaces joined by a bridge, each behind a link of a set rate.

Everything lives in namespaces of its own, the bridge too, so that no interface of the machine is touched. Needs root
and the commands `ip`, `tc` and `unshare`.

    with Links(["worker0", "worker1"]) as links:
        links.shape(100)
        subprocess.run(links.command("worker0", ["ping", "-c1", "worker1"]))
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# `ip netns exec` shows a namespace the files of its folder here instead of those of /etc.
HOSTS = Path("/etc/netns")
PREFIX = "ezlinks"
DEVICE, BRIDGE, NETWORK = "link0", "bridge0", "10.213.7"
BURST, QUEUE = "256kb", "50ms"
PORT = 5201
CHUNK = b"\0" * 2**16


class Links:
    """Namespaces with a bridge between them; a context manager that removes all of it whatever happens.

    Args:
        hosts: Host names; every host can resolve all of them.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = list(hosts)
        self._hub = f"{PREFIX}{os.getpid()}-hub"
        self._spaces = {host: f"{PREFIX}{os.getpid()}-{host}" for host in self.hosts}

    def __enter__(self) -> Links:
        if os.geteuid() != 0:
            raise SystemExit("network namespaces need root")
        for command in ("ip", "tc", "unshare"):
            if shutil.which(command) is None:
                raise SystemExit(f"{command} is missing: install iproute2 and util-linux")
        _remove_left_overs()
        try:
            self._create()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C must not stop the removal half way.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._remove()
        finally:
            signal.signal(signal.SIGINT, before)

    def shape(self, mbit: float | None) -> None:
        """Limits every host to `mbit` Mbit/s in each direction; None lifts the limit."""
        for port, space in enumerate(self._spaces.values()):
            for where, device in ((space, DEVICE), (self._hub, f"port{port}")):
                # Nothing to delete is no error: the device may never have had a limit.
                _run("tc", "-n", where, "qdisc", "del", "dev", device, "root", check=False)
                if mbit is not None:
                    limit = ["tbf", "rate", f"{mbit}mbit", "burst", BURST, "latency", QUEUE]
                    _run("tc", "-n", where, "qdisc", "add", "dev", device, "root", *limit)

    def command(self, host: str, command: Sequence[str], core: int | None = None) -> list[str]:
        """Returns a command that runs `command` on a host, on one core if given, in the same process."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host]
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        return ["ip", "netns", "exec", self._spaces[host], *named, *pinned, *command]

    def counters(self) -> dict[str, tuple[int, int]]:
        """Returns the bytes every host has sent and received so far."""
        shown = {
            link["ifname"]: link["stats64"] for link in json.loads(_run("ip", "-n", self._hub, "-s", "-j", "link"))
        }
        # What the bridge receives on a port is what the host behind it has sent.
        ports = [shown[f"port{port}"] for port in range(len(self.hosts))]
        return {host: (s["rx"]["bytes"], s["tx"]["bytes"]) for host, s in zip(self.hosts, ports, strict=True)}

    def goodput(self, source: str, target: str, seconds: float = 2.0) -> float:
        """Sends plain TCP from one host to another for some seconds; returns Mbit/s received."""
        program = [sys.executable, __file__]
        receiver = subprocess.Popen(self.command(target, [*program, "receive"]), stdout=subprocess.PIPE, text=True)
        try:
            subprocess.run(self.command(source, [*program, "send", target, str(seconds)]), check=True)
            output, _ = receiver.communicate(timeout=60)
        finally:
            receiver.kill()
        return float(output)

    def _create(self) -> None:
        for space in (self._hub, *self._spaces.values()):
            _run("ip", "netns", "add", space)
            _run("ip", "-n", space, "link", "set", "lo", "up")
        _run("ip", "-n", self._hub, "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "-n", self._hub, "link", "set", BRIDGE, "up")
        names = "".join(f"{NETWORK}.{number + 1} {host}\n" for number, host in enumerate(self.hosts))
        for number, space in enumerate(self._spaces.values()):
            ends = ["name", f"port{number}", "netns", self._hub, "type", "veth", "peer", "name", DEVICE, "netns", space]
            _run("ip", "link", "add", *ends)
            _run("ip", "-n", self._hub, "link", "set", f"port{number}", "master", BRIDGE, "up")
            _run("ip", "-n", space, "addr", "add", f"{NETWORK}.{number + 1}/24", "dev", DEVICE)
            _run("ip", "-n", space, "link", "set", DEVICE, "up")
            (HOSTS / space).mkdir(parents=True)
            (HOSTS / space / "hosts").write_text(f"127.0.0.1 localhost\n{names}", encoding="utf-8")

    def _remove(self) -> None:
        for space in (*self._spaces.values(), self._hub):
            _remove_space(space)


def _remove_space(space: str) -> None:
    for pid in _run("ip", "netns", "pids", space, check=False).split():
        os.kill(int(pid), signal.SIGKILL)
    _run("ip", "netns", "del", space, check=False)
    shutil.rmtree(HOSTS / space, ignore_errors=True)


def _remove_left_overs() -> None:
    """Removes the namespaces of runs that were killed before they could."""
    for line in _run("ip", "netns", "list").splitlines():
        space = line.split()[0]
        owner = space.removeprefix(PREFIX).split("-")[0]
        if space.startswith(PREFIX) and owner.isdigit() and not Path("/proc", owner).exists():
            _remove_space(space)


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def receive() -> None:
    """Takes one connection and prints the Mbit/s it brought."""
    with socket.create_server(("", PORT)) as server:
        connection, _ = server.accept()
        with connection:
            total, begin = 0, time.perf_counter()
            while part := connection.recv(2**20):
                total += len(part)
    print(8e-6 * total / (time.perf_counter() - begin))


def send(host: str, seconds: float) -> None:
    """Connects to `receive` on a host, waiting for it, and sends for some seconds."""
    patience = time.monotonic() + 20
    while True:
        try:
            connection = socket.create_connection((host, PORT))
            break
        except ConnectionRefusedError:
            if time.monotonic() > patience:
                raise
            time.sleep(0.1)
    with connection:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            connection.sendall(CHUNK)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive()
    else:
        send(sys.argv[2], float(sys.argv[3]))
