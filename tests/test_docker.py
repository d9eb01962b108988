"""The image as far as it can be checked without a Docker engine: the Dockerfile is parsed, its scripts are run."""

from __future__ import annotations

import os
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

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


def test_images_run_as_a_plain_user(dockerfile):
    """The last instruction of every stage that no other one goes on from."""
    starts = [i for i, (keyword, _) in enumerate(dockerfile) if keyword == "FROM"]
    stages = [dockerfile[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    sources = {stage[0][1].split()[0] for stage in stages}
    copied = {
        word.removeprefix("--from=") for _, arguments in dockerfile for word in arguments.split() if "--from=" in word
    }
    images = [stage for stage in stages if stage[0][1].split()[-1] not in sources | copied]
    assert [stage[0][1].split()[-1] for stage in images] == ["ssh", "runtime"]
    assert all(stage[-1] == ("USER", "10001:10001") for stage in images)


def test_pods_of_the_mpijob_find_their_keys_where_the_secret_is_mounted():
    job = yaml.safe_load((ROOT / "deploy" / "k8s" / "mpijob.yaml").read_text(encoding="utf-8"))
    folder = job["spec"]["sshAuthMountPath"]
    for name, keys in (("sshd_config", ("HostKey", "AuthorizedKeysFile")), ("ssh_config", ("IdentityFile",))):
        lines = (ROOT / "docker" / name).read_text(encoding="utf-8").splitlines()
        words = dict(line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#"))
        assert all(words[key].startswith(f"{folder}/") for key in keys)
    command = job["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["command"]
    assert f"COPY docker/sshd_config {command[-1]}" in DOCKERFILES[0].read_text(encoding="utf-8")


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
        (["serve-check", "model"], "easy_transfer_app export validate model"),
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
