"""What is special about image applications: bytes served like pixels, statistics, mixup, views, bad images, pages."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from appzoo.discovery import load_application
from appzoo.image_app import ImageApp, ImageModel, stored_network
from appzoo.image_classify.app import ImageClassify
from appzoo.image_classify.config import ImageClassifyConfig
from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.image.statistics import ChannelStatistics
from easytransfer.layers.draws import RowDraws
from easytransfer.train.engine import Engine
from easytransfer.train.step import EVALUATION
from easytransfer.train.train_schedule import batch_signature
from easytransfer.train.trainer import Trainer

RANDOM = np.random.default_rng(4)
LABELS = ["cat", "dog", "owl"]
ROWS = EncodedTable(
    {
        "image": RANDOM.integers(0, 256, (10, 16, 16, 3)).astype(np.uint8),
        "label_id": RANDOM.integers(0, 3, 10).astype(np.int32),
    }
)


def make_app(**sections) -> ImageClassify:
    """A prepared application on 16 x 16 colour images whose statistics are those of `ROWS`."""
    values = {"data": {}, "model": {}, **sections}
    values["data"] = {"label_enumerate_values": ",".join(LABELS), **values["data"]}
    values["model"] = {"image_size": 16, **values["model"]}
    app = ImageClassify(ImageClassifyConfig(model_name="image_classify", **values))
    app.load_assets(None)
    return app


def built(**sections) -> ImageClassify:
    app = make_app(**sections)
    app.on_train_table(ROWS)
    app.build_model()
    # A fresh network gives nearly the same logits for all images.
    random = np.random.default_rng(0)
    app.model.set_weights([w + random.uniform(-0.1, 0.1, w.shape).astype(np.float32) for w in app.model.get_weights()])
    return app


def png(picture: Image.Image, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form)
    return stream.getvalue()


@pytest.fixture(scope="module")
def app() -> ImageClassify:
    return built()


def test_the_name_finds_the_application():
    assert load_application("image_classify") is ImageClassify


def encode(app: ImageClassify, table: Path, policy: str = "skip") -> tuple[EncodedTable, BadRows]:
    bad = BadRows(policy)
    opened = open_table(str(table), schema=None, bad_rows=bad)
    return EncodedTable.concat(app.encode(chunk, with_labels=True) for chunk in opened.chunks()), bad


def test_served_bytes_answer_like_predicted_files(app, tmp_path):
    pictures = [
        Image.fromarray(RANDOM.integers(0, 256, (*shape, 3)).astype(np.uint8)).convert(mode)
        for shape, mode in (((16, 16), "RGB"), ((40, 23), "RGB"), ((9, 30), "L"), ((16, 16), "RGBA"), ((20, 20), "P"))
    ]
    rows = []
    for number, picture in enumerate(pictures):
        (tmp_path / f"{number}.png").write_bytes(png(picture))
        rows.append({"image": f"{number}.png", "label": "owl"})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    encoded, _ = encode(app, tmp_path / "t.jsonl")
    predicted = app.postprocess({"logits": app.model({"image": encoded.columns["image"]})["logits"].numpy()}, encoded)
    serve = tf.function(app.signatures(tmp_path)["serving_default"].function)
    answer = serve(image_bytes=tf.constant([png(picture) for picture in pictures]))
    np.testing.assert_allclose(answer["probabilities"].numpy(), np.stack(predicted["probabilities"]), atol=1e-5)
    assert [label.decode() for label in answer["label"].numpy()] == predicted["predictions"]
    assert len(np.unique(answer["score"].numpy())) == len(pictures)


def test_images_that_cannot_be_used_are_bad_rows_with_file_and_reason(tmp_path):
    app = make_app(model={"max_pixels": 500})
    (tmp_path / "good.png").write_bytes(png(Image.new("RGB", (8, 8))))
    (tmp_path / "large.png").write_bytes(png(Image.new("RGB", (30, 30))))
    (tmp_path / "broken.jpg").write_bytes(png(Image.new("RGB", (8, 8)), "JPEG")[:150])
    names = ["good.png", "large.png", "broken.jpg", "absent.png", "good.png"]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"image": n, "label": "cat"}) + "\n" for n in names))
    encoded, bad = encode(app, tmp_path / "t.jsonl")
    assert len(encoded) == 2 and encoded.columns["image"].shape == (2, 16, 16, 3)
    assert bad.reasons == {"image too large": 1, "broken image": 1, "cannot read the image file": 1}
    with pytest.raises(DataError, match=r"t.jsonl:2: column 'image': image too large: .*large.png: 30 x 30"):
        encode(app, tmp_path / "t.jsonl", "fail")


def test_statistics_come_from_the_table_once_and_go_into_the_assets(tmp_path):
    app = built()
    scaled = ROWS.columns["image"] / 255
    np.testing.assert_allclose(app.statistics.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-9)
    app.save_assets(tmp_path)
    again = ImageClassify(app.config)
    again.load_assets(tmp_path)
    assert again.statistics == app.statistics and again.labels == LABELS
    again.build_model(tmp_path)
    again.model.set_weights(app.model.get_weights())
    inputs = {"image": ROWS.columns["image"]}
    np.testing.assert_array_equal(again.model(inputs)["logits"], app.model(inputs)["logits"])
    (tmp_path / ChannelStatistics.FILE).unlink()
    with pytest.raises(ModelError, match="image_statistics.json"):
        again.load_assets(tmp_path)


def test_statistics_of_the_run_whose_weights_are_taken_are_kept(tmp_path):
    step = tmp_path / "run" / "model.ckpt-7"
    step.mkdir(parents=True)
    (step / "state.json").write_text("{}")
    built().save_assets(tmp_path / "run")
    app = make_app(train={"init_checkpoint_path": str(step)})
    assert app.statistics == ChannelStatistics.load(tmp_path / "run")
    given = make_app(model={"channel_mean": [0.1, 0.2, 0.3], "channel_std": [0.4, 0.5, 0.6]})
    assert given.statistics == ChannelStatistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    with pytest.raises(ConfigError, match="not known yet"):
        make_app().build_model()


def test_the_model_normalises_whole_values_and_shares_alike(app):
    images = ROWS.columns["image"]
    mean, std = images.mean(axis=(0, 1, 2)) / 255, images.std(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(app.model.normalised(images), (images / 255 - mean) / std, atol=1e-5)
    model: ImageModel = app.model
    floats = tf.constant(images / 255, tf.float32)
    np.testing.assert_allclose(model({"image": floats})["logits"], model({"image": images})["logits"], atol=1e-4)


def draws() -> RowDraws:
    return RowDraws(tf.constant([3, 4]), tf.constant(len(ROWS)))


def batch() -> dict[str, tf.Tensor]:
    return {name: tf.constant(value) for name, value in ROWS.batch(range(len(ROWS))).items()}


@pytest.mark.parametrize("text", [None, "{", "[]", '{"family": "unheard"}', '{"no_such_key": 1}'])
def test_a_damaged_shape_of_the_network_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "network.json").write_text(text)
    with pytest.raises(ModelError, match="network.json"):
        stored_network(tmp_path)


def test_training_sees_augmented_shares_and_views():
    app = make_app(augment={"mixup_alpha": 0.0})
    app.on_train_table(ROWS)
    found = app.training_batch(batch(), draws())
    assert found["image"].dtype == tf.float32 and found["image"].shape == (10, 16, 16, 3)
    assert found.keys() == batch().keys()
    app.views = 3
    views = app.training_batch(batch(), draws())["image"]
    assert views.shape == (10, 3, 16, 16, 3)
    np.testing.assert_array_equal(views[:, 0], found["image"])


def cross_entropy(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    target = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
    return -(target * logs).sum(axis=1)


@pytest.mark.parametrize("class_weights", [None, "1,2,0.5"])
def test_mixup_loss_equals_numpy(class_weights):
    app = make_app(
        augment={"mixup_alpha": 0.4, "crop_padding": 0, "horizontal_flip": False},
        train={"label_smoothing": 0.1, "class_weights": class_weights},
    )
    app.on_train_table(ROWS)
    mixed = app.training_batch({**batch(), "example_weight": tf.constant([1.0] * 8 + [0.0] * 2)}, draws())
    share, partner = mixed["own_share"].numpy(), mixed["partner_label_id"].numpy()
    assert np.ptp(share) == 0 and 0 < share[0] < 1
    logits = RANDOM.normal(size=(10, 3)).astype(np.float32)
    own, weight = ROWS.columns["label_id"], mixed["example_weight"].numpy()
    factor = np.array([1, 2, 0.5]) if class_weights else np.ones(3)
    parts = [(own, share), (partner, 1 - share)]
    expected = sum((weight * s * factor[y] * cross_entropy(logits, y, 0.1)).sum() for y, s in parts)
    found = app.losses(mixed, {"logits": tf.constant(logits)}, EVALUATION)["loss"]
    np.testing.assert_allclose(found.sum, expected, rtol=1e-5)
    np.testing.assert_allclose(found.weight, sum((weight * s * factor[y]).sum() for y, s in parts), rtol=1e-5)
    # The images themselves: own and partner's by the share.
    plain = ROWS.columns["image"] / 255
    differences = [np.abs(share[0] * plain + (1 - share[0]) * plain[p] - mixed["image"].numpy()).max(axis=(1, 2, 3))
                   for p in (np.full(10, i) for i in range(10))]  # fmt: skip
    assert (np.min(differences, axis=0) < 1e-5).all()


def trained_images(app: ImageApp, monkeypatch, **settings) -> list[np.ndarray]:
    """The images that two epochs of train steps see, in the order of the steps and micro-batches."""
    train = TrainConfig(num_epochs=2, **settings)
    batches = Batches(ROWS, 4, shuffle=True, seed=1)
    engine = Engine(app, train, RuntimeConfig(seed=7), 6, signature=batch_signature(batches))
    seen = []
    plain = app.training_batch

    def note(batch, draws):
        changed = plain(batch, draws)
        tf.py_function(lambda image: seen.append(image.numpy()), [changed["image"]], [])
        return changed

    monkeypatch.setattr(app, "training_batch", note)
    for epoch in range(2):
        for rows in batches.epoch(epoch):
            engine.run_step([rows])
    return seen


def test_each_step_draws_anew_and_a_second_run_repeats_it(monkeypatch):
    first = trained_images(built(), monkeypatch)
    again = trained_images(built(), monkeypatch)
    assert len(first) == 6
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    (tf_step_0, tf_step_3) = (image for image in (first[0], first[3]))
    assert not np.array_equal(tf_step_0, tf_step_3)


def test_a_little_training_fits_its_table():
    app = built(augment={"crop_padding": 0, "horizontal_flip": False}, train={"learning_rate": 0.02, "num_epochs": 25})
    trainer = Trainer(app, app.config.train.model_copy(update={"batch_size": 5}))
    trainer.fit(Batches(ROWS, 5, shuffle=True))
    metrics, _ = trainer.evaluate(Batches(ROWS, 10, shuffle=False))
    assert metrics["accuracy"] == 1.0


def test_mistakes_are_drawn_the_surest_first(app, tmp_path):
    logits = np.zeros((10, 3), np.float32)
    logits[np.arange(10), ROWS.columns["label_id"]] = 5
    assert app.write_pages(tmp_path, ROWS, {"logits": logits}) == []
    wrong = [6, 2]
    for row, certainty in zip(wrong, (9.0, 7.0), strict=True):
        logits[row] = np.eye(3)[(ROWS.columns["label_id"][row] + 1) % 3] * certainty
    (name,) = app.write_pages(tmp_path, ROWS, {"logits": logits})
    sheet = np.asarray(Image.open(tmp_path / name))
    tile = np.repeat(np.repeat(ROWS.columns["image"][6], 7, 0), 7, 1)
    np.testing.assert_array_equal(sheet[8:120, 8:120], tile)
    assert sheet.shape[1] == 2 * 120 + 8


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("model", {"network": "resnet8_cifra"}, "resnet8_cifra"),
        ("model", {"channel_mean": [0.5, 0.5, 0.5]}, "must be given together"),
        ("model", {"channel_mean": [0.5], "channel_std": [0.5]}, "must have model.channels=3 numbers"),
        ("model", {"channel_mean": [0.5] * 3, "channel_std": [0.5, 0.0, 0.5]}, "must be above 0"),
        ("model", {"channels": 2}, "channels"),
    ],
)
def test_settings_that_do_not_fit_are_refused(section, values, expected):
    with pytest.raises(ValueError, match=expected):
        ImageClassifyConfig(**{section: values})


def test_a_number_per_image_is_learnt_by_squared_error_and_never_mixed():
    app = make_app(data={"label_enumerate_values": ""})
    assert app.labels is None and app.output_columns() == ("predictions", "logits")
    with pytest.raises(ConfigError, match="mixup_alpha needs"):
        make_app(data={"label_enumerate_values": ""}, augment={"mixup_alpha": 0.2})


@pytest.mark.slow
def test_fashion_mnist_with_one_command(repository, shared_data, tmp_path, monkeypatch):
    from appzoo.cli.main import main

    monkeypatch.chdir(shared_data / "fashion_mnist")
    config = repository / "appzoo" / "image_classify" / "configs" / "fashion_mnist.yaml"
    sets = {"checkpoint_dir": tmp_path / "run", "train.num_epochs": 1}
    assert main(["train", f"--config={config}", *(f"--set={name}={value}" for name, value in sets.items())]) == 0
    best = json.loads((tmp_path / "run" / "evaluation.json").read_text())["best"]
    assert best["accuracy"] > 0.8
