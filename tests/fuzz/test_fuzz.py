"""A few cases of every target, more with `-m slow`; `python tests/fuzz/run.py` runs as many as wanted."""

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
# Without the environment variable: cases of a target, of one that needs TensorFlow, and of each of five forms.
FEW, MANY = {"plain": 20, "heavy": 4, "pictures": 10}, {"plain": 80, "heavy": 15, "pictures": 50}
AMOUNTS = [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]
HERE = [target for target in TARGETS.values() if not target.apart]


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("target", HERE, ids=[target.name for target in HERE])
def test_target(target, amount, tmp_path):
    cases = CASES or amount["heavy" if target.heavy else "plain"]

    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def run(value):
        check(target, value, tmp_path)

    run()


@pytest.mark.parametrize("amount", AMOUNTS)
def test_pictures_sent_to_a_served_model_in_a_process_of_its_own(amount):
    """Nothing ends the process, and `predict` and the server answer alike."""
    command = [sys.executable, "run.py", "--target", "served_picture", "--cases", str(CASES or 5 * amount["pictures"])]
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
