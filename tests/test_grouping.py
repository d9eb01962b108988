"""Tests with a costly fixture in common run in one process, else all take half as long again; long ones run first."""

import json
import os
from types import SimpleNamespace

import pytest
from group_order import DURATIONS, REPOSITORY, Recorder, group_of, ordered


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_pytest_xdist_sees_the_groups_of_conftest(request):
    assert request.node.nodeid.endswith("@tests/test_grouping.py")


def test_this_test_belongs_to_its_file_and_a_smoke_run_to_itself(request):
    assert group_of(request.node) == "tests/test_grouping.py"
    none = {"get_closest_marker": lambda name: None}
    smoke = SimpleNamespace(callspec=SimpleNamespace(params={"smoke": ("text_match", "bert")}), **none)
    assert group_of(smoke) == "text_match-bert"
    stated = SimpleNamespace(get_closest_marker=lambda name: SimpleNamespace(args=("programs",)))
    assert group_of(stated) == "programs"


def test_groups_that_take_long_or_are_unknown_come_first():
    none = {"get_closest_marker": lambda name: None}
    items = [SimpleNamespace(path=REPOSITORY / name, n=n, **none) for n, name in enumerate("abcab")]
    assert [item.n for item in ordered(items, {"a": 1.0, "b": 9.5})] == [2, 1, 4, 0, 3]


def test_durations_are_added_by_group_and_written_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("group_order.DURATIONS", tmp_path / "durations.json")
    recorder = Recorder()
    for name, seconds in (("a.py::x[1@2]@a.py", 1.0), ("b.py::y@b.py", 2.5), ("a.py::z@a.py", 2.0)):
        recorder.pytest_runtest_logreport(SimpleNamespace(nodeid=name, duration=seconds))
    recorder.pytest_sessionfinish(pytest.ExitCode.INTERRUPTED)
    assert not (tmp_path / "durations.json").exists()
    recorder.pytest_sessionfinish(pytest.ExitCode.OK)
    assert list(json.loads((tmp_path / "durations.json").read_text()).items()) == [("a.py", 3.0), ("b.py", 2.5)]


def test_the_recorded_durations_are_seconds_of_groups_longest_first():
    seconds = list(json.loads(DURATIONS.read_text(encoding="utf-8")).values())
    assert seconds == sorted(seconds, reverse=True) and all(value >= 0 for value in seconds)
