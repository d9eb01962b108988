"""The launcher with workers that are small programs: who is started where, what ends them, when they start again."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from easytransfer.distributed import launch as module
from easytransfer.distributed.launch import Elastic, Hosts, launch
from easytransfer.errors import ConfigError, ResourceError

# Writes a file named after generation, rank and size, waits for the others' files (a job that loses one worker ends
# the rest, which may not have begun); then does what the argument says.
WORKER = """
import os, signal, sys, time
from pathlib import Path
again, rank, size = (os.environ.get(n) for n in ("EASYTRANSFER_RESTARTS", "HOROVOD_RANK", "HOROVOD_SIZE"))
Path(sys.argv[1], f"{again}-{rank}-{size}").write_text(os.environ["HOROVOD_HOSTNAME"])
while not all(Path(sys.argv[1], f"{again}-{other}-{size}").exists() for other in range(int(size))):
    time.sleep(0.01)
exec(sys.argv[2])
"""
KILL_SELF = "os.kill(os.getpid(), signal.SIGKILL)"
SAVE_AND_LEAVE = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(6))"


def run(folder: Path, action: str, hosts: Hosts, elastic: Elastic | None = None) -> int:
    folder.mkdir(exist_ok=True)
    return launch([sys.executable, "-c", WORKER, str(folder), action], hosts, elastic=elastic)


def started(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_one_process_per_slot(tmp_path):
    assert run(tmp_path / "a", "pass", Hosts("localhost:3")) == 0
    assert started(tmp_path / "a") == ["None-0-3", "None-1-3", "None-2-3"]


def test_a_failing_worker_ends_the_job_with_its_code(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GRACE_S", 0.5)
    begin = time.monotonic()
    assert run(tmp_path / "a", "sys.exit(3) if rank == '1' else time.sleep(60)", Hosts("localhost:2")) == 3
    assert run(tmp_path / "b", f"{KILL_SELF} if rank == '1' else time.sleep(60)", Hosts("localhost:2")) == 137
    assert time.monotonic() - begin < 20


def test_an_elastic_job_starts_again_after_a_kill(tmp_path, caplog):
    action = f"{KILL_SELF} if rank == '1' and again == '0' else time.sleep(60 if again == '0' else 0)"
    assert run(tmp_path / "a", action, Hosts("localhost:2"), Elastic(1, 2, lambda: None)) == 0
    assert started(tmp_path / "a") == ["0-0-2", "0-1-2", "1-0-2", "1-1-2"]


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
def test_an_elastic_job_ends_with_a_worker_that_fails_by_itself(tmp_path, monkeypatch, code):
    monkeypatch.setattr(module, "GRACE_S", 0.2)
    action = f"sys.exit({code}) if rank == '1' else time.sleep(60)"
    assert run(tmp_path / "a", action, Hosts("localhost:2"), Elastic(1, 2, lambda: None)) == code
    assert started(tmp_path / "a") == ["0-0-2", "0-1-2"]


def test_losses_without_progress_end_the_job(tmp_path):
    with pytest.raises(ResourceError, match="without a new checkpoint"):
        run(tmp_path / "a", KILL_SELF, Hosts("localhost:1"), Elastic(1, 1, lambda: None))
    assert len(started(tmp_path / "a")) == module.PATIENCE


def test_losses_with_progress_do_not(tmp_path):
    folder = tmp_path / "a"
    action = f"{KILL_SELF} if int(again) < 6 else None"
    assert run(folder, action, Hosts("localhost:1"), Elastic(1, 1, lambda: len(list(folder.iterdir())))) == 0
    assert len(started(folder)) == 7


def test_goes_on_with_the_hosts_that_are_left_and_those_that_come(tmp_path, monkeypatch):
    """One worker is killed with its host: the other goes on alone; then two more places come."""
    monkeypatch.setattr(module, "LOOK_S", 0.2)
    folder, places = tmp_path / "a", tmp_path / "hosts"
    places.write_text("localhost:1\n127.0.0.2:1\n")
    remote = script(tmp_path / "remote", 'shift; exec sh -c "$1"')
    hosts = Hosts("", script(tmp_path / "look", f"cat {places}"), remote)
    lose = f"Path({str(places)!r}).write_text('localhost:1'); {KILL_SELF}"
    grow = f"Path({str(places)!r}).write_text('localhost:3')"
    action = (
        f"exec({lose!r}) if again == '0' and rank == '1' else None\n"
        f"exec({SAVE_AND_LEAVE!r} + chr(10) + {grow!r}) if again == '1' else None\n"
        "time.sleep(0 if again == '2' else 60)"
    )
    assert run(folder, action, hosts, Elastic(1, 3, lambda: None)) == 0
    assert started(folder) == ["0-0-2", "0-1-2", "1-0-1", "2-0-3", "2-1-3", "2-2-3"]
    assert (folder / "0-1-2").read_text() == "127.0.0.2"


def test_waits_for_enough_hosts(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK_S", 0.1)
    places = tmp_path / "hosts"
    places.write_text("localhost")
    threading.Timer(1.0, lambda: places.write_text("localhost:2")).start()
    begin = time.monotonic()
    look = script(tmp_path / "look", f"cat {places}")
    assert run(tmp_path / "a", "pass", Hosts("", look), Elastic(2, 4, lambda: None)) == 0
    assert started(tmp_path / "a") == ["0-0-2", "0-1-2"] and time.monotonic() - begin > 0.9


def test_a_signal_is_passed_on_and_is_no_loss(tmp_path):
    threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    action = f"exec({SAVE_AND_LEAVE!r}); time.sleep(60)"
    assert run(tmp_path / "a", action, Hosts("localhost:2"), Elastic(1, 2, lambda: None)) == 6
    assert started(tmp_path / "a") == ["0-0-2", "0-1-2"]


@pytest.mark.parametrize("text", ["exit 1", "echo host:many"])
def test_a_script_that_fails_is_named(tmp_path, text):
    with pytest.raises(ConfigError, match="hosts|host"):
        run(tmp_path / "a", "pass", Hosts("", script(tmp_path / "look", text)))


def test_hosts_must_have_a_place_for_every_worker(repository, monkeypatch, capfd):
    from appzoo.cli.main import main

    monkeypatch.chdir(repository)
    words = ["train", "--config=examples/text_classify/config.yaml", "--workerCount=3"]
    assert main([*words, "--set=distribution.hosts=localhost:2", "--set=checkpoint_dir=none"]) == 2
    assert "the hosts have 2 slots; got '--workerCount=3'" in capfd.readouterr().err
    assert main([*words, "--set=distribution.min_workers=4"]) == 2
    assert "accepted: up to 3" in capfd.readouterr().err
    for split in ("tensor_parallel", "pipeline_stages"):
        assert main([*words, "--set=distribution.min_workers=1", f"--set=distribution.{split}=3"]) == 2
        assert "an elastic job cannot split the model" in capfd.readouterr().err
