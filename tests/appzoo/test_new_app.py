"""`new-app`: every combination is clean code that learns its sample, outside of the checkout and inside."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from training import without_export

from appzoo import discovery
from appzoo.cli.app_parts import INPUTS, TARGETS
from appzoo.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "new_application.md"
COMBINATIONS = [(source, target) for source in INPUTS for target in TARGETS]


def write(folder: Path, name: str, source: str = "sequence", target: str = "vector") -> Path:
    """Writes an application and returns the folder of its project."""
    assert main(["new-app", name, f"--input={source}", f"--target={target}", f"--folder={folder}"]) == 0
    return folder / name


def info(folder: Path, names: list[str]) -> None:
    """Registers packages that lie in a folder, as an installation would."""
    place = folder / "written-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: written\nVersion: 1.0\n")
    lines = [f"{name} = {name}" for name in names]
    (place / "entry_points.txt").write_text("\n".join(["[easytransfer.apps]", *lines]) + "\n")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The projects of all combinations, named `<input>_to_<target>`."""
    folder = tmp_path_factory.mktemp("written")
    for source, target in COMBINATIONS:
        write(folder, f"{source}_to_{target}", source, target)
    return folder


def ruff(folder: Path, *words: str) -> str:
    """Returns what ruff finds by the rules of this project."""
    command = [sys.executable, "-m", "ruff", *words, "--config", str(ROOT / "pyproject.toml"), str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_combination_is_clean(written, tmp_path):
    third = 'lint.isort.known-third-party=["easytransfer"]'
    tests = 'lint.per-file-ignores={"**/test_*.py"=["D"]}'
    assert ruff(written, "check", "--config", third, "--config", tests) == ""
    assert ruff(written, "format", "--check") == ""
    (tmp_path / "appzoo").mkdir()
    (tmp_path / "appzoo" / "discovery.py").touch()
    for source, target in COMBINATIONS:
        write(tmp_path, f"{source}_to_{target}", source, target)
    first = 'lint.isort.known-first-party=["appzoo", "easytransfer"]'
    (tmp_path / "appzoo" / "discovery.py").unlink()
    assert ruff(tmp_path, "check", "--config", first, "--config", tests) == ""
    assert ruff(tmp_path, "format", "--check") == ""


def test_the_sample_is_drawn_by_a_seed_and_has_what_the_readme_says(written, tmp_path):
    for source, target in COMBINATIONS:
        project = written / f"{source}_to_{target}"
        counts = [len((project / "sample" / f"{part}.jsonl").read_text().splitlines()) for part in ("train", "dev")]
        assert counts == [96, 32]
        assert "holds 96 rows for training and 32" in (project / "README.md").read_text()
    again = write(tmp_path, "image_to_class", "image", "class")
    for path in again.rglob("*.*"):
        assert path.read_bytes() == (written / "image_to_class" / path.relative_to(again)).read_bytes(), path


def test_configurations_are_read_without_tensorflow(written):
    code = (
        "import sys; from appzoo.cli.main import main; name = sys.argv[1]; "
        "code = main(['config', '--check', f'{name}/configs/smoke.yaml']) + main(['config', name, '--schema']); "
        "sys.exit(99 if 'tensorflow' in sys.modules else code)"
    )
    project = written / "image_to_vector"
    info(project, ["image_to_vector"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(project)])}
    command = [sys.executable, "-c", code, "image_to_vector"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and '"valid": true' in done.stdout, done.stderr


def test_an_application_that_is_no_classifier_learns(tmp_path, monkeypatch, capsys):
    project = write(tmp_path, "forecast_of_two")
    info(project, ["forecast_of_two"])
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.chdir(project)
    discovery._entry_points.cache_clear()
    try:
        with without_export():
            assert main(["train", "--config", "forecast_of_two/configs/smoke.yaml"]) == 0
        run = "--checkpointPath=runs/forecast_of_two_smoke"
        capsys.readouterr()
        assert main(["evaluate", run, "--inputTable=sample/dev.jsonl"]) == 0
        measured = json.loads(capsys.readouterr().out)["metrics"]["mae"]
        assert main(["predict", run, "--inputTable=sample/dev.jsonl", "--outputTable=out.jsonl"]) == 0
        rows, answers = ([json.loads(line) for line in open(name)] for name in ("sample/dev.jsonl", "out.jsonl"))
        wanted, found = ([row[name] for row in part] for part, name in ((rows, "answer"), (answers, "predictions")))
        assert measured == pytest.approx(np.abs(np.array(found) - wanted).mean(), abs=1e-5) and measured < 0.25
        (project / "bad.jsonl").write_text('{"frames": [1, 2, 3], "answer": [1, 2, 3]}\n')
        capsys.readouterr()
        assert main(["evaluate", run, "--inputTable=bad.jsonl"]) == 3
        assert "bad.jsonl:1" in (err := capsys.readouterr().err) and "not 2 finite numbers" in err
    finally:
        discovery._entry_points.cache_clear()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["Gestures"], "got 'Gestures'; accepted: lower-case words"),
        (["class"], "got 'class'"),
        (["two words"], "got 'two words'"),
        (["x" * 41], "40 characters at most"),
        (["text_classify"], "an application of this name exists"),
        (["json"], "a module of this name is installed"),
        (["gestures", "--target=clas"], "invalid choice: 'clas'"),
        (["there"], "there exists"),
    ],
)
def test_what_cannot_be_written_is_told_in_a_line(words, part, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    arguments = ["new-app", *words, "--input=text", f"--folder={tmp_path}"]
    assert main(arguments if "--target" in str(words) else [*arguments, "--target=class"]) == 2
    err = capsys.readouterr().err.strip()
    assert part in err and len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["new-app", "gestures", "--input=text", "--target=class", f"--folder={tmp_path}/file"]) == 5
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: cannot write ")


def test_the_page_shows_what_is_written(tmp_path):
    project = write(tmp_path, "forecast")
    files = [path.read_text() for path in project.rglob("*.*") if path.suffix in (".py", ".toml")]
    page = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"^```(?:python|toml)\n(.*?)^```", page, re.M | re.S)
    assert len(shown) >= 7 and [block for block in shown if not any(block in text for text in files)] == []
    named = {name for row in re.findall(r"^\| (`.*?`) \|", page, re.M) for name in re.findall(r"`([^`]+)`", row)}
    there = {str(path.relative_to(project)) for path in project.rglob("*.*") if path.is_file()}
    assert named == there - {"forecast/__init__.py"}
    for kinds in (INPUTS, TARGETS):
        *most, last = (f"`{kind}`" for kind in kinds)
        assert f"{', '.join(most)} or {last}" in page
    for path in (project / "forecast").glob("*.py"):
        ast.parse(path.read_text())
    assert yaml.safe_load((project / "forecast" / "configs" / "smoke.yaml").read_text())["model_name"] == "forecast"


# Installed, as a user would --------------------------------------------------------------------------------------


def commands_of(page: Path) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def run_as_user(script: str, folder: Path, site: Path) -> None:
    """Runs documented commands; what they install goes into `site`, not into the environment of the tests."""
    programs = folder / "programs"
    programs.mkdir()
    python = f"#!/bin/sh\nexec {sys.executable} "
    (programs / "python").write_text(python + '"$@"\n')
    call = "from appzoo.cli.main import main; raise SystemExit(main())"
    (programs / "easy_transfer_app").write_text(f'{python}-c "{call}" "$@"\n')
    (programs / "pip").write_text(f'{python}-m pip "$@"\n')
    for path in programs.iterdir():
        path.chmod(0o755)
    assert "pip install --no-deps --no-build-isolation -e ." in script
    script = script.replace("-e .", f"--quiet --target={site} .")
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
    }
    done = subprocess.run(["sh", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize(("source", "target"), COMBINATIONS)
def test_the_commands_and_the_test_of_every_combination(source, target, tmp_path):
    project = write(tmp_path, f"{source}_gives_{target}", source, target)
    run_as_user("\n".join(commands_of(project / "README.md")), project, tmp_path / "site")
    assert len((project / "predictions.jsonl").read_text().splitlines()) == 32


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path):
    run_as_user("\n".join(commands_of(PAGE)), tmp_path, tmp_path / "site")
    assert len((tmp_path / "forecast" / "predictions.jsonl").read_text().splitlines()) == 32


@pytest.mark.slow
def test_inside_of_a_checkout_it_passes_its_test_and_the_contract(tmp_path):
    """In a copy: the test it brings, and the contract of all applications, which finds it by itself."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".git", ".venv", "build", "runs", "__pycache__"))
    assert main(["new-app", "gestures", "--input=sequence", "--target=class", f"--folder={checkout}"]) == 0
    words = ["-p", "no:cacheprovider", "-m", "slow or not slow", "-k", "gestures"]
    files = ["tests/appzoo/test_gestures.py", "tests/appzoo/test_contract.py"]
    command = [sys.executable, "-m", "pytest", *words, *files]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 10
