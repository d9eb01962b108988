"""Some cases of every target; `python tests/fuzz/run.py` runs as many as wanted, and other engines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_case import Folder, Target, check
from fuzz_targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easytransfer.errors import DataError

CASES = int(os.environ.get("EZ_FUZZ_CASES", "0"))
# Of each of the five forms, without the environment variable.
PICTURES = 50
HERE = [target for target in TARGETS.values() if not target.apart]


@pytest.mark.parametrize("target", HERE, ids=[target.name for target in HERE])
def test_target(target, tmp_path):
    cases = CASES or (15 if target.heavy else 80)

    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def run(value):
        check(target, value, tmp_path)

    run()


def test_pictures_sent_to_a_served_model_in_a_process_of_its_own():
    """Nothing ends the process, and `predict` and the server answer alike."""
    command = [sys.executable, "run.py", "--target", "served_picture", "--cases", str(CASES or 5 * PICTURES)]
    command += ["--mutants", "0"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def fails(error):
    def run(value, folder: Folder):
        if value:
            raise error

    return Target("made", st.just(True), run)


def test_what_counts_as_a_finding(tmp_path):
    check(fails(DataError("wrong")), True, tmp_path)
    with pytest.raises(ValueError):
        check(fails(ValueError("wrong")), True, tmp_path)
    with pytest.raises(AssertionError, match="a message of"):
        check(fails(DataError("x " * 15_000)), True, tmp_path)


def test_files_left_behind_are_a_finding(tmp_path):
    def run(value, folder):
        folder.put("given", b"")
        (folder.path / ".partial").write_text("")

    with pytest.raises(AssertionError, match="partial"):
        check(Target("made", st.none(), run), None, tmp_path)


def test_a_case_that_hangs_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setattr("fuzz_case.SECONDS", 0.2)

    def run(value, folder):
        while True:
            pass

    with pytest.raises(TimeoutError):
        check(Target("made", st.none(), run), None, tmp_path)
