"""Metrics of lanes: hand cases, and independent computations by other means."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from appzoo.lane_detection import culane, tusimple
from appzoo.lane_detection.config import LaneSettings
from appzoo.lane_detection.drawing import drawn
from appzoo.lane_detection.metrics import lane_evaluator

RANDOM = np.random.default_rng(7)
ROWS = list(range(160, 720, 10))
SIZE = (590, 1640)


# TuSimple ----------------------------------------------------------------------------------------------------


def official(pred, gt, rows):
    """The rules of the sheet once more, in plain Python, with scikit-learn's line in place of the formula."""
    linear = pytest.importorskip("sklearn.linear_model").LinearRegression
    if len(gt) + 2 < len(pred):
        return 0.0, 0.0, 1.0
    best, matched, missed = [], 0, 0
    for lane in gt:
        seen = [(y, x) for x, y in zip(lane, rows, strict=True) if x >= 0]
        slope = 0.0
        if len(seen) > 1:
            ys, xs = np.array(seen, float).T
            slope = linear().fit(ys[:, None], xs).coef_[0]
        limit = 20 / np.cos(np.arctan(slope))
        shares = [
            np.mean(
                [abs((p if p >= 0 else -100) - (g if g >= 0 else -100)) < limit for p, g in zip(one, lane, strict=True)]
            )
            for one in pred
        ]
        best.append(max(shares, default=0.0))
        matched, missed = matched + (best[-1] >= 0.85), missed + (best[-1] < 0.85)
    total = sum(best)
    if len(gt) > 4:
        missed, total = max(missed - 1, 0), total - min(best)
    counted = max(min(4, len(gt)), 1)
    return total / counted, (len(pred) - matched) / len(pred) if pred else 0.0, missed / counted


def random_lane(rows, jitter=0.0, base=None):
    x = base if base is not None else RANDOM.uniform(0, 1280) + RANDOM.uniform(-1.5, 1.5) * (np.array(rows) - 400)
    found = np.rint(x + RANDOM.normal(0, jitter + 1e-9, len(rows)))
    found[(found < 0) | (found >= 1280) | (np.arange(len(rows)) < RANDOM.integers(0, 20))] = -2
    return found


def test_tusimple_is_the_rules_of_the_sheet_on_random_lanes():
    checked = set()
    for _ in range(150):
        true = [random_lane(ROWS) for _ in range(RANDOM.integers(0, 7))]
        near = [random_lane(ROWS, RANDOM.choice([1, 15, 40]), lane) for lane in true if RANDOM.random() < 0.8]
        predicted = near + [random_lane(ROWS) for _ in range(RANDOM.integers(0, 4))]
        found = tusimple.score_image(predicted, true, ROWS)
        expected = official(predicted, true, ROWS)
        assert (found.accuracy, found.fp, found.fn) == pytest.approx(expected, abs=1e-12)
        checked.add((len(true) > 4, found.fn > 0, found.fp > 0))
    assert len(checked) >= 7


def test_tusimple_hand_cases():
    lanes = [np.full(56, 200.0 * i + 100) for i in range(5)]
    perfect = tusimple.score_image(lanes, lanes, ROWS)
    assert (perfect.accuracy, perfect.fp, perfect.fn) == (1.0, 0.0, 0.0)
    # Of five lanes one may be missed.
    missed = tusimple.score_image(lanes[:4], lanes, ROWS)
    assert (missed.accuracy, missed.fp, missed.fn) == (1.0, 0.0, 0.0)
    two = tusimple.score_image(lanes[:3], lanes, ROWS)
    assert (two.accuracy, two.fp, two.fn) == (0.75, 0.0, 0.25)
    # An upright lane may be off by less than 20 pixels.
    assert tusimple.score_image([lanes[0] + 19.9], lanes[:1], ROWS).accuracy == 1
    assert tusimple.score_image([lanes[0] + 20], lanes[:1], ROWS).accuracy == 0
    assert tusimple.tolerance(np.array([0.0, 10, 20]), np.array([0.0, 10, 20])) == pytest.approx(20 * np.sqrt(2))
    assert tusimple.score_image(lanes[:4], lanes[:1], ROWS) == tusimple.ImageScore(0.0, 0.0, 1.0)
    assert tusimple.score_image(lanes[:1], lanes[:1], ROWS, run_time=201) == tusimple.ImageScore(0.0, 0.0, 1.0)
    assert tusimple.score_image([], [], ROWS) == tusimple.ImageScore(0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="a lane has 3 numbers for 56 rows"):
        tusimple.score_image([np.zeros(3)], lanes[:1], ROWS)
    assert tusimple.f1(0.25, 0.25) == 0.75 and tusimple.f1(1.0, 1.0) == 0.0


# CULane ------------------------------------------------------------------------------------------------------


def upright(x, top=300, low=589):
    return np.array([[x, y] for y in np.linspace(low, top, 6)], float)


def test_overlaps_of_upright_lanes_are_those_of_the_sheet():
    """Shifted by 10 pixels 0.507, found; by 11 pixels 0.470, not; by 31 pixels nothing in common."""
    lane = upright(800, 0)
    shifts = (0, 10, 11, 31)
    shared = culane.overlaps([upright(800 + shift, 0) for shift in shifts], [lane], SIZE, 30)[0]
    # 31 columns over all rows: 21 of 41 columns are common, then 20 of 42.
    assert shared == pytest.approx([1, 21 / 41, 20 / 42, 0], abs=1e-6)
    counts = [culane.count_image([upright(800 + shift, 0)], [lane], SIZE, 30) for shift in shifts]
    assert [found.tp for found in counts] == [1, 1, 0, 0]


def test_culane_hand_cases():
    lanes = [upright(200.0 * i + 300) for i in range(4)]
    assert culane.count_image(lanes, lanes, SIZE, 30) == culane.Counts(4, 0, 0)
    assert culane.count_image(lanes[:3], lanes, SIZE, 30) == culane.Counts(3, 0, 1)
    assert culane.count_image([], lanes, SIZE, 30) == culane.Counts(0, 0, 4)
    assert culane.count_image(lanes, [], SIZE, 30) == culane.Counts(0, 4, 0)
    # One point is no line: counted and never found.
    assert culane.count_image([lanes[0][:1], lanes[1]], lanes[:2], SIZE, 30) == culane.Counts(1, 1, 1)
    total = culane.Counts(3, 1, 2)
    assert (total.precision, total.recall, total.f1) == pytest.approx((3 / 4, 3 / 5, 2 / 3))
    assert culane.Counts(0, 2, 0).f1 == 0


def test_lanes_are_matched_so_that_all_overlaps_are_largest():
    true = [upright(x) for x in (500.0, 512.0)]
    predicted = [upright(x) for x in (508.0, 497.0)]
    shared = culane.overlaps(predicted, true, SIZE, 30)
    best = max(sum(shared[i, j] > 0.5 for i, j in enumerate(order)) for order in itertools.permutations(range(2)))
    assert culane.count_image(predicted, true, SIZE, 30).tp == best == 2


def test_splines_are_natural_cubic_ones():
    """By the tridiagonal system of second derivatives, over the length of chords."""
    lane = np.array([[400, 580], [420, 500], [470, 410], [480, 330], [560, 300]], float)
    chords = np.hypot(*np.diff(lane, axis=0).T)
    system, right = np.eye(5), np.zeros([5, 2])
    slopes = np.diff(lane, axis=0) / chords[:, None]
    for i in range(1, 4):
        system[i, i - 1 : i + 2] = chords[i - 1], 2 * (chords[i - 1] + chords[i]), chords[i]
        right[i] = 6 * (slopes[i] - slopes[i - 1])
    bends = np.linalg.solve(system, right)
    expected = []
    for i, h in enumerate(chords):
        for t in h * np.arange(50) / 50:
            linear = slopes[i] - h * (2 * bends[i] + bends[i + 1]) / 6
            expected.append(lane[i] + linear * t + bends[i] / 2 * t**2 + (bends[i + 1] - bends[i]) / (6 * h) * t**3)
    found = culane.smoothed(lane)
    np.testing.assert_allclose(found, [*expected, lane[-1]], rtol=1e-5)
    np.testing.assert_array_equal(culane.smoothed(lane[:2]), lane[:2])
    np.testing.assert_array_equal(culane.smoothed(lane[[0, 0, 1]]), lane[:2])


@pytest.mark.parametrize("width", [1, 4, 30])
def test_lines_are_all_pixels_near_enough(width):
    """By the distance of every pixel from every piece of the line."""
    points, size = np.array([[-8, 5], [30, 22], [31.4, 60], [90, 49]]), (70, 80)
    y, x = np.mgrid[: size[0], : size[1]]
    distance = np.full(size, np.inf)
    for a, b in zip(np.rint(points)[:-1], np.rint(points)[1:], strict=True):
        along = np.clip(((x - a[0]) * (b - a)[0] + (y - a[1]) * (b - a)[1]) / ((b - a) ** 2).sum(), 0, 1)
        distance = np.minimum(distance, np.hypot(x - a[0] - along * (b - a)[0], y - a[1] - along * (b - a)[1]))
    found = drawn(points, width, size)
    assert found.shape == size and found.any()
    # Places on the line are up to a pixel apart: between them the border lies a little inside.
    half = (width + width % 2) / 2 + 0.5 if width > 1 else 0.5
    assert not found[distance > half + 1e-3].any() and found[distance <= half - 0.3].all()


def test_lines_from_far_away_are_drawn_where_they_pass():
    """Places outside of the mask take no memory; what is inside is that of the piece inside."""
    far = drawn(np.array([[-90_000, -89_990], [90_000, 90_010]]), 4, (50, 60))
    np.testing.assert_array_equal(far, drawn(np.array([[-20, -10], [80, 90]]), 4, (50, 60)))
    assert not drawn(np.array([[200, 0], [200, 40], [900, 900]]), 4, (50, 60)).any()
    assert drawn(np.array([[5, 5]]), 4, (9, 9)).sum() == drawn(np.array([[5, 5], [5, 5]]), 4, (9, 9)).sum() == 21


# Evaluators --------------------------------------------------------------------------------------------------


def settings(benchmark: str, **others) -> LaneSettings:
    sizes = {"image_size": [64, 160], "original_size": [64, 160], "cut_height": 0, "slots": 4}
    rows = {"row_step": 4, "row_count": 12, "max_points": 20}
    return LaneSettings(**sizes, **rows, benchmark=benchmark, f1_width=6, **others)


def batch_of(chosen: LaneSettings, images: int = 6):
    """True lanes that go straight down, and predictions that miss some of them and are off elsewhere."""
    rows = np.array(chosen.rows, float)
    true = np.full([images, chosen.max_lanes, len(rows), 2], np.nan, np.float32)
    lane_x = np.full([images, 4, len(rows)], -2, np.float32)
    exist = np.zeros([images, 4], np.float32)
    for image in range(images):
        for slot in range(image % 5):
            true[image, slot] = np.stack([np.full(len(rows), 20.0 + 40 * slot), rows], -1)
            exist[image, slot] = 1
            lane_x[image, slot, 2:] = 20 + 40 * slot + (25 if slot == 2 else 1)
    counts = RANDOM.integers(1, 9, (images, 4, 2)).cumsum(-1).astype(np.int32)
    outputs = {"lane_x": lane_x, "exist": np.where(exist > 0, 0.9, 0.6), "pixel_counts": counts}
    return {"true_lanes": true, "exist": exist, "category": np.arange(images) % 3 - 1}, outputs


def part(arrays, rows):
    return {name: values[rows] for name, values in arrays.items()}


@pytest.mark.parametrize("benchmark", ["tusimple", "culane"])
def test_evaluators_add_up_over_batches_and_workers(benchmark):
    chosen = settings(benchmark, categories=["night", "cross"])
    batch, outputs = batch_of(chosen)
    whole, first, second = (lane_evaluator(chosen) for _ in range(3))
    whole.update(batch, outputs)
    first.update(part(batch, slice(2)), part(outputs, slice(2)))
    second.update(part(batch, slice(2, 6)), part(outputs, slice(2, 6)))
    first.merge(second.state())
    result = whole.result()
    assert first.result() == pytest.approx(result) and whole.main_metric in result
    assert whole.report() == first.report() == {"rows": 6}
    # Slots that are not there are said to be: 24 slots, of which 0 + 1 + 2 + 3 + 4 + 0 are there.
    assert result["exist_accuracy"] == pytest.approx(10 / 24)
    sums = outputs["pixel_counts"].sum(axis=0)
    assert result["pixel_iou"] == pytest.approx((sums[:, 0] / sums[:, 1]).mean())
    if benchmark == "tusimple":
        rows = chosen.rows
        scores = [
            tusimple.score_image(
                [lane for lane in x if (lane >= 0).any()] or [np.full(12, -2.0)],
                [lane[:, 0] for lane in true if not np.isnan(lane).any()],
                rows,
            )
            for x, true in zip(outputs["lane_x"], batch["true_lanes"], strict=True)
        ]
        assert result["lane_accuracy"] == pytest.approx(np.mean([score.accuracy for score in scores]))
        assert result["fn"] == pytest.approx(np.mean([score.fn for score in scores]))
    else:
        # Of ten lanes the third of two images is elsewhere.
        assert (result["precision"], result["recall"], result["f1"]) == pytest.approx((0.8, 0.8, 0.8))
        # Images 1 and 4 are of the first kind, one and four lanes; 2 and 5 are crossings with nothing invented.
        assert result["f1_night"] == pytest.approx(0.8) and result["fp_cross"] == 0


def test_rows_that_a_record_does_not_ask_for_do_not_count():
    chosen = settings("tusimple")
    batch, outputs = batch_of(chosen, 2)
    batch, outputs = part(batch, slice(1, 2)), part(outputs, slice(1, 2))
    evaluator = lane_evaluator(chosen)
    evaluator.update(batch, outputs)
    assert evaluator.result()["lane_accuracy"] == pytest.approx(10 / 12)
    batch["true_lanes"][:, :, :2, 1] = np.nan
    evaluator = lane_evaluator(chosen)
    evaluator.update(batch, outputs)
    assert evaluator.result()["lane_accuracy"] == 1


def test_fewer_wrong_lanes_are_better():
    from easytransfer.metrics.names import higher_is_better

    assert not higher_is_better("fp") and not higher_is_better("fn") and higher_is_better("lane_accuracy")
