"""Networks of other runs: runs and exports of any application, what fits, that they stay, and how they are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from test_text_classify_cnn import TEXTS, encode
from test_text_classify_cnn import make_app as words_app
from tiny_distillation import FORM, IMAGES, LABELS, make_app, save_teacher, teacher_logits

from appzoo.co_training.app import CoTraining
from appzoo.co_training.config import CoTrainingConfig
from appzoo.dimension_pruning.app import DimensionPruning
from appzoo.dimension_pruning.config import DimensionPruningConfig
from appzoo.discovery import find_application
from appzoo.image_classify.app import ImageClassify
from appzoo.image_classify.config import ImageClassifyConfig
from easytransfer import keras
from easytransfer.app.contract import App
from easytransfer.app.frozen import Frozen
from easytransfer.app.inputs.arrays import ArrayInput
from easytransfer.app.inputs.images import ImageInput
from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import ConfigError, ModelError
from easytransfer.run.atomic import write_json
from easytransfer.train import checkpoint
from easytransfer.train.step import Loss
from easytransfer.train.trainer import Trainer
from easytransfer.train.weights import named_arrays


def save_words(folder: Path, texts=TEXTS, **model) -> App:
    """Writes the run folder of a classifier of words with random weights; returns the application."""
    app = words_app(prepare=False, **model)
    app.load_assets(None, lambda column: texts if column == "text" else ["bad", "good"])
    app.build_model()
    save_run(app, folder)
    return app


def save_run(app: App, folder: Path) -> None:
    folder.mkdir(parents=True)
    app.save_assets(folder)
    write_json(folder / "train_config.json", app.config.model_dump(mode="json"))
    checkpoint.save(folder, 3, named_arrays(app.model.weights), {}, {})


def save_export(run: Path, folder: Path) -> Path:
    """Writes the parts of an export that a program reads: graph, assets, settings."""
    config = json.loads((run / "train_config.json").read_text())
    config_class, app_class = find_application(config["model_name"])
    app = app_class(config_class.model_validate(config))
    app.load_assets(run)
    app.build_model(run)
    checkpoint.load_weights(app.model, run)
    body = tf.Module()
    body.model = app.model
    specs = {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in app.specs().items()}
    named = tf.function(lambda **arrays: app.forward(arrays)).get_concrete_function(**specs)
    tf.saved_model.save(body, str(folder), signatures={"predict_ids": named})
    for name in app.exported_files:
        (folder / "assets" / name).write_bytes((run / name).read_bytes())
    write_json(folder / "assets.extra" / "export.json", {"config": config})
    return folder


def save_images(folder: Path, network: str = "mlp12x2_digits") -> Path:
    """Writes the run folder of a classifier of images as a job does."""
    save_teacher(folder, network)
    data = {"label_enumerate_values": ",".join(LABELS)}
    config = ImageClassifyConfig(model_name="image_classify", data=data, model={"network": network, **FORM})
    write_json(folder / "train_config.json", config.model_dump(mode="json"))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> tuple[Path, Path]:
    """A run of a classifier of images, and an export of it."""
    folder = tmp_path_factory.mktemp("images")
    run = save_images(folder / "run")
    (folder / "1" / "assets.extra").mkdir(parents=True)
    return run, save_export(run, folder / "1")


def student_inputs() -> list[ImageInput]:
    return [ImageInput("image", FORM["image_size"], FORM["channels"])]


def test_a_run_and_its_export_give_what_numpy_gives_and_no_gradients(images):
    expected = teacher_logits(images[0])
    for path, kind in zip(images, ("run", "export"), strict=True):
        frozen = Frozen.open(path, find_application, "teacher", inputs=student_inputs())
        assert frozen.record["kind"] == kind and frozen.record["model_name"] == "image_classify"
        assert frozen.app.labels == LABELS
        pictures, factor = tf.constant(IMAGES), tf.Variable(1.0)

        @tf.function
        def both(pictures, frozen=frozen, factor=factor):
            with tf.GradientTape() as tape:
                logits = frozen({"image": pictures, "further": factor})["logits"] * factor
            return logits, tape.gradient(logits, factor)

        logits, gradient = both(pictures)
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        np.testing.assert_allclose(gradient, expected.sum(), rtol=1e-4)
    run = Frozen.open(images[0], find_application, "teacher")
    assert not run.app.model.trainable_variables
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(run({"image": tf.constant(IMAGES)})["logits"])
    assert tape.gradient(value, run.app.model.weights) == [None] * len(run.app.model.weights)


class Follower(App):
    """Learns the logits of a frozen network; its own network sees the same images in its own way."""

    def __init__(self, teacher: Frozen):
        super().__init__(ImageClassifyConfig())
        self.frozen = {"teacher": teacher}
        self.inputs = student_inputs()

    def build_network(self, assets):
        image = keras.Input([8, 8, 1], dtype=tf.uint8, name="image")
        x = keras.layers.Flatten()(tf.cast(image, tf.float32) / 255)
        return keras.Model({"image": image}, {"logits": keras.layers.Dense(4, name="head")(x)})

    def losses(self, batch, outputs, step):
        wanted = self.frozen["teacher"](batch)["logits"]
        error = tf.reduce_sum(tf.square(wanted - outputs["logits"]), -1) * batch["example_weight"]
        return {"loss": Loss(tf.reduce_sum(error), tf.reduce_sum(batch["example_weight"]))}


def follow(teacher: Frozen, folder: Path | None, epochs: float = 2, **batches):
    settings = TrainConfig(num_epochs=epochs, learning_rate=0.05, log_step_count_steps=1)
    trainer = Trainer(Follower(teacher), settings, RuntimeConfig(deterministic=True), folder)
    table = EncodedTable({"image": IMAGES})
    return trainer, trainer.fit(Batches(table, 5, shuffle=True, **batches))


@pytest.mark.parametrize("kind", [0, 1])
def test_it_is_loaded_once_is_in_nothing_of_the_student_and_never_changes(images, tmp_path, monkeypatch, kind):
    loads = []

    def counted(function):
        return lambda *given: (loads.append(function), function(*given))[1]

    monkeypatch.setattr(ImageClassify, "build_model", counted(ImageClassify.build_model))
    monkeypatch.setattr(tf.saved_model, "load", counted(tf.saved_model.load))
    teacher = Frozen.open(images[kind], find_application, "teacher", inputs=student_inputs())
    before = teacher({"image": tf.constant(IMAGES)})["logits"].numpy()
    trainer, result = follow(teacher, tmp_path)
    assert result.steps == 4 and len(loads) == 1
    np.testing.assert_array_equal(teacher({"image": tf.constant(IMAGES)})["logits"], before)
    stored = checkpoint.load(checkpoint.resolve(tmp_path))
    assert list(stored.weights) == ["head/kernel", "head/bias"]
    assert stored.state["frozen"] == {"teacher": teacher.record}
    assert [v.name for v in trainer.engine.variables()] == ["head/kernel:0", "head/bias:0"]


def test_a_run_goes_on_with_the_same_network_only(images, tmp_path):
    def teacher(path):
        return Frozen.open(path, find_application, "teacher")

    follow(teacher(images[0]), tmp_path / "student", 1)
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in images[0].rglob("*"):
        if file.is_file():
            target = moved / file.relative_to(images[0])
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    # Elsewhere it is the same.
    assert follow(teacher(moved), tmp_path / "student", 2)[1].steps == 4
    other = save_images(tmp_path / "other", "mlp11x2_digits")
    with pytest.raises(ConfigError, match=r"the teacher .*other.* is not the one this run was started with") as caught:
        follow(teacher(other), tmp_path / "student", 3)
    assert "\n" not in str(caught.value)
    # With its weights, and other statistics of the images, it is another one.
    known = teacher(moved).record
    file = moved / "image_statistics.json"
    file.write_text(file.read_text().replace("0.2", "0.3", 1))
    changed = teacher(moved).record
    assert changed["weights"] == known["weights"] and changed["sha256"] != known["sha256"]
    with pytest.raises(ConfigError, match="is not the one this run was started with"):
        follow(teacher(moved), tmp_path / "student", 3)


def test_the_hash_of_an_export_is_that_of_all_that_decides(images):
    first = Frozen.open(images[1], find_application, "teacher").record["sha256"]
    assert Frozen.open(images[1], find_application, "teacher").record["sha256"] == first
    for name in ("assets/label_mapping.json", "assets.extra/export.json"):
        file = images[1] / name
        content = file.read_bytes()
        file.write_bytes(content + b"\n")
        assert Frozen.open(images[1], find_application, "teacher").record["sha256"] != first
        file.write_bytes(content)
    assert Frozen.open(images[1], find_application, "teacher").record["sha256"] == first


def test_what_does_not_fit_is_one_line(images, tmp_path):
    run, export = images

    def refused(error, match, call):
        with pytest.raises(error, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)

    def opened(path, inputs=None, **options):
        return Frozen.open(path, find_application, "teacher", inputs=inputs, **options)

    refused(ModelError, "no teacher: there is no checkpoint .*nothing", lambda: opened(tmp_path / "nothing"))
    refused(ModelError, "reads image, and this run has numbers", lambda: opened(run, [ArrayInput("numbers", [4])]))
    refused(
        ModelError,
        r"takes image as uint8 \[any, 8, 8, 1\], and this run has uint8 \[any, 9, 9, 1\]",
        lambda: opened(run, [ImageInput("image", 9, 1)]),
    )
    frozen, exported = opened(run), opened(export)
    missing = {"picture": tf.constant(IMAGES)}
    refused(ConfigError, "takes image, and the batch has no image; got 'picture'", lambda: frozen(missing))
    wide = {"image": tf.zeros([2, 9, 9, 1])}
    refused(ConfigError, r"takes image as uint8 \[any, 8, 8, 1\]; got 'float32 \[2, 9, 9, 1\]'", lambda: frozen(wide))
    # An application takes augmented images, a signature the declared ones.
    augmented = {"image": tf.constant(IMAGES / 255, tf.float32)}
    np.testing.assert_allclose(frozen(augmented)["logits"], teacher_logits(run), atol=1e-4)
    refused(ConfigError, "takes image as uint8 .*; got 'float32", lambda: exported(augmented))
    plain = tmp_path / "plain"
    (plain / "assets.extra").mkdir(parents=True)
    (plain / "saved_model.pb").write_bytes(b"")
    refused(ModelError, "is a SavedModel without assets.extra/export.json", lambda: opened(plain))
    hostile = tf.Module()
    path = tf.TensorSpec([], tf.string)
    hostile.read = tf.function(lambda path: {"text": tf.io.read_file(path)}, input_signature=[path])
    tf.saved_model.save(hostile, str(tmp_path / "hostile"), signatures={"predict_ids": hostile.read})
    (tmp_path / "hostile" / "assets.extra").mkdir()
    write_json(tmp_path / "hostile" / "assets.extra" / "export.json", {"config": {"model_name": "image_classify"}})
    refused(ModelError, "cannot be loaded: operators .* does not run: ReadFile", lambda: opened(tmp_path / "hostile"))
    config = json.loads((run / "train_config.json").read_text())
    text = (run / "train_config.json").read_text()
    try:
        for change, error, match in (
            ({"model_name": "image_clasify"}, ConfigError, "unknown modelName; got 'image_clasify'"),
            ({"train": {"learning_rate": -1}}, ModelError, "stored settings of the teacher .* train.learning_rate"),
        ):
            write_json(run / "train_config.json", {**config, **change})
            refused(error, match, lambda: opened(run))
    finally:
        (run / "train_config.json").write_text(text)


def test_networks_of_words_must_share_their_vocabulary_or_have_a_rule(tmp_path):
    mine = save_words(tmp_path / "mine")
    same = save_words(tmp_path / "same", embedding_size=6)
    save_words(tmp_path / "other", ["the food was rude", "good staff"])
    frozen = Frozen.open(tmp_path / "same", find_application, "teacher", inputs=mine.inputs)
    table, _, _ = encode(mine, tmp_path, [f"{text}\tgood" for text in TEXTS])
    batch = {name: tf.constant(value) for name, value in table.batch(range(4)).items()}
    np.testing.assert_array_equal(frozen(batch)["logits"], same.forward(batch)["logits"])
    with pytest.raises(ModelError, match="another vocabulary than this run: equal ids are other words") as caught:
        Frozen.open(tmp_path / "other", find_application, "teacher", inputs=mine.inputs)
    assert "\n" not in str(caught.value)
    renamed = {f"{name}_b": value for name, value in batch.items()}
    rule = {"arrays": lambda given: {name.removesuffix("_b"): value for name, value in given.items()}}
    ruled = Frozen.open(tmp_path / "same", find_application, "teacher", inputs=[ArrayInput("x", [2])], **rule)
    np.testing.assert_array_equal(ruled(renamed)["logits"], same.forward(batch)["logits"])


def test_several_networks_can_teach_and_not_be_pruned(tmp_path):
    data = {"label_enumerate_values": ",".join(LABELS)}
    form = {**FORM, "channel_mean": [0.4], "channel_std": [0.3], "members": ["mlp8x1_digits", "mlp11x2_digits"]}
    app = CoTraining(CoTrainingConfig(model_name="co_training", data=data, model=form))
    app.load_assets(None)
    app.build_model()
    save_run(app, tmp_path / "run")
    student = make_app(tmp_path / "run", distillation={"kd_multiplier": 2.0})
    expected = app.forward({"image": tf.constant(IMAGES)})["logits"]
    np.testing.assert_array_equal(student.teacher(tf.constant(IMAGES)), expected)
    model = {**FORM, "base_path": str(tmp_path / "run")}
    pruned = DimensionPruning(DimensionPruningConfig(model_name="dimension_pruning", data=data, model=model))
    with pytest.raises(ModelError, match="the network to prune .* is several networks") as caught:
        pruned.load_assets(None)
    assert "\n" not in str(caught.value)
