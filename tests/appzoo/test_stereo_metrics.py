"""What is measured of disparities, and the files they are written to, against hand-worked cases and a plain program."""

import io
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from appzoo.stereo_matching import metrics, target, writers
from appzoo.stereo_matching.colour import coloured
from appzoo.stereo_matching.metrics import StereoEvaluator, background_interpolated, d1_outliers
from easytransfer.errors import DataError
from easytransfer.image.files import data_text
from easytransfer.image.maps import decode_map, encode_png

HEIGHT, WIDTH = 12, 40


@pytest.mark.parametrize(
    ("error", "true", "outlier", "inclusive"),
    [(3.0, 20, False, True), (3.01, 20, True, True), (3.01, 100, False, False), (5.01, 100, True, True)],
)
def test_outliers_of_hand_worked_cases(error, true, outlier, inclusive):
    found = np.array([true + error], np.float64), np.array([true], np.float64)
    assert d1_outliers(*found).tolist() == [outlier]
    assert d1_outliers(*found, inclusive=True).tolist() == [inclusive]


def test_missing_pixels_are_interpolated_as_the_background():
    given = np.array([[0, 4, 0, 0, 2, 0], [0, 0, 0, 0, 0, 0], [9, 0, 7, 0, 0, 8]], np.float32)
    wanted = [[4, 4, 2, 2, 2, 2], [4, 4, 2, 2, 2, 2], [9, 7, 7, 7, 7, 8]]
    np.testing.assert_array_equal(background_interpolated(given), wanted)
    np.testing.assert_array_equal(background_interpolated(np.zeros((2, 3))), np.zeros((2, 3)))


def random_batch(random, rows):
    """Pairs filled up to one size, with unknown pixels, pixels without a prediction, and all kinds of errors."""
    size = np.stack([random.integers(8, HEIGHT + 1, rows), random.integers(30, WIDTH + 1, rows)], axis=1)
    inside = np.zeros((rows, HEIGHT, WIDTH), bool)
    for row, (height, width) in enumerate(size):
        inside[row, HEIGHT - height :, :width] = True
    shape = inside.shape
    truth = np.where(inside & (random.random(shape) < 0.7), random.uniform(0.5, 90, shape), 0).astype(np.float32)
    found = np.maximum(truth + random.normal(0, 4, shape), 0.01)
    found = np.where(inside & (random.random(shape) < 0.9), found, 0).astype(np.float32)
    visible, objects = (random.random((2, *shape)) < 0.6).astype(np.uint8) * (truth > 0)
    batch = {"size": size, "truth": truth, "truth_visible": visible, "truth_object": objects}
    hidden = (random.random(shape) < 0.4).astype(np.uint8)
    return batch, {"disparity": found, "occlusion": hidden, "photometric": random.random(rows)}


def by_kitti(batch, outputs, pixels):
    """Counts of the rule of the benchmark, pixel by pixel: known, outliers, sum of errors, above one pixel."""
    counts = np.zeros(4)
    for row, (height, width) in enumerate(batch["size"]):
        part = outputs["disparity"][row, HEIGHT - height :, :width]
        filled = np.zeros((HEIGHT, WIDTH))
        filled[HEIGHT - height :, :width] = background_interpolated(part)
        for y, x in np.argwhere(pixels[row] & (batch["truth"][row] > 0)):
            true = float(batch["truth"][row, y, x])
            error = abs(float(filled[y, x]) - true)
            counts += [1, error > 3 and error / true > 0.05, error, error > 1]
    return counts


def test_metrics_are_those_of_the_benchmark_on_random_maps():
    random = np.random.default_rng(0)
    parts = [random_batch(random, 5) for _ in range(2)]
    whole, one, other = (StereoEvaluator(True, True, True) for _ in range(3))
    for part, evaluator in zip(parts, (one, other), strict=True):
        evaluator.update(*part)
        whole.update(*part)
    one.merge(other.state())
    found = whole.result()
    assert one.result() == pytest.approx(found)
    batch, outputs = ({name: np.concatenate([p[i][name] for p in parts]) for name in parts[0][i]} for i in (0, 1))
    visible, objects, everything = batch["truth_visible"] > 0, batch["truth_object"] > 0, batch["truth"] >= 0
    for name, pixels in {
        "all": everything,
        "bg": ~objects,
        "fg": objects,
        "noc_all": visible,
        "noc_fg": visible & objects,
        "occ_all": ~visible,
    }.items():
        known, outliers, total, bad = by_kitti(batch, outputs, pixels)
        group, _, kind = name.rpartition("_")
        before = f"{group}_" if group else ""
        assert found[f"{before}d1_{kind}_error"] == pytest.approx(outliers / known, abs=1e-12)
        if kind == "all":
            assert found[f"{before}epe"] == pytest.approx(total / known, abs=1e-9)
            assert found[f"{before}bad1_error"] == pytest.approx(bad / known, abs=1e-12)
    truth = batch["truth"] > 0
    assert found["density"] == pytest.approx((truth & (outputs["disparity"] > 0)).sum() / truth.sum())
    assert 0.8 < found["density"] < 1
    hidden, wanted = outputs["occlusion"][truth] > 0, ~visible[truth]
    assert found["mask_precision"] == pytest.approx((hidden & wanted).sum() / hidden.sum())
    assert found["mask_recall"] == pytest.approx((hidden & wanted).sum() / wanted.sum())
    assert found["mask_iou"] == pytest.approx((hidden & wanted).sum() / (hidden | wanted).sum())
    assert found["photometric_error"] == pytest.approx(outputs["photometric"].mean())


def test_d1_per_image_is_a_mean_over_images():
    truth = np.full((2, HEIGHT, WIDTH), 20, np.float32)
    truth[1, 1:] = 0
    disparity = np.where(np.arange(HEIGHT)[:, None] < 3, truth + 3, truth).astype(np.float32)
    disparity[1] = 23
    batch = {"size": np.array([[HEIGHT, WIDTH]] * 2), "truth": truth}
    outputs = {"disparity": disparity, "occlusion": np.zeros_like(truth, np.uint8), "photometric": np.zeros(2)}
    papers, kitti = (StereoEvaluator(True, False, False, per_image) for per_image in (True, False))
    for evaluator in (papers, kitti):
        evaluator.update(batch, outputs)
    assert papers.result()["d1_all_error"] == pytest.approx((3 / 12 + 1) / 2)
    assert kitti.result()["d1_all_error"] == 0


def test_a_table_without_true_disparities_is_measured_by_its_images():
    evaluator = StereoEvaluator(False, False, False)
    evaluator.update({}, {"photometric": np.array([0.1, 0.3])})
    assert evaluator.main_metric == "photometric_error" and not evaluator.higher_is_better
    assert evaluator.result() == {"photometric_error": pytest.approx(0.2)}


# Files ---------------------------------------------------------------------------------------------------------


def test_png_round_trip_is_within_a_256th_and_never_unknown():
    disparity = np.random.default_rng(1).uniform(0, 192, (9, 11)).astype(np.float32)
    disparity[0, 0] = 0.0
    stored = decode_map(encode_png(target.fixed_point(disparity)), 10**6)
    # As Pillow reads the file, which knows nothing of disparities.
    picture = np.asarray(Image.open(io.BytesIO(encode_png(target.fixed_point(disparity)))))
    np.testing.assert_array_equal(stored, picture)
    back = stored.astype(np.float64) / 256
    assert stored.min() >= 1 and (np.abs(back - disparity) <= 1 / 256).all() and (back[1:] <= disparity[1:]).all()
    assert target.fixed_point(np.full((1, 1), 300.0, np.float32))[0, 0] == 65535


def test_depth_is_focal_length_times_baseline_by_disparity():
    assert target.depth_of(np.float32([2, 0]), 720.0, 0.5).tolist() == [180.0, 720 * 0.5 * 256]
    np.testing.assert_allclose(target.depth_of(tf.constant([2.0, 0.0]), 720.0, 0.5), [180.0, 92160.0])


def test_colours_go_from_dark_blue_to_dark_red():
    found = coloured(tf.constant([0.0, 30.0, 60.0, 99.0, 5.0]), 60.0).numpy().tolist()
    assert found[:4] == [[0, 0, 96], [96, 255, 128], [128, 0, 0], [128, 0, 0]]
    # Half way from the first to the second of six steps.
    assert found[4] == [0, 32, 176]


def a_row(name):
    return {
        "name": name,
        "disparity_png": data_text(encode_png(np.full((2, 3), 512, np.uint16))),
        "mean_disparity": 2.0,
    }


def test_an_archive_has_the_maps_under_the_names_of_their_pairs(tmp_path):
    for path in (tmp_path / "one.zip", tmp_path / "other.zip"):
        writers.write_archive(path, iter([a_row("000000_10"), a_row("000001_10")]))
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["disp_0/000000_10.png", "disp_0/000001_10.png"]
        assert (decode_map(archive.read("disp_0/000001_10.png"), 100) == 512).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [([a_row("a"), a_row("a")], "two pairs have the name 'a'"), ([{"name": "a"}], "no maps or no names")],
)
def test_an_archive_of_no_use_is_refused(rows, message, tmp_path):
    with pytest.raises(DataError, match=message):
        writers.write_archive(tmp_path / "x.zip", iter(rows))


def test_errors_of_every_limit_are_named():
    assert [name for name in StereoEvaluator(True, False, False).result() if "bad" in name] == [
        f"bad{limit}_error" for limit in metrics.BAD
    ]
