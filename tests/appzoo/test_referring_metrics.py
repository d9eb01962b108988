"""Overlap of boxes, the loss over regions and the metric against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from appzoo.drawn_scenes import FEATURE_SIZE
from appzoo.referring_expression.metrics import ReferringEvaluator, area_overlaps, overlaps
from appzoo.referring_expression.readers import read_scenes
from appzoo.referring_expression.target import RegionTarget, masked
from easytransfer.train.step import EVALUATION


def pixels_of(box):
    x, y, width, height = box
    return {(i, j) for i in range(x, x + width) for j in range(y, y + height)}


def test_overlaps_count_pixels():
    random = np.random.default_rng(0)
    boxes = np.concatenate([random.integers(0, 8, [60, 2]), random.integers(1, 9, [60, 2])], axis=1)
    for box in boxes[:10]:
        mine = pixels_of(box)
        oracle = [len(mine & pixels_of(each)) / len(mine | pixels_of(each)) for each in boxes]
        assert overlaps(boxes, box) == pytest.approx(oracle, abs=1e-12)


@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        ([0, 0, 10, 10], 1.0),
        # One column further: 9 x 10 of 11 x 10.
        ([1, 0, 10, 10], 90 / 110),
        # Half of it: 50 of 100, which is not more than one half.
        ([0, 0, 5, 10], 0.5),
        ([10, 0, 5, 5], 0.0),
        # The last column alone.
        ([9, 0, 10, 10], 10 / 190),
    ],
)
def test_overlaps_worked_by_hand(other, wanted):
    assert overlaps(np.float64([other]), np.float64([0, 0, 10, 10])) == pytest.approx([wanted])


def test_overlaps_of_areas():
    boxes = np.float64([[0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5], [0.5, 0.5, 1, 1], [0, 0, 1, 1]])
    assert area_overlaps(boxes, boxes[0]) == pytest.approx([1, 1 / 3, 0, 0.25])


def batch_of(found):
    every = np.empty(len(found), object)
    every[:] = found
    return {"region_overlaps": every}


def test_accuracy_needs_more_than_one_half_and_looks_at_real_regions():
    batch = batch_of([[0.9, 0.1], [0.5, 0.2, 0.1], [0.2, 0.51], [0.3]])
    logits = np.float32([[2, 1, 9], [3, 1, 1], [0, 1, 5], [7, 8, 9]])
    whole = ReferringEvaluator()
    whole.update(batch, {"region_logits": logits})
    assert whole.result() == {"accuracy": 0.5, "reachable": 0.5}
    assert whole.report() == {"rows": 4, "unreachable": 2}
    merged = ReferringEvaluator()
    for part in ([3, 0], [1, 2]):
        worker = ReferringEvaluator()
        worker.update({"region_overlaps": batch["region_overlaps"][part]}, {"region_logits": logits[part]})
        merged.merge(worker.state())
    assert merged.result() == whole.result()
    assert np.isnan(ReferringEvaluator().result()["accuracy"])


def test_the_loss_is_over_real_regions_of_rows_that_have_a_target():
    logits = np.float32([[1, 2, 5], [0, 1, 2], [3, 1, 0]])
    mask = np.int32([[1, 1, 0], [1, 1, 1], [1, 1, 1]])
    batch = {"target_region": tf.constant([0, 2, -1]), "example_weight": tf.constant([1.0, 1.0, 1.0])}
    outputs = {"region_logits": masked(tf.constant(logits), tf.constant(mask))}
    total, weight = RegionTarget("target_box", "shares").losses(batch, outputs, EVALUATION)["loss"]
    oracle = np.log(np.exp([1, 2]).sum()) - 1 + np.log(np.exp([0, 1, 2]).sum()) - 2
    assert float(total) == pytest.approx(oracle, rel=1e-6) and float(weight) == 2


def test_the_target_is_the_region_that_overlaps_most():
    shares = np.float64([[0, 0, 0.5, 0.5], [0.1, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    in_pixels = RegionTarget("box", "xywh")
    found = in_pixels._overlaps(shares, [10, 0, 40, 100], (200, 100))
    # 40 x 100 of 50 x 100; all of it; nothing.
    assert found == pytest.approx([0.8, 1, 0])
    for cell, size, why in (
        ([0, 0, 5], (9, 9), "not 4 numbers"),
        ("abc", (9, 9), "not 4 numbers"),
        ([0, 0, 0, 5], (9, 9), "not x y width height"),
        ([0, 0, 5, float("nan")], (9, 9), "not x y width height"),
        ([0, 0, 5, 5], None, "unknown image size"),
    ):
        with pytest.raises(ValueError, match=why):
            in_pixels._overlaps(shares, cell, size)
    with pytest.raises(ValueError, match="not x1 y1 x2 y2 from 0 to 1"):
        RegionTarget("box", "shares")._overlaps(shares, [0, 0, 50, 50], None)


def test_drawn_expressions_mean_one_object(tmp_path):
    path = tmp_path / "some.expressions"
    path.write_text('{"seed": 5, "rows": 60, "objects": 4, "kinds": 4, "noise": 0}', encoding="utf-8")
    vectors: dict[str, np.ndarray] = {}
    for row in read_scenes(str(path)):
        boxes, features = np.reshape(row["boxes"], [-1, 4]), np.reshape(row["features"], [-1, FEATURE_SIZE])
        (place,) = np.flatnonzero((boxes == row["target_box"]).all(axis=1))
        # The same expression always means the same kind of object.
        assert np.array_equal(vectors.setdefault(row["expression"], features[place]), features[place])
    assert len(vectors) > 8
