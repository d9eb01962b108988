"""Checkpoint folders: complete or absent, checked by content, found by name; strict assignment to a model."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from easytransfer import keras
from easytransfer.errors import ModelError, ResourceError
from easytransfer.train import checkpoint
from easytransfer.train.weights import assign_arrays, named_arrays, variable_names

WEIGHTS = {"a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "a/bias": np.zeros(3, np.float32)}
TRAINING = {"engine/step": np.int64(5), "default/0/m": np.ones((2, 3), np.float32)}


def save(run_dir, step):
    return checkpoint.save(run_dir, step, WEIGHTS, TRAINING, {"metrics": {"loss": 0.5, "auc": float("nan")}})


def test_what_is_saved_is_loaded(tmp_path):
    found = checkpoint.load(save(tmp_path, 5))
    assert list(found.weights) == list(WEIGHTS) and set(found.training) == set(TRAINING)
    for name, value in {**WEIGHTS, **TRAINING}.items():
        loaded = {**found.weights, **found.training}[name]
        np.testing.assert_array_equal(loaded, value)
        assert loaded.shape == value.shape and loaded.dtype == value.dtype
    assert found.state["step"] == 5 and found.state["metrics"] == {"loss": 0.5, "auc": None}
    assert not checkpoint.load(found.path, weights_only=True).training


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.TRAINING, checkpoint.STATE])
@pytest.mark.parametrize("damage", ["cut", "flip", "missing"])
def test_damage_is_found_and_the_checkpoint_before_is_used(tmp_path, name, damage):
    save(tmp_path, 1)
    file = save(tmp_path, 2) / name
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        content[-9] ^= 1
        file.write_bytes(content[:-9] if damage == "cut" else content)
    assert checkpoint.fault(file.parent)
    warnings = []
    assert checkpoint.newest(tmp_path, warnings.append).state["step"] == 1
    # Without its state file a folder is no checkpoint at all.
    assert bool(warnings) == ((name, damage) != (checkpoint.STATE, "missing"))
    with pytest.raises(ModelError, match=r"broken.*model\.ckpt-1"):
        checkpoint.load(file.parent)


def test_no_checkpoint_at_all(tmp_path):
    assert checkpoint.newest(tmp_path / "absent", print) is None
    with pytest.raises(ModelError, match="holds no checkpoint"):
        checkpoint.resolve(tmp_path / "absent")


@pytest.mark.parametrize("function", ["save_file", "write_json", "sync"])
def test_an_interrupted_save_leaves_the_old_checkpoints_and_is_cleaned_up(tmp_path, monkeypatch, function):
    save(tmp_path, 1)
    checkpoint.point(tmp_path, 1, None)

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, function, fail)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
    assert checkpoint.steps(tmp_path) == [1] and checkpoint.resolve(tmp_path).name == "model.ckpt-1"
    save(tmp_path, 3)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["checkpoint.json", "model.ckpt-1", "model.ckpt-3"]


def test_a_step_saved_again_replaces_the_old_folder(tmp_path):
    save(tmp_path, 1)
    path = checkpoint.save(tmp_path, 1, {"a": np.ones(1)}, {}, {})
    assert list(checkpoint.load(path).weights) == ["a"]


def test_full_disk_is_a_resource_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(ResourceError, match="disk is full"):
        save(tmp_path, 1)


def test_resolve_by_every_name(tmp_path):
    for step in (5, 10, 15):
        save(tmp_path, step)
    assert checkpoint.resolve(tmp_path).name == "model.ckpt-15"
    checkpoint.point(tmp_path, 15, 10)
    for given, step in {"": 10, "model.ckpt-best": 10, "model.ckpt-last": 15, "model.ckpt-5": 5}.items():
        assert checkpoint.resolve(tmp_path / given) == tmp_path / f"model.ckpt-{step}"
    for wrong in ("model.ckpt-7", "model.ckpt-", "model.ckpt"):
        with pytest.raises(ModelError, match="model.ckpt-5, model.ckpt-10, model.ckpt-15, model.ckpt-last"):
            checkpoint.resolve(tmp_path / wrong)
    shutil.rmtree(tmp_path / "model.ckpt-10")
    assert checkpoint.resolve(tmp_path).name == "model.ckpt-15"
    (tmp_path / "checkpoint.json").write_text("{")
    assert checkpoint.resolve(tmp_path / "model.ckpt-last").name == "model.ckpt-15"


def test_prune_keeps_the_newest_and_the_best(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step)
    checkpoint.prune(tmp_path, 2, best=1)
    assert checkpoint.steps(tmp_path) == [1, 4, 5]
    checkpoint.clear(tmp_path)
    assert not list(tmp_path.iterdir())


def model(width=3, layers=2):
    x = keras.Input([4])
    y = x
    for _ in range(layers):
        y = keras.layers.Dense(width)(y)
    return keras.Model(x, y)


def test_weights_of_the_same_model_built_again_are_matched_by_order():
    first, second = model(), model()
    assert set(variable_names(first.weights)) != set(variable_names(second.weights))
    assign_arrays(second.weights, named_arrays(first.weights), "here")
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mismatches_are_listed_and_nothing_is_assigned(tmp_path):
    source, target = model(width=3), model(width=5)
    path = checkpoint.save(tmp_path, 1, named_arrays(source.weights), {}, {})
    before = target.get_weights()
    with pytest.raises(ModelError) as error:
        checkpoint.load_weights(target, path)
    text = str(error.value)
    assert "4 of 4 variables differ" in text and "checkpoint (4, 3), model (4, 5)" in text
    for a, b in zip(before, target.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ModelError, match="checkpoint absent, model"):
        checkpoint.load_weights(model(layers=3), path)
    assert error.value.exit_code == 4


def test_repeated_names_are_told_apart():
    variables = [tf.Variable(float(i), name="w") for i in range(3)]
    assert variable_names(variables) == ["w", "w#2", "w#3"]


def test_state_is_readable_json(tmp_path):
    state = json.loads((save(tmp_path, 5) / checkpoint.STATE).read_text())
    assert set(state) == {"metrics", "step", "order", "files", "checksum"}
