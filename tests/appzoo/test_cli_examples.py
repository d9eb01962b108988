"""`easy_transfer_app examples`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appzoo.cli import examples
from appzoo.cli.main import main


def test_samples_and_configurations_are_written(repository: Path, tmp_path: Path, capfd):
    folder = tmp_path / "new"
    assert main(["examples", str(folder)]) == 0
    found = capfd.readouterr()
    assert "text_classify" in json.loads(found.out)["examples"] and examples.SMOKE in found.err
    for name in ("examples/text_classify/train.tsv", examples.SMOKE):
        assert (folder / name).read_bytes() == (repository / name).read_bytes()
    assert not list(folder.rglob("__pycache__"))


def test_nothing_is_replaced_unasked(tmp_path: Path, capsys):
    mine = tmp_path / "examples" / "mine.tsv"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert main(["examples", str(tmp_path)]) == 2
    assert "exists" in capsys.readouterr().err and not (tmp_path / "appzoo").exists()
    assert main(["examples", str(tmp_path), "--overwrite"]) == 0
    assert mine.read_text() == "mine"


def test_a_checkout_is_left_as_it_is(repository: Path, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    assert main(["examples"]) == 2
    assert "give another folder" in capsys.readouterr().err


def test_a_missing_sample_names_the_verb(tmp_path: Path, monkeypatch, capsys, repository: Path):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(repository / "appzoo/image_classify/configs/smoke.yaml")]) == 3
    assert capsys.readouterr().err.strip().endswith("into this folder by: easy_transfer_app examples")
    (tmp_path / "examples").mkdir()
    assert main(["train", "--config", str(repository / "appzoo/image_classify/configs/smoke.yaml")]) == 3
    assert "directory examples/image_classify does not exist" in capsys.readouterr().err


def test_an_installation_without_samples_says_so(tmp_path: Path, monkeypatch, capsys):
    package = tmp_path / "appzoo"
    package.mkdir()
    monkeypatch.setattr(examples.appzoo, "__file__", str(package / "__init__.py"))
    with pytest.raises(examples.ResourceError, match="no sample tables; use a checkout"):
        examples.sample_folder()
