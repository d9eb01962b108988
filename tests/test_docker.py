"""The image as far as it can be checked without a Docker engine: the Dockerfile is parsed, its scripts are run."""

from __future__ import annotations

import os
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """Returns (keyword, arguments) of every instruction, comments and line continuations removed."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0].upper(), line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def dockerfile(request) -> list[tuple[str, str]]:
    return instructions(request.param)


def test_copied_sources_exist_and_are_not_ignored(dockerfile, request):
    stages = [arguments.split()[-1] for keyword, arguments in dockerfile if keyword == "FROM"]
    ignored = next(ROOT.glob("docker/*.dockerignore")).read_text(encoding="utf-8").splitlines()
    for words in (shlex.split(arguments) for keyword, arguments in dockerfile if keyword == "COPY"):
        if words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, f"{source} is not let through by the .dockerignore file"


def test_runs_as_a_plain_user(dockerfile):
    last_stage = dockerfile[max(i for i, (keyword, _) in enumerate(dockerfile) if keyword == "FROM") :]
    users = [arguments for keyword, arguments in last_stage if keyword == "USER"]
    assert users[-1] == "10001:10001"
    after = [keyword for keyword, _ in last_stage[last_stage.index(("USER", users[-1])) :]]
    assert "COPY" not in after and "RUN" not in after


def test_pins(dockerfile):
    text = "\n".join(f"{keyword} {arguments}" for keyword, arguments in dockerfile)
    assert ":latest" not in text
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert installs
    for line in installs:
        assert "--no-deps" in line
        assert ("--require-hashes" in line and "requirements/run.txt" in line) or line.endswith(
            "--no-build-isolation ."
        )
    # The lock file is made for the Python that the image has.
    assert "--python-version 3.11" in (ROOT / "scripts" / "lock.sh").read_text(encoding="utf-8")
    assert "python3.11" in text


def test_no_secret_is_built_in(dockerfile):
    names = [a.split("=")[0].lower() for keyword, a in dockerfile if keyword in ("ARG", "ENV")]
    assert not [name for name in names if any(word in name for word in ("token", "password", "secret", "key"))]


def test_entry_point_is_in_exec_form(dockerfile):
    (entry,) = [arguments for keyword, arguments in dockerfile if keyword == "ENTRYPOINT"]
    assert entry.startswith('["tini"')


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "easy_transfer_app --help"),
        (["train", "--config", "a b.yaml"], "easy_transfer_app train --config a b.yaml"),
        (["--mode=predict"], "easy_transfer_app --mode=predict"),
        (["easy_transfer_app", "apps"], "easy_transfer_app apps"),
        (["serve-check", "model"], "python -m easytransfer.export.validate model"),
        (["echo", "hello"], "hello"),
    ],
)
def test_entry_point(tmp_path: Path, arguments, expected):
    for name in ("easy_transfer_app", "python"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", ROOT / "docker" / "entrypoint.sh", *arguments],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected


def test_health(tmp_path: Path):
    problem = runpy.run_path(str(ROOT / "docker" / "health.py"))["problem"]
    assert problem(tmp_path, 10) is None
    log = tmp_path / "runs" / "one" / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    log.touch()
    assert problem(tmp_path, 10) is None
    os.utime(log, (0, 0))
    assert "s old" in problem(tmp_path, 10)
    (log.parent / "DONE").touch()
    assert problem(tmp_path, 10) is None


def test_shell_scripts_parse():
    for script in [*ROOT.glob("docker/*.sh"), *ROOT.glob("scripts/*.sh"), ROOT / ".ci" / "run"]:
        subprocess.run(["sh", "-n", script], check=True)
