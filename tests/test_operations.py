"""docs/operations.md: its commands are run as written, and what it says of files and codes is compared with them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_readme import ROOT, blocks, check, scratch  # noqa: F401 - scratch is a fixture

from easytransfer import errors

PAGE = ROOT / "docs" / "operations.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_fast_commands(scratch: Path):  # noqa: F811
    for block in blocks(PAGE, "fast"):
        for line in block.splitlines():
            assert check(line, scratch).strip(), f"{line} printed nothing"


@pytest.mark.slow
def test_commands(scratch: Path):  # noqa: F811
    """From the dry run to the withdrawn version, in one folder."""
    commands = blocks(PAGE, "")
    assert len(commands) == 5
    for block in commands[:-1]:
        check(block, scratch)
    model = scratch / "models" / "text_classify_bert"
    assert (scratch / "comparison" / "comparison.html").is_file()
    assert [path.name for path in model.iterdir()] == ["7"] and (scratch / "models" / "models.config").is_file()
    check(commands[-1], scratch)
    assert [path.name for path in model.iterdir()] == [".withdrawn-7"]


def test_exit_codes_are_those_of_the_errors():
    rows = dict(re.findall(r"^\| (\d+) \| ([^|]+) \|", TEXT, re.MULTILINE))
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {str(kind.exit_code) for kind in kinds} <= rows.keys()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| (\d+) \| ", readme, re.MULTILINE)) <= rows.keys()


def test_the_server_configuration_is_one(tmp_path: Path):
    from easytransfer.savedmodel.server_files import parse_file

    (text,) = re.findall(r"```protobuf\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "models.config").write_text(text)
    (model,) = parse_file(tmp_path / "models.config").model_config_list.config
    assert list(model.model_version_policy.specific.versions) == [6, 7]
    assert dict(model.version_labels) == {"stable": 6, "canary": 7}


def test_files_and_settings_named_are_there():
    for name in set(re.findall(r"`((?:docker|deploy|examples|tests)/[\w./-]+)", TEXT)):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target


@pytest.mark.parametrize("line", re.findall(r"python (deploy/k8s/render\.py [^|\\]+)", TEXT))
def test_manifests_are_rendered_as_shown(line, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    words = [str(tmp_path / word) if word == "mine.yaml" else word for word in line.split()[1:]]
    command = [sys.executable, ROOT / "deploy" / "k8s" / "render.py", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("apiVersion: ")
