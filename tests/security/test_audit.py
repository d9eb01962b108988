"""The command that compares the locks with the advisory database; what it asks needs the network."""

import subprocess

import pytest


def test_the_command_parses_and_reads_the_locks(repository):
    script = repository / "scripts" / "audit.sh"
    subprocess.run(["sh", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    for lock in sorted((repository / "requirements").glob("*.txt")):
        hashed = "--hash=sha256:" in lock.read_text(encoding="utf-8")
        assert (f"requirements/{lock.name}" in text) == hashed, lock.name


@pytest.mark.network
@pytest.mark.slow
def test_no_advisory_applies(repository):
    done = subprocess.run(["sh", repository / "scripts" / "audit.sh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
