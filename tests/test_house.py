"""What `benchmarks/house.py` measures, on a small checkout whose numbers are counted by hand."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

CONTRACT = '''"""The contract."""


class Task:
    """Training."""

    def losses(self):
        """Has a default, and is overridden below."""
        return {}


class App(Task):
    """An application."""

    # Why it is a list.
    no_decay = ()  # and more

    @abc.abstractmethod
    def build(self):
        """Has none."""

    def losses(self):
        return 1

    def _hidden(self):
        from easytransfer.app import late

        return late
'''


@pytest.fixture
def house(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield __import__("house")
    del sys.modules["house"]


@pytest.fixture
def checkout(tmp_path):
    files = {
        "easytransfer/__init__.py": "",
        "easytransfer/app/__init__.py": "",
        "easytransfer/app/contract.py": CONTRACT,
        "easytransfer/app/late.py": "from .contract import App  # noqa: F401\n",
        "appzoo/text_comprehension/app.py": "x = 1\n" * 9,
        "tests/fixtures/toy_apps/maps.py": "import os\nfrom easytransfer.a import B, C\nfrom modelzoo import d\n"
        + "x = 1\n" * 4,
        "tests/fixtures/toy_apps/frames.py": "x = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_measures(house, checkout):
    found = house.measure(checkout)
    assert (found["files"], found["functions"], found["median file"]) == (5, 4, 1)
    assert found["lines"] == len(CONTRACT.splitlines()) + 10
    assert found["longest file"] == f"{len(CONTRACT.splitlines())} (easytransfer.app.contract)"
    # Lines of `_hidden` with the empty one.
    assert found["longest function"] == "4 (easytransfer.app.contract._hidden)"
    # The import inside a function closes the circle, the relative one is resolved.
    assert (found["circles of modules"], found["circles of folders"]) == (1, 0)
    # no_decay, build and losses, which counts once; `_hidden` is private.
    assert (found["contract: members"], found["contract: of these with a default"]) == (3, 2)
    assert found["smallest complete non-classifier, lines"] == "7 (maps)"
    assert found["names of core and zoo that it imports"] == 3
    # Two comments, `noqa` is none; code: 12 lines of the contract (3 of Task), 1 of late.py, 9 of the application.
    assert found["comment share"] == f"{2 / 22:.3f}"


def test_circles_are_strongly_connected_components(house):
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"g"}, "g": {"f"}}
    assert house.circles(edges) == [["a", "b", "c"], ["f", "g"]]


def test_several_checkouts_are_side_by_side(house, checkout, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["house.py", str(checkout), str(checkout)])
    house.main()
    assert "| files | 5 | 5 |" in capsys.readouterr().out
