"""The command that compares the locks with the advisory database; what it asks needs the network."""

import os
import socket
import subprocess

import pytest


@pytest.fixture
def closed_port():
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_the_command_parses_and_reads_the_locks(repository):
    script = repository / "scripts" / "audit.sh"
    subprocess.run(["sh", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    for lock in sorted((repository / "requirements").glob("*.txt")):
        hashed = "--hash=sha256:" in lock.read_text(encoding="utf-8")
        assert (f"requirements/{lock.name}" in text) == hashed, lock.name


def test_a_database_that_cannot_be_reached_is_no_clean_result(repository, closed_port):
    proxy = f"http://127.0.0.1:{closed_port}"
    script = repository / "scripts" / "audit.sh"
    done = subprocess.run(["sh", script], env=os.environ | {"https_proxy": proxy}, capture_output=True, text=True)
    assert done.returncode == 3
    assert "nothing was compared" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.network
@pytest.mark.slow
def test_no_advisory_applies(repository):
    done = subprocess.run(["sh", repository / "scripts" / "audit.sh"], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
