"""Workers on two "hosts" of this machine behind a real ssh server, with the configuration files of the image."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from easytransfer.distributed.launch import Hosts, launch

HOSTS = ("127.0.0.1", "127.0.0.2")
SECONDS = 20
# Where the image has the keys and what ssh learns; see docker/sshd_config and docker/ssh_config.
KEYS, KNOWN = "/home/app/.ssh", "/tmp/known_hosts"
# Says who it is on both streams, then does what the argument says.
WORKER = """
import os, sys, time
rank = os.environ["HOROVOD_RANK"]
print("result of", rank, os.environ["HOROVOD_HOSTNAME"], os.environ["SAID"], os.getcwd(), os.environ["SSH_CONNECTION"])
print("message of", rank, file=sys.stderr, flush=True)
exec(sys.argv[1])
"""


@pytest.fixture(scope="module")
def remote_shell(tmp_path_factory, repository) -> Iterator[str]:
    """The command line of ssh to a server that listens at both addresses, with a key made for it."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if sshd is None or shutil.which("ssh-keygen") is None:
        pytest.skip("sshd and ssh-keygen are not installed: sh scripts/debian.sh")
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("sshd_config", "ssh_config"):
        text = (repository / "docker" / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace(KEYS, str(folder)).replace(KNOWN, str(folder / "known_hosts")))
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", folder / "id_rsa"], check=True)
    shutil.copy(folder / "id_rsa.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's start script makes it; only root needs it
    port = free_port()
    listen = [f"-oListenAddress={host}:{port}" for host in HOSTS]
    log = (folder / "log").open("w+")
    server = subprocess.Popen([sshd, "-De", "-f", folder / "sshd_config", *listen], stderr=log)
    deadline = time.monotonic() + SECONDS
    while not all(answers(host, port) for host in HOSTS):
        assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.05)
    yield f"ssh -o BatchMode=yes -F {shlex.quote(str(folder / 'ssh_config'))} -p {port}"
    server.terminate()
    server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        try:
            probe.bind((HOSTS[1], 0))
        except OSError:
            pytest.skip(f"{HOSTS[1]} is no address of this machine")
        return probe.getsockname()[1]


def answers(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def run(remote_shell: str, action: str) -> int:
    hosts = Hosts(",".join(HOSTS), remote_shell=remote_shell, interface="lo")
    return launch([sys.executable, "-c", WORKER, action], hosts, {"SAID": 'it\'s "quoted" $HOME'})


def test_workers_speak_with_the_voices_they_have_here(remote_shell, capfd):
    assert run(remote_shell, "pass") == 0
    out, err = capfd.readouterr()
    start = f'result of 0 {HOSTS[0]} it\'s "quoted" $HOME {os.getcwd()} 127.0.0.1 '
    assert out.startswith(start) and out.count("\n") == 1 and "\r" not in out
    assert sorted(err.splitlines()) == ["[1] message of 1", "message of 0"]


def test_the_first_failure_is_the_exit_code(remote_shell, monkeypatch):
    from easytransfer.distributed import launch as module

    monkeypatch.setattr(module, "GRACE_S", 0.5)
    begin = time.monotonic()
    assert run(remote_shell, "sys.exit(3) if rank == '1' else time.sleep(60)") == 3
    assert time.monotonic() - begin < SECONDS


def test_workers_end_with_their_connection(remote_shell, tmp_path):
    """A launcher that is killed cannot end anybody: the workers notice by themselves."""
    action = f"open({str(tmp_path)!r} + '/' + rank, 'w').write(str(os.getpid())); time.sleep(60)"
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_ssh; "
    program += f"test_ssh.run({remote_shell!r}, {action!r})"
    launcher = subprocess.Popen([sys.executable, "-c", program])
    wait_for(lambda: len(list(tmp_path.glob("[01]"))) == 2)
    time.sleep(0.2)  # the files are written, not only made
    workers = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert all(map(runs, workers))
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    wait_for(lambda: not any(map(runs, workers)))


def wait_for(condition) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.slow
def test_a_training_over_ssh_equals_one_here(remote_shell, tiny_model, repository, tmp_path, monkeypatch, capfd):
    from appzoo.cli.main import main

    monkeypatch.chdir(repository)
    words = ["train", "--config=appzoo/text_classify/configs/smoke.yaml", "--workerCount=2", "--numEpochs=0.3"]
    words += [f"--set=model.pretrain_model_name_or_path={tiny_model}", "--set=distribution.network_interface=lo"]
    there = [f"--set=distribution.hosts={','.join(HOSTS)}", f"--set=distribution.remote_shell={remote_shell}"]
    results = []
    for name, options in (("ssh", there), ("here", [])):
        assert main([*words, *options, f"--set=checkpoint_dir={tmp_path / name}"]) == 0
        results.append(json.loads(capfd.readouterr().out))
        evaluation = json.loads((tmp_path / name / "evaluation.json").read_text())
        results[-1] = {key: evaluation["best"][key] for key in ("step", "loss", "accuracy")}
    assert results[0] == pytest.approx(results[1], rel=1e-5)
