"""Re-identification as an application: augmentation, batches of persons, pictures, signatures."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from appzoo.person_reid.augment import erased, jittered, random_move
from appzoo.person_reid.baseline import PersonReid
from appzoo.person_reid.config import BaselineConfig, ReidSettings
from appzoo.person_reid.pictures import framed, write_rankings
from appzoo.person_reid.ranking import Persons
from easytransfer.config.job import TrainConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.errors import ConfigError, DataError
from easytransfer.layers.draws import RowDraws
from easytransfer.train.step import EVALUATION

SIZE = (32, 16)


def draws(rows: int, seed: int = 1) -> RowDraws:
    return RowDraws(tf.constant([seed, 2]), tf.constant(rows))


def images_of(rows: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, *SIZE, 3)).astype(np.uint8)


def test_crops_are_mirrored_and_moved_by_whole_pixels_with_black_around_them():
    images, settings = images_of(64), ReidSettings(network="tiny", image_size=SIZE, crop_padding=3)
    maps = images[..., 0]
    change = random_move(draws(64), settings)
    moved, moved_maps = (
        change.image(tf.constant(images), method="nearest").numpy(),
        change.labels(tf.constant(maps), fill=0).numpy(),
    )
    np.testing.assert_array_equal(moved[..., 0], moved_maps)
    seen = set()
    for image, found in zip(images, moved, strict=True):
        padded = {m: np.pad(image[:, :: -1 if m else 1], ((3, 3), (3, 3), (0, 0))) for m in (False, True)}
        places = [
            (m, y, x)
            for m, whole in padded.items()
            for y in range(7)
            for x in range(7)
            if np.array_equal(whole[y : y + SIZE[0], x : x + SIZE[1]], found)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert {m for m, _, _ in seen} == {False, True} and len({(y, x) for _, y, x in seen}) > 20


def test_what_is_erased_is_the_mean_behind_the_normalisation():
    settings = ReidSettings(image_size=SIZE)
    images = images_of(400)
    found = erased(tf.constant(images), draws(400), settings).numpy()
    plain = images.astype(np.float32) / 255
    changed = np.abs(found - plain).max(-1) > 1e-5
    normalised = (found - np.float32(settings.mean)) / np.float32(settings.std)
    np.testing.assert_allclose(
        normalised[changed], np.broadcast_to(np.float32(settings.mean), (changed.sum(), 3)), atol=1e-5
    )
    shares = changed.mean(axis=(1, 2))
    assert 0.42 < (shares > 0).mean() < 0.58
    erased_ones = shares[shares > 0]
    assert erased_ones.min() >= 0.01 and erased_ones.max() <= 0.41


def test_jitter_of_strength_0_changes_nothing_and_turns_hue_by_an_angle():
    import colorsys

    images = images_of(3)
    np.testing.assert_allclose(jittered(tf.constant(images), draws(3), 0.0), images / 255, atol=1e-5)
    grey = np.full((50, 2, 2, 3), 100, np.uint8)
    found = jittered(tf.constant(grey), draws(50), 1.0).numpy()
    # Grey has no hue: only its brightness changes, by 0.5 to 1.5.
    np.testing.assert_allclose(found, np.broadcast_to(found[..., :1], found.shape), atol=1e-3)
    factors = found[:, 0, 0, 0] / (100 / 255)
    assert 0.49 < factors.min() < 0.7 and 1.3 < factors.max() < 1.51
    red = np.tile(np.uint8([200, 60, 60]), (200, 1, 1, 1))
    hues = [colorsys.rgb_to_hsv(*pixel)[0] for pixel in jittered(tf.constant(red), draws(200), 1.0).numpy()[:, 0, 0]]
    assert np.histogram(hues, bins=6, range=(0, 1))[0].min() > 10


def encoded(pids: list[int], roles: list[int] | None = None) -> EncodedTable:
    rows = len(pids)
    columns = {"image": images_of(rows), "pid": np.int32(pids), "camera": np.arange(rows, dtype=np.int32)}
    columns |= {"clothes": np.full(rows, -1, np.int32), "role": np.int32(roles or [0] * rows)}
    return EncodedTable(columns | {"order": np.arange(rows)})


def app_of(table: EncodedTable, **model) -> PersonReid:
    settings = ReidSettings(network="tiny", image_size=SIZE, images_per_identity=2, **model)
    app = PersonReid(BaselineConfig(model=settings, train={"batch_size": 4}))
    app.load_parts(None)
    app.on_train_table(table)
    return app


def test_rows_of_queries_junk_and_unknown_identities_have_no_part_in_the_losses():
    app = app_of(encoded([5, 5, 9, 9, -1, 7], [0, 0, 0, 0, 3, 1]))
    assert app.target.identities.tolist() == [5, 9]
    app.build_model()
    outputs = {"logits": tf.random.normal([6, 2]), "feature": tf.random.normal([6, 3])}
    weights = tf.ones([6])
    found = app.reid_losses(tf.constant([5, 5, 9, 9, -1, 7]), weights, outputs)
    assert float(found["identity"].weight) == 4 and float(found["triplet"].weight) == 4
    known = {name: value[:4] for name, value in outputs.items()}
    expected = app.reid_losses(tf.constant([5, 5, 9, 9]), weights[:4], known)
    for name, loss in expected.items():
        np.testing.assert_allclose(found[name].sum, loss.sum, rtol=1e-6)
    assert app.losses({}, {}, EVALUATION) == {}
    plan = app.sampler(encoded([5, 5, 9, 9, -1, 7], [0, 0, 0, 0, 3, 1])).plan(0, 4, 1)
    assert sorted(plan[0].tolist()) == [0, 1, 2, 3]


def test_what_is_no_training_table_is_refused():
    with pytest.raises(DataError, match="no row of the training table is for training: column 'split'"):
        app_of(encoded([5, 5], [1, 2]))
    with pytest.raises(ConfigError, match="the identity 0, which stands for distractors.*number the identities from 1"):
        app_of(encoded([0, 5]))


def test_batches_without_whole_identities_are_refused():
    for size in (6, 4, 63):
        with pytest.raises(ValueError, match=f"train.batch_size={size} must be a multiple of .*=4"):
            BaselineConfig(train={"batch_size": size})
    assert BaselineConfig(train={"batch_size": 8}).train.batch_size == 8
    assert isinstance(BaselineConfig().train, TrainConfig)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ({"network": "resnet51"}, "model.network"),
        ({"network": "densenet121_imagenet"}, "has no stages"),
        ({"channel_std": [1, 1]}, "must have 3 numbers"),
        ({"channel_std": [1, 1, 0]}, "above 0"),
        ({"erase_area": [0.4, 0.2]}, "smallest <= largest"),
    ],
)
def test_settings_that_fit_no_network_are_refused(model, text):
    with pytest.raises(ValueError, match=text):
        BaselineConfig(model=model)


def test_rankings_are_framed_green_where_they_are_right(tmp_path):
    vectors = np.float32([[1, 0], [0.9, 0.1], [0, 1]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    unknown = np.full(3, -1)
    gallery = Persons(vectors, np.array([8, 7, 7]), np.array([2, 2, 1]), unknown)
    queries = gallery.take(np.array([0]))
    queries.pid[:], queries.camera[:] = 7, 1
    images = np.full((3, 8, 4, 3), 90, np.uint8)
    rows = np.arange(3)
    assert write_rankings(tmp_path / "r.png", (queries, rows[:1]), (gallery, rows), images, "", 0)
    pixels = np.asarray(Image.open(tmp_path / "r.png"))
    # The image of the same camera is not ranked: red, then green.
    colours = [tuple(pixels[pixels.shape[0] // 6, x]) for x in range(pixels.shape[1])]
    assert colours.index((210, 0, 0)) < colours.index((0, 160, 0))
    assert (255, 255, 255) in colours
    none = queries.take(np.zeros(0, int))
    assert not write_rankings(tmp_path / "n.png", (none, rows[:0]), (gallery, rows), images, "", 0)
    assert framed(images[0], (1, 2, 3)).shape == (14, 10, 3)


def test_json_of_identities_is_small(tmp_path):
    app = app_of(encoded([5, 5, 9, 9]))
    app.save_assets(tmp_path)
    assert json.loads((tmp_path / "identities.json").read_text()) == {"pids": [5, 9]}
    assert json.loads((tmp_path / "network.json").read_text()) is None
