"""Losses of maps and lanes read off them, against the formulas of the paper and code in NumPy and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from appzoo.lane_detection.config import LaneSettings
from appzoo.lane_detection.decoding import (
    blurred,
    faint_lanes,
    lanes_of,
    map_rows,
    read_off,
    submitted,
    without_gaps,
)
from appzoo.lane_detection.losses import dice, existence, pixel_counts, row_losses, weighted_cross_entropy

RANDOM = np.random.default_rng(11)
TUSIMPLE = LaneSettings()
CULANE = LaneSettings(
    image_size=[288, 800],
    original_size=[590, 1640],
    cut_height=240,
    slots=4,
    benchmark="culane",
    row_step=20,
    row_count=18,
)
SMALL = {"image_size": [48, 64], "original_size": [90, 128], "cut_height": 20, "slots": 4}


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# Losses ------------------------------------------------------------------------------------------------------


def case(rows=5):
    mask = RANDOM.integers(0, 5, (rows, 8, 12)).astype(np.uint8)
    mask[RANDOM.random(mask.shape) < 0.5] = 0
    mask[:, :2, :3] = 255
    return mask, RANDOM.normal(size=(rows, 8, 12, 5)).astype(np.float32)


def test_weighted_cross_entropy_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    mask, logits = case()
    total, weight = weighted_cross_entropy(mask, logits, 0.4)
    weights = torch.tensor([0.4, 1, 1, 1, 1])
    labels, scores = torch.tensor(mask.astype(np.int64)), torch.tensor(np.moveaxis(logits, -1, 1))
    expected = torch.nn.functional.nll_loss(torch.log_softmax(scores, 1), labels, weights, ignore_index=255)
    assert float(tf.reduce_sum(total) / tf.reduce_sum(weight)) == pytest.approx(float(expected), rel=1e-6)
    np.testing.assert_allclose(weight, np.where(mask == 0, 0.4, mask != 255).sum((1, 2)), rtol=1e-6)


def test_dice_is_the_formula_of_the_sheet():
    mask, logits = case()
    p, t = softmax(logits.astype(np.float64))[..., 1:], np.eye(256)[mask][..., 1:5]
    axes = (1, 2, 3)
    expected = 1 - 2 * (p * t).sum(axes) / ((p**2).sum(axes) + (t**2).sum(axes) + 0.002)
    np.testing.assert_allclose(dice(mask, logits), expected, rtol=1e-5)


def test_existence_is_that_of_pytorch_with_one_sigmoid_or_two():
    torch = pytest.importorskip("torch")
    exist = RANDOM.integers(0, 2, (6, 4)).astype(np.float32)
    logits = RANDOM.normal(size=(6, 4)).astype(np.float32)
    loss = torch.nn.BCEWithLogitsLoss()
    for double in (False, True):
        scores = torch.sigmoid(torch.tensor(logits)) if double else torch.tensor(logits)
        found = tf.reduce_mean(existence(exist, logits, double))
        assert float(found) == pytest.approx(float(loss(scores, torch.tensor(exist))), rel=1e-6)


@pytest.mark.parametrize("kind", ["cross_entropy", "dice"])
def test_losses_of_parts_add_up_to_those_of_the_whole(kind):
    """Each loss by its own divisor, whatever batches or workers the rows are in."""
    mask, logits = case(6)
    exist, exist_logits = np.ones([6, 4], np.float32), RANDOM.normal(size=(6, 4)).astype(np.float32)
    settings = LaneSettings(**SMALL, seg_loss=kind)
    whole = row_losses(mask, exist, logits, exist_logits, settings)
    for rows in (slice(0, 2), slice(2, 6)):
        part = row_losses(mask[rows], exist[rows], logits[rows], exist_logits[rows], settings)
        for name in whole:
            np.testing.assert_allclose(part[name], whole[name][rows], rtol=1e-6)


def test_pixels_are_counted_by_lane():
    mask, logits = case()
    predicted, known = logits.argmax(-1), mask != 255
    for slot in range(1, 5):
        ours, theirs = (predicted == slot) & known, (mask == slot) & known
        expected = np.stack([(ours & theirs).sum((1, 2)), (ours | theirs).sum((1, 2))], -1)
        np.testing.assert_array_equal(pixel_counts(mask, logits)[:, slot - 1], expected)


# Reading off -------------------------------------------------------------------------------------------------


def test_the_blur_repeats_the_border():
    maps = RANDOM.random((2, 12, 15, 3)).astype(np.float32)
    padded = np.pad(maps.astype(np.float64), [(0, 0), (4, 4), (4, 4), (0, 0)], "edge")
    expected = sum(padded[:, i : i + 12, j : j + 15] for i in range(9) for j in range(9)) / 81
    np.testing.assert_allclose(blurred(tf.constant(maps)), expected, rtol=1e-5)


def culane_lanes(probability, exist, s):
    """The rules of CULane for one image, lane by lane and row by row: x by y."""
    found = []
    height, width = s.image_size
    for lane in range(s.slots):
        points = {}
        for i in range(s.row_count):
            line = probability[round(height - i * 20 / (s.original_size[0] - s.cut_height) * height) - 1, :, lane]
            if line.max() > 0.3:
                column = int(line.argmax()) + 1
                points[round(s.original_size[0] - 20 * i - 1)] = round(column * s.original_size[1] / width - 1)
        found.append(points if len(points) >= 2 and exist[lane] > 0.5 else {})
    return found


def tusimple_lanes(probability, s):
    """The rules of TuSimple before gaps are filled."""
    found = []
    height, width = s.image_size
    kept = s.original_size[0] - s.cut_height
    for lane in range(s.slots):
        points = {}
        for i in range(s.row_count):
            line = probability[int((kept - 10 - i * 10) * height / kept), :, lane]
            x = int(line.argmax() / width * s.original_size[1])
            if line.max() > 0.6 and x > 0:
                points[s.original_size[0] - 10 - 10 * i] = x
        found.append(points if len(points) >= 2 else {})
    return found


def bumps(settings, rows=2):
    """Logits with a ridge for each lane, some faint, and noise."""
    height, width = settings.image_size
    y, x = np.mgrid[:height, :width]
    logits = RANDOM.normal(0, 0.5, (rows, height, width, settings.slots + 1))
    for row in range(rows):
        for slot in range(settings.slots):
            centre = RANDOM.uniform(0, width) + RANDOM.uniform(-1, 1) * (y - height)
            reach = RANDOM.uniform(0.5, 9) * np.where(y > RANDOM.uniform(0, height), 1, 0.2)
            logits[row, ..., slot + 1] += reach * np.exp(-(((x - centre) / RANDOM.uniform(4, 12)) ** 2))
    return logits.astype(np.float32)


@pytest.mark.parametrize("settings", [TUSIMPLE, CULANE], ids=["tusimple", "culane"])
def test_lanes_are_read_off_by_the_rules_of_the_released_code(settings):
    logits, exist_logits = bumps(settings), RANDOM.normal(0, 2, (2, settings.slots)).astype(np.float32)
    outputs = {name: value.numpy() for name, value in read_off(logits, exist_logits, settings).items()}
    maps = blurred(tf.constant(softmax(logits)[..., 1:].astype(np.float32))).numpy()
    exist = 1 / (1 + np.exp(-exist_logits))
    np.testing.assert_allclose(outputs["exist"], exist, rtol=1e-5)
    seen = 0
    for row in range(2):
        args = (maps[row], exist[row], settings) if settings.benchmark == "culane" else (maps[row], settings)
        expected = (culane_lanes if settings.benchmark == "culane" else tusimple_lanes)(*args)
        for slot, points in enumerate(expected):
            x = outputs["lane_x"][row, slot]
            found = {y: int(v) for y, v in zip(settings.rows, x, strict=True) if v >= 0}
            assert found.keys() == points.keys()
            # A flat top may give the first of its columns, which is a pixel of the map aside.
            step = settings.original_size[1] / settings.image_size[1]
            assert all(abs(found[y] - points[y]) <= step + 1 for y in points)
            seen += len(points)
        np.testing.assert_allclose(
            outputs["row_score"][row], np.moveaxis(maps[row][map_rows(settings)].max(1), 0, 1), rtol=1e-5
        )
    assert 20 < seen < 2 * settings.slots * settings.row_count and (outputs["lane_x"] == -2).any()


def test_rows_are_those_of_the_benchmarks():
    assert TUSIMPLE.rows == list(range(160, 720, 10)) and CULANE.rows == list(range(249, 590, 20))
    assert map_rows(CULANE)[-1] == 287 and map_rows(TUSIMPLE)[0] == 0


def test_gaps_are_filled_between_points_only():
    lane = np.float32([[-2, 100, -2, -2, -2, 140, -2, 160, -2], [-2] * 9])
    expected = [[-2, 100, 110, 120, 130, 140, 150, 160, -2], [-2] * 9]
    np.testing.assert_array_equal(without_gaps(lane), expected)
    assert lane[0, 2] == -2, "a copy"
    np.testing.assert_array_equal(without_gaps(np.float32([10, -2, 15])), [10, 12, 15])  # cut to whole pixels


def test_lanes_to_hand_in():
    x = np.float32([[-2, 100, -2, 120], [-2] * 4, [7, -2, -2, -2]])
    np.testing.assert_array_equal(submitted(x), [[-2, 100, 110, 120], [7, -2, -2, -2]])
    np.testing.assert_array_equal(submitted(x[1:2]), [[-2] * 4])
    lanes = lanes_of(x, [10, 20, 30, 40])
    assert [lane.tolist() for lane in lanes] == [[[100, 20], [120, 40]]]


@pytest.mark.parametrize(
    ("size", "threshold", "found"),
    [
        # The released sizes: lanes of 7.5 pixels. Half of them: 3.75 of 9 pixels, 0.42 of the surest probability.
        ([368, 640], None, True),
        ([176, 320], None, False),
        ([176, 320], 0.4, True),
        ([176, 320], 0.43, False),
    ],
)
def test_lanes_too_thin_to_be_read_off_are_told(size, threshold, found):
    settings = LaneSettings(image_size=size, threshold=threshold)
    warning = faint_lanes(settings)
    assert (warning is None) is found
    if not found:
        assert "line_width=15" in warning and "3.8 pixels" in warning and "below 0.42" in warning
    # A sure, upright lane of as many whole pixels, or one more where that is what the width of a pixel gives.
    pixels = int(15 * size[1] / 1280)
    logits = np.zeros([1, *size, 7], np.float32)
    logits[..., 0] = 40
    logits[:, :, 100 : 100 + pixels, 3] = 80
    lane_x = read_off(tf.constant(logits), tf.zeros([1, 6]), settings)["lane_x"].numpy()
    if found and threshold is None:
        assert (lane_x[0, 2] >= 0).all()
    if not found:
        assert (lane_x < 0).all()


def test_a_flat_top_that_rounding_has_bent_is_read_off_at_its_first_column():
    """A sure lane has probability 1, and one unit in the last place below it: both are the same step."""
    settings = LaneSettings(**SMALL)
    logits = np.full([1, 48, 64, 5], -40.0, np.float32)
    logits[..., 0] = 0
    logits[0, :, 10:41, 1] = 40
    logits[0, :, 10:24, 1] = 16.63  # 1 - 2^-24 in float32
    top = blurred(tf.nn.softmax(logits)[..., 1:])[0, 24, :, 0].numpy()
    assert top[14] < 1 == top[36] and 1 - top[14] < 1e-6
    found = read_off(tf.constant(logits), tf.constant([[9.0, -9, -9, -9]]), settings)["lane_x"].numpy()[0, 0]
    assert set(found[found >= 0]) == {14 / 64 * 128}
