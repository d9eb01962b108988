"""Which tests run in one process, and in which order: what takes long begins early, so that both end together.

`durations.json` has the seconds of every group on two cores. `sh scripts/test.sh --record-durations` writes it anew
after a run of all tests; a group that it does not have yet begins first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
DURATIONS = Path(__file__).with_name("durations.json")


def group_of(item: pytest.Item) -> str:
    """Returns the name shared by tests with a costly fixture in common: the one they state, a smoke run, their file."""
    if stated := item.get_closest_marker("xdist_group"):
        return stated.args[0]
    smoke = getattr(item, "callspec", None) and item.callspec.params.get("smoke")
    return "-".join(smoke) if smoke else item.path.relative_to(REPOSITORY).as_posix()


def ordered(items: Iterable[pytest.Item], seconds: dict[str, float]) -> list[pytest.Item]:
    """Returns the tests, those of longer groups first, those of a group in the order they had."""
    return sorted(items, key=lambda item: -seconds.get(group_of(item), float("inf")))


class Recorder:
    """Adds up the seconds of the groups as pytest-xdist reports them: names of tests end in `@<group>`."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        self.seconds[report.nodeid.rpartition("@")[2]] += report.duration

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Writes the file, unless the run was broken off."""
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            content = {group: round(seconds, 1) for group, seconds in self.seconds.most_common()}
            DURATIONS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
