"""The site of the documentation, the notebook of the quick start, and what contributors are told to type."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import yaml

from appzoo.cli.reader import JobReader

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "quick_start.ipynb"


class _Fetched(HTMLParser):
    """Collects what a browser fetches by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        fetches = tag in ("script", "img", "iframe") or (tag == "link" and values.get("rel") != "canonical")
        if fetches and (value := values.get("src") or values.get("href")):
            self.found.append(value)


def navigated(nav: list) -> list[str]:
    """Returns the pages that a navigation of mkdocs names."""
    found = []
    for entry in nav:
        for value in entry.values():
            found += navigated(value) if isinstance(value, list) else [value]
    return found


def test_the_navigation_has_every_text():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = navigated(config["nav"])
    assert len(pages) == len(set(pages))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(pages) == written | {"index.md", "changelog.md", "contributing.md", "security.md"}
    modules = [
        name
        for path in (ROOT / "docs" / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)", path.read_text(), re.M)
    ]
    places = [ROOT.joinpath(*name.split(".")) for name in modules]
    assert (
        len(modules) > 25
        and [
            place
            for place in places
            if not (place.with_suffix(".py").is_file() or place.parent.with_suffix(".py").is_file())
        ]
        == []
    )


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    # No proxy answers there: what wanted to fetch something would fail.
    environment |= dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-4000:]
    pages = {path.relative_to(tmp_path / "site").as_posix(): path for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "api/applications.html", "appzoo/text_classify.html", "modelzoo/bert.html"} <= pages.keys()
    assert (tmp_path / "site" / "search" / "search_index.json").is_file()
    for name, path in pages.items():
        parser = _Fetched()
        parser.feed(path.read_text(encoding="utf-8"))
        assert parser.found and [url for url in parser.found if re.match(r"(https?:)?//", url)] == [], name
    contract = pages["api/applications.html"].read_text(encoding="utf-8")
    assert (
        'id="easytransfer.app.contract.App.build_inputs"' in contract and "Returns what the network reads." in contract
    )
    assert 'href="docs/' not in pages["index.html"].read_text(encoding="utf-8")


def cells() -> list[str]:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebook_has_no_outputs_and_flags_that_exist():
    trees = [ast.parse(source) for source in cells()]
    (call,) = [
        node for tree in trees for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "easytransfer.train"
    ]  # fmt: skip
    flags = [f"--{word.arg}={ast.literal_eval(word.value)}" for word in call.keywords]
    assert JobReader("train", flags, []).read().config.model_name == "text_classify_bert"


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute()
    shown = [
        output["data"]["text/plain"] for cell in notebook.cells if cell.cell_type == "code"
        for output in cell.outputs if output.output_type == "execute_result"
    ]  # fmt: skip
    metrics, answers, measured, again = map(ast.literal_eval, shown)
    assert metrics["accuracy"] > 0.5 and measured["accuracy"] > 0.5
    assert [len(row[1]) for row in answers] == [2, 2] and again in answers[0][1]


def test_the_commands_before_a_commit_are_those_of_the_hooks():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"], "nothing is fetched"
    entries = [hook["entry"] for hook in hooks[0]["hooks"]]
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = re.search(r"^```bash fast\n(.*?)^```", page, re.M | re.S)[1].splitlines()
    assert [entry.replace("--force-exclude", ".") for entry in entries] == told
    for entry in entries:
        command = [sys.executable, *entry.split()[1:], "appzoo/cli/new_app.py", "tests/test_docs_site.py"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    for command in re.findall(r"sh (scripts/\w+\.sh)", page):
        assert (ROOT / command).is_file()
