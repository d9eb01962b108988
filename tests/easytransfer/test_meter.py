"""The progress line of downloads."""

import pytest

from easytransfer.presets import meter as module
from easytransfer.presets.meter import Meter

MB = 10**6


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])  # of progress.py as well: it is one module
    return now


def show(clock, steps, capfd, begin=100.0):
    with Meter("tiny") as meter:
        for seconds, done, total in steps:
            clock[0] = begin + seconds
            meter.update(done, total)
    return capfd.readouterr().err.splitlines()


def test_megabytes_pace_and_time_left(clock, capfd):
    """60 MB of which 20 were here; 2 MB a second: 30 MB are left at 30 MB, for 15 seconds."""
    lines = show(
        clock, [(0, 20 * MB, 60 * MB), (1, 22 * MB, 60 * MB), (5, 30 * MB, 60 * MB), (20, 60 * MB, 60 * MB)], capfd
    )
    assert lines == [
        "fetch tiny, MB 20/60  33%",
        "fetch tiny, MB 30/60  50%  2.0 MB/s  ETA 0:00:15",
        "fetch tiny, MB 60/60 100%  2.0 MB/s  ETA 0:00:00",
    ]


def test_a_length_that_is_not_known_and_a_file_that_is_small(clock, capfd):
    assert show(clock, [(0, 0, None), (6, 12 * MB, None)], capfd) == ["fetch tiny, MB 0", "fetch tiny, MB 12  2.0 MB/s"]
    assert show(clock, [(0, 0, MB - 1), (6, MB - 1, MB - 1)], capfd) == []


def test_the_last_piece_of_a_megabyte_counts_as_one(clock, capfd):
    lines = show(clock, [(0, 0, MB + 1), (0.1, MB + 1, MB + 1)], capfd)
    assert lines[-1].startswith("fetch tiny, MB 2/2 100%")
