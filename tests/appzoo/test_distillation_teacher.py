"""The teacher of a distillation: which ones are taken, and that it is never changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny_distillation import (
    IMAGES,
    LABELS,
    RANDOM,
    TEACHER_MEAN,
    batch,
    built,
    make_app,
    rows,
    save_teacher,
)

from appzoo.distillation_skd.config import DistillationSkdConfig
from appzoo.distillation_skd.teacher import open_teacher
from easytransfer.data.batches import Batches
from easytransfer.errors import ConfigError, ModelError
from easytransfer.image.statistics import ChannelStatistics
from easytransfer.train import checkpoint
from easytransfer.train.trainer import Trainer


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "run")


def test_the_teacher_has_its_own_statistics_and_is_left_alone(tmp_path):
    folder = save_teacher(tmp_path / "run", "resnet8_w8_cifar")
    app = built(folder, model={"network": "resnet8_w4_cifar"})
    network = app.teacher.frozen.app.model
    before = [w.copy() for w in network.get_weights()]
    single = app.teacher(tf.constant(IMAGES[:1])).numpy()
    np.testing.assert_allclose(app.teacher(tf.constant(IMAGES)).numpy()[:1], single, atol=1e-5, err_msg="batch norm")
    outputs = app.forward({**batch(), "image": tf.constant(IMAGES / 255.0, tf.float32)}, training=True)
    np.testing.assert_allclose(outputs["teacher_logits"][:1], single, atol=1e-5)
    assert network.mean == np.float32(TEACHER_MEAN) and app.model.mean != network.mean
    trainer = Trainer(
        app, app.config.train.model_copy(update={"batch_size": 5, "num_epochs": 2}), run_dir=tmp_path / "s"
    )
    trainer.fit(Batches(rows(), 5, shuffle=True))
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    mine = {id(v) for v in app.model.weights}
    assert not mine & {id(v) for v in network.weights} and {id(v) for v in trainer.engine.variables()} <= mine
    stored = checkpoint.load(checkpoint.resolve(tmp_path / "s"))
    assert len(stored.weights) == len(app.model.weights) and len(mine) == len(stored.weights)
    assert all(f"default/{i}/" in " ".join(stored.training) for i in range(2))


def test_teachers_that_do_not_fit_are_refused_in_one_line(teacher, tmp_path):
    def refused(folder: Path | str, expected: str, **sections) -> None:
        with pytest.raises(ModelError, match=expected) as caught:
            make_app(folder, **sections)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "nothing", "no teacher: there is no checkpoint .*nothing")
    wide = {"model": {"image_size": 16}}
    refused(teacher, r"takes images \[8, 8, 1\], and this run has \[16, 16, 1\]; set model.image_size=8", **wide)
    refused(teacher, r"takes images \[8, 8, 1\], and this run has \[8, 8, 3\]", model={"channels": 3})
    for names in ("ant,bee,cat", "bee,ant,cat,dog"):
        refused(teacher, "other labels, or in another order", data={"label_enumerate_values": names})
    refused(save_teacher(tmp_path / "score", labels=[""]), "gives a number, no classes")
    for file in ("network.json", ChannelStatistics.FILE):
        broken = save_teacher(tmp_path / f"no_{file}")
        (broken / file).unlink()
        refused(broken, file)
    other = save_teacher(tmp_path / "other")
    text = (other / "network.json").read_text()
    (other / "network.json").write_text(text.replace("12", "13", 1))
    refused(other, "the weights of the teacher are not those of its network.json: the checkpoint .*other")
    export = tmp_path / "export"
    (export / "assets.extra").mkdir(parents=True)
    (export / "assets.extra" / "export.json").write_text("{}")
    refused(export, "is an export, which takes no augmented images")


def test_a_saved_model_can_be_the_teacher(tmp_path):
    class Body(tf.Module):
        def __init__(self, classes):
            super().__init__()
            self.kernel = tf.Variable(RANDOM.normal(size=(64, classes)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32)])
        def __call__(self, images):
            return tf.reshape(images, [-1, 64]) @ self.kernel

    bodies = {classes: Body(classes) for classes in (4, 3)}
    for classes, body in bodies.items():
        tf.saved_model.save(body, str(tmp_path / str(classes)))
    app = built(tmp_path / "4")
    expected = (IMAGES / 255.0).reshape(10, -1) @ bodies[4].kernel.numpy()
    np.testing.assert_allclose(app.teacher.over(IMAGES, 4), expected, atol=1e-4)
    assert app.multiplier == pytest.approx(expected.std(axis=1).mean(), rel=1e-5)
    with pytest.raises(ModelError, match=r"no logits of 4 classes; got \[2, 3\]"):
        make_app(tmp_path / "3")
    with pytest.raises(ModelError, match="does not take images"):
        open_teacher(tmp_path / "4", LABELS, app.config.model.model_copy(update={"image_size": 9}), 4)


def test_settings_that_make_no_sense_are_refused(teacher):
    with pytest.raises(ConfigError, match="kd_method=skd_ln needs a teacher"):
        make_app(None)
    with pytest.raises(ConfigError, match="means nothing with 2 classes"):
        make_app(teacher, data={"label_enumerate_values": "a,b"})
    with pytest.raises(ConfigError, match="needs a task with one class per row"):
        make_app(teacher, data={"label_enumerate_values": ""})
    with pytest.raises(ValueError, match="cached needs images that stay the same; turn off augment.horizontal_flip"):
        make_app(teacher, augment={"crop_padding": 0}, distillation={"kd_teacher_logits": "cached"})
    assert make_app(None, distillation={"kd_method": "none"}, data={"label_enumerate_values": "a,b"}).teacher is None


def test_the_student_must_be_named(teacher):
    """Its default was the teacher's own."""
    with pytest.raises(ConfigError) as caught:
        make_app(teacher, model={"network": None})
    line = str(caught.value)
    assert "the network of the student is not named; got 'model.network=None'" in line and "resnet20_cifar" in line
    assert "easy_transfer_app profile --list" in line and "--set model.network=" in line
    with pytest.raises(ConfigError, match="the network of the student is not named"):
        make_app(None, model={"network": None}, distillation={"kd_method": "none"})
    # A run folder has the network itself.
    assert DistillationSkdConfig().model.network is None


def test_cached_logits_train_as_those_on_the_fly(teacher):
    found = []
    for where in ("on_the_fly", "cached"):
        table = rows()
        app = built(teacher, table, distillation={"kd_teacher_logits": where})
        assert ("teacher_logits" in table.columns) == (where == "cached")
        calls = []
        network = app.teacher.frozen.app.model
        plain = network.call
        network.call = lambda *a, plain=plain, calls=calls, **k: (calls.append(1), plain(*a, **k))[1]
        trainer = Trainer(app, app.config.train.model_copy(update={"batch_size": 4, "num_epochs": 2}))
        trainer.fit(Batches(table, 4, shuffle=True))
        assert bool(calls) == (where == "on_the_fly")
        found.append(app.model.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
