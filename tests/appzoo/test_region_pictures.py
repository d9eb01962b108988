"""Regions of pictures: cells and boxes against sums by hand, computed once, the same in a table and in a request."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from appzoo.region_pictures import PictureRegions, RegionNetwork, cells_of
from appzoo.vision_language_settings import VisionLanguageConfig
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.errors import ConfigError, ModelError
from easytransfer.image.statistics import ChannelStatistics
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.names import named

SIDE = 32
STATISTICS = ChannelStatistics((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture(scope="module")
def body() -> CnnBackbone:
    return CnnBackbone(named("resnet8_cifar").scaled(0.25), seed=3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three pictures of other sizes, a copy of the first, and a table of them with boxes."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, shape in (("a", (40, 30)), ("b", (32, 32)), ("c", (20, 50))):
        values = random.integers(0, 256, [*shape, 3]).astype(np.uint8)
        Image.fromarray(values).save(folder / f"{name}.png")
    (folder / "d.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    boxes = {"a": "0,0,1,1,0.25,0.5,0.5,1", "b": "0,0,0.5,0.5", "c": "0,0,1,1,0,0,1,1,0,0,1,1", "d": "0,0,1,1"}
    lines = [f"{name}.png\t{boxes.get(name, boxes['b'])}" for name in ("a", "b", "broken", "c", "d")]
    (folder / "rows.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def encoded(part: PictureRegions, folder):
    bad = BadRows("skip")
    schema = parse_schema("image:image:1,boxes:float:*")
    table = open_table(str(folder / "rows.tsv"), schema=schema, bad_rows=bad)
    (chunk,) = table.chunks()
    found = part.encode(chunk).columns
    return {name: column for name, column in found.items()}, chunk.accepted, bad


def images(rows: int = 2) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, [rows, SIDE, SIDE, 3]).astype(np.uint8)


def map_of(network: RegionNetwork, pixels: np.ndarray) -> np.ndarray:
    normal = (pixels.astype(np.float32) / 255 - 0.5) / 0.25
    return network.network.feature_maps(tf.constant(normal))[network.stride].numpy()


def test_cells_are_means_of_the_deepest_map(body):
    network = RegionNetwork(body, STATISTICS, SIDE, 4)
    assert network.stride == 4 and network.width == body.config.stage_widths[-1]
    pixels = images()
    deepest, found = map_of(network, pixels), network.cells(tf.constant(pixels)).numpy()
    for row in range(4):
        for column in range(4):
            cell = deepest[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean(axis=(1, 2))
            np.testing.assert_allclose(found[:, 4 * row + column], cell, atol=1e-5)
    np.testing.assert_allclose(cells_of(2), [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]])


def interpolated(values: np.ndarray, y: float, x: float) -> np.ndarray:
    """Between the centres of [height, width, channels], which are at halves; beyond the border its value."""
    height, width = values.shape[:2]
    y, x = (np.clip(place - 0.5, 0, size - 1) for place, size in ((y, height), (x, width)))
    top, left = int(min(y, height - 2)), int(min(x, width - 2))
    down, right = y - top, x - left
    upper = values[top, left] * (1 - right) + values[top, left + 1] * right
    lower = values[top + 1, left] * (1 - right) + values[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def test_boxes_are_means_of_places_between_which_the_map_is_interpolated(body):
    network = RegionNetwork(body, STATISTICS, SIDE, None)
    pixels = images()
    boxes = np.float32([[[0, 0, 1, 1], [0.1, 0.2, 0.45, 0.9]], [[0.9, 0, 1, 0.05], [0.25, 0.25, 0.5, 0.5]]])
    deepest, found = map_of(network, pixels), network.in_boxes(tf.constant(pixels), tf.constant(boxes)).numpy()
    side = deepest.shape[1]
    for image in range(2):
        for region in range(2):
            x1, y1, x2, y2 = boxes[image, region] * side
            steps = (np.arange(4) + 0.5) / 4
            places = [(y1 + (y2 - y1) * a, x1 + (x2 - x1) * b) for a in steps for b in steps]
            wanted = np.mean([interpolated(deepest[image], *place) for place in places], axis=0)
            np.testing.assert_allclose(found[image, region], wanted, atol=1e-4)


def test_a_table_and_a_request_give_the_same_and_each_picture_is_computed_once(body, pictures, tmp_path):
    network = RegionNetwork(body, STATISTICS, SIDE, 2)
    part = PictureRegions("image", network, 4, cache=str(tmp_path / "kept"))
    found, accepted, bad = encoded(part, pictures)
    assert accepted.tolist() == [True, True, False, True, True] and sum(bad.reasons.values()) == 1
    files = list((tmp_path / "kept").rglob("*.npy"))
    assert len(files) == 3
    np.testing.assert_array_equal(found["features"][0], found["features"][4])
    assert found["image_id"][0] == found["image_id"][4] != found["image_id"][1]
    raw = {"image_bytes": tf.constant([(pictures / f"{name}.png").read_bytes() for name in "abc"])}
    served = part.from_request(raw)
    for name in ("features", "boxes", "region_mask"):
        np.testing.assert_allclose(served[name], found[name][[0, 1, 3]], atol=1e-5)
    assert set(part.serving_specs()) == {"image_bytes"} == set(part.samples())
    assert part.from_request({"image_bytes": tf.constant([], tf.string)})["features"].shape == [0, 4, network.width]
    # What is kept is used, as long as it is whole; of another network it is not.
    files[0].write_bytes(b"damaged")
    np.save(files[1], np.load(files[1]) + 1)
    again = encoded(part, pictures)[0]["features"][[0, 1, 3]]
    changed = np.abs(again - found["features"][[0, 1, 3]]).max(axis=(1, 2))
    assert sorted(changed.round(3).tolist()) == [0, 0, 1]
    other = PictureRegions("image", RegionNetwork(body, STATISTICS, SIDE, 4), 16, cache=str(tmp_path / "kept"))
    encoded(other, pictures)
    assert len(list((tmp_path / "kept").rglob("*.npy"))) == 6


def test_boxes_of_a_column_and_of_a_request(body, pictures):
    part = PictureRegions("image", RegionNetwork(body, STATISTICS, SIDE, None), 2, box_column="boxes")
    found, accepted, bad = encoded(part, pictures)
    assert accepted.tolist() == [True, True, False, False, True]
    assert "wrong regions" in bad.reasons  # three boxes
    assert found["region_mask"].tolist() == [[1, 1], [1, 0], [0, 0], [0, 0], [1, 0]]
    raw = {
        "image_bytes": tf.constant([(pictures / "a.png").read_bytes(), (pictures / "b.png").read_bytes()]),
        "boxes": tf.constant([[[0, 0, 30, 40], [7.5, 20, 15, 40]], [[0, 0, 16, 16], [9, 9, 9, 9]]], tf.float32),
        "image_size": tf.constant([[40, 30], [32, 32]]),
        "num_regions": tf.constant([2, 1]),
    }
    served = part.from_request(raw)
    for name in ("features", "boxes", "region_mask"):
        np.testing.assert_allclose(served[name], found[name][:2], atol=1e-5)
    assert part.samples().keys() == part.serving_specs().keys() == raw.keys()


def test_a_network_is_stored_with_a_run(body, pictures, tmp_path):
    zoo = tmp_path / "zoo-model"
    body.save_to_preset(zoo, facts={"input": {"channel_mean": [0.5] * 3, "channel_std": [0.25] * 3}})
    settings = {"region_source": "grid", "region_network": str(zoo), "region_grid": 2, "region_image_size": SIDE}
    job = VisionLanguageConfig(model=settings)
    network = RegionNetwork.of_job(job, None)
    part = PictureRegions("image", network, 4)
    assert part.read_files() == [str(zoo)]
    run = tmp_path / "run"
    run.mkdir()
    part.save_assets(run)
    assert {path.name for path in run.iterdir()} == set(part.asset_files)
    stored = RegionNetwork.of_job(job, run)
    assert stored.digest == network.digest and not stored.network.trainable_variables
    pixels = tf.constant(images())
    np.testing.assert_array_equal(stored.cells(pixels), network.cells(pixels))
    body.save_to_preset(tmp_path / "silent")
    with pytest.raises(ConfigError, match="how pictures are normalised"):
        RegionNetwork.of_job(VisionLanguageConfig(model=settings | {"region_network": str(tmp_path / "silent")}), None)


def test_networks_and_sizes_that_do_not_fit_are_refused(body):
    with pytest.raises(ConfigError, match="a multiple of 12"):
        RegionNetwork(body, STATISTICS, SIDE, 3)
    dense = SimpleNamespace(trainable=True, config=SimpleNamespace(stage_strides=list, family="mlp"))
    with pytest.raises(ModelError, match="family mlp give no feature maps"):
        RegionNetwork(dense, STATISTICS, SIDE, None)
