"""Label cells of lane detection: what each form means, slots and masks, and what is refused with its reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from appzoo.lane_detection.cells import read_cell
from appzoo.lane_detection.config import LaneSettings
from appzoo.lane_detection.lanes import assigned, centre_line, from_top, sampled, slot_mask
from appzoo.lane_detection.target import LaneTarget
from easytransfer.image.files import data_text
from easytransfer.image.maps import encode_png

SMALL = {"image_size": [48, 64], "original_size": [96, 128], "cut_height": 0, "slots": 4, "line_width": 3}
ROWS = {"row_step": 8, "row_count": 12, "max_lanes": 5, "max_points": 30}
TARGET = LaneTarget("lanes", LaneSettings(**SMALL, **ROWS))
CULANE = LaneTarget("lanes", LaneSettings(**SMALL, **ROWS, benchmark="culane", categories=["night"]))
SIZE = (96, 128)
LEFT, RIGHT = [[50, 30], [10, 90]], [[70, 30], [120, 90]]


def arrays(value, target=TARGET, size=SIZE, folder=""):
    return target.arrays(value if isinstance(value, str) else json.dumps(value), folder, size)


def mask_text(mask: np.ndarray) -> str:
    return data_text(encode_png(mask))


# Slots -------------------------------------------------------------------------------------------------------


def lane_at(low_x, top_x):
    return np.array([[top_x, 30], [(low_x + top_x) / 2, 60], [low_x, 90]], float)


def published_slots(lanes, slots=6):
    """The rule of the published masks for six slots, step by step; 0 for none."""
    slope = [np.arctan2(low[1] - top[1], top[0] - low[0]) / np.pi * 180 for top, *_, low in lanes]
    order, places = list(np.argsort(slope)), [None] * 6
    for i, lane in enumerate(order):
        if slope[lane] <= 90:
            places[:3] = [i - 2 if i > 1 else None, i - 1 if i > 0 else None, i]
        else:
            places[3:] = [i, *(i + k if i + k < len(order) else None for k in (1, 2))]
            break
    found = [0] * len(lanes)
    for slot, place in enumerate(places, 1):
        if place is not None:
            found[order[place]] = slot
    return found


def test_slots_follow_the_published_rule():
    random = np.random.default_rng(2)
    for _ in range(300):
        lanes = [lane_at(*random.uniform(0, 128, 2)) for _ in range(random.integers(1, 8))]
        assert assigned(lanes, 6) == published_slots(lanes)


def test_slots_by_hand():
    lanes = [lane_at(120, 70), lane_at(10, 50), lane_at(-60, 40), lane_at(64, 64)]
    # Straight up counts as left: it is next to the vehicle, the others on that side move out.
    assert assigned(lanes, 6) == [4, 2, 1, 3]
    assert assigned(lanes, 4) == [3, 1, 0, 2]
    assert assigned([], 4) == []


# Forms of cells ----------------------------------------------------------------------------------------------


def test_poly_lines_become_a_mask_existence_and_points():
    found = arrays([[50, 30, 10, 90], [[120, 90], [70, 30]]])
    assert found["exist"].tolist() == [0, 1, 1, 0] and found["category"] == -1
    picture = Image.new("L", (128, 96))
    draw = ImageDraw.Draw(picture)
    for slot, lane in ((2, LEFT), (3, RIGHT)):
        draw.line([tuple(point) for point in lane], slot, 5)  # 3 covers 5 pixels here
    theirs = np.asarray(picture)[1::2, 1::2]
    ours = found["mask"]
    # Pillow's lines differ by some pixels of the border.
    assert ours.shape == (48, 64) and set(np.unique(ours)) == {0, 2, 3}
    assert ((ours > 0) & (theirs > 0)).sum() / ((ours > 0) | (theirs > 0)).sum() > 0.75
    assert (ours[(ours > 0) & (theirs > 0)] == theirs[(ours > 0) & (theirs > 0)]).all()
    true = found["true_lanes"]
    rows = TARGET.settings.rows
    assert true.shape == (5, 12, 2) and np.isnan(true[2:]).all() and (true[0, :, 1] == rows).all()
    expected = [50 - (y - 30) * 40 / 60 if 30 <= y <= 90 else -2 for y in rows]
    np.testing.assert_allclose(true[0, :, 0], expected, rtol=1e-6)


def test_points_are_kept_as_they_are_for_culane():
    true = arrays([[10, 90, 50.5, 30]], CULANE)["true_lanes"]
    assert true.shape == (5, 30, 2) and true[0, :2].tolist() == [[50.5, 30], [10, 90]] and np.isnan(true[0, 2:]).all()


def test_records_of_tusimple():
    rows = TARGET.settings.rows[3:]
    left = [-2, *np.linspace(60, 10, 7).astype(int).tolist(), -2]
    short = [-2] * 6 + [90, 95, 100]
    found = arrays({"lanes": [left, short, [-2] * 9], "h_samples": rows})
    # Fewer than four points are not drawn, but take their slot and are compared.
    assert found["exist"].tolist() == [0, 1, 0, 0] and set(np.unique(found["mask"])) == {0, 2}
    true = found["true_lanes"]
    assert np.isnan(true[:, :3, 1]).all() and not np.isnan(true[:3, 3:, 1]).any() and np.isnan(true[3:]).all()
    assert true[0, 3:, 0].tolist() == left and (true[2, 3:, 0] == -2).all()


def test_explicit_slots():
    found = arrays({"lanes": [[50, 30, 10, 90], [70, 30, 120, 90]], "slots": [1, 4]})
    assert found["exist"].tolist() == [1, 0, 0, 1]


def test_masks_of_slots():
    mask = np.zeros(SIZE, np.uint8)
    mask[40:, 20:24], mask[:10, :10] = 2, 255
    found = arrays(mask_text(mask))
    np.testing.assert_array_equal(found["mask"], mask[1::2, 1::2])
    assert found["exist"].tolist() == [0, 1, 0, 0]
    x = found["true_lanes"][0, :, 0]
    rows = np.array(TARGET.settings.rows)
    assert (x[rows > 45] == 21.5).all() and (x[rows < 40] == -2).all()
    # At half the size, the same lane.
    half = arrays(mask_text(mask[::2, ::2]))
    np.testing.assert_array_equal(half["mask"], mask[::2, ::2])
    np.testing.assert_allclose(half["true_lanes"][0, rows > 45, 0], 21.5)


def test_masks_of_instances():
    target = LaneTarget("lanes", LaneSettings(**SMALL, **ROWS, mask_values="instances"))
    lanes = [np.array(lane, float) for lane in (LEFT, RIGHT)]
    mask = slot_mask(lanes, [170, 20], 3, SIZE)
    found = arrays(mask_text(mask), target)
    expected = np.select([mask == 170, mask == 20], [2, 3])[1::2, 1::2]
    np.testing.assert_array_equal(found["mask"], expected)
    true = found["true_lanes"]
    seen = true[1, :, 0] >= 0
    np.testing.assert_allclose(true[1, seen, 0], sampled(lanes[0], np.array(target.settings.rows))[seen], atol=1.5)


def test_records_of_culane(tmp_path):
    (tmp_path / "a.lines.txt").write_text("10 90 50 30 \n70.5 30 120 90\n\n")
    mask = np.zeros(SIZE, np.uint8)
    mask[50:, 30:33] = 2
    (tmp_path / "a.png").write_bytes(encode_png(mask))
    record = {"lines": "a.lines.txt", "mask": "a.png", "exist": [0, 1, 1, 0], "category": "night"}
    found = arrays(record, CULANE, folder=str(tmp_path))
    assert found["exist"].tolist() == [0, 1, 1, 0] and found["category"] == 0
    np.testing.assert_array_equal(found["mask"], mask[1::2, 1::2])
    assert found["true_lanes"][1, 0].tolist() == [70.5, 30]
    assert arrays("a.lines.txt", CULANE, folder=str(tmp_path))["exist"].tolist() == [0, 1, 1, 0]
    assert arrays("a.png", CULANE, folder=str(tmp_path))["exist"].tolist() == [0, 1, 0, 0]


def test_lanes_of_pictures_of_another_size_are_brought_to_the_cameras():
    small = arrays([[24.5, 14.5, 4.5, 44.5]], CULANE, size=(48, 64))["true_lanes"]
    np.testing.assert_allclose(small[0, :2], [[49.5, 29.5], [9.5, 89.5]])


def test_the_sky_is_cut_off():
    target = LaneTarget("lanes", LaneSettings(**{**SMALL, **ROWS, "cut_height": 48, "row_count": 5}))
    mask = np.zeros(SIZE, np.uint8)
    mask[:48], mask[48:] = 1, 2
    assert (arrays(mask_text(mask), target)["mask"] == 2).all()


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("lanes", "no lanes: 'lanes' is none of: poly-lines as JSON, a path"),
        ("", "no lanes: ''"),
        ("[[1, 2", "bad record: invalid JSON"),
        ("[" * 100_000, "bad record: invalid JSON"),
        ({}, "bad record: it has none of lanes, lines and mask"),
        ({"lanes": [], "lane": 1}, "bad record: unknown key 'lane'; known: lanes, slots, h_samples"),
        ({"lanes": [], "lines": "x"}, "it has both lanes and lines"),
        ({"lanes": 3}, "lanes is a list, not int"),
        ([[1, 2, 3]], "bad lane: it has 3 numbers, x and y in turn are needed"),
        ([[[1, 2, 3]]], r"a point is x and y, not \[1, 2, 3\]"),
        ("[[1, NaN, 2, 3]]", "bad lane: 'nan' in lanes is no finite number"),
        ([[1, 2, 3, 1e7]], "a point is more than 100000 pixels away"),
        ([[1, True]], "bad lane: 'True' in lanes"),
        ([[1, "2"]], "bad lane: '2' in lanes"),
        ({"lanes": [[1, 2]], "h_samples": [10]}, "lane 1 has 2 numbers for 1 h_samples"),
        ({"lanes": [[1, 2]], "h_samples": [20, 10]}, "h_samples must be whole numbers that rise"),
        ({"lanes": [[5]], "h_samples": [13]}, "row 13 of h_samples is none of those that are read off, 0 to 88"),
        ({"lanes": [[5, 5, 6, 6]], "slots": [0]}, "slots are .0. for 1 lanes; each needs one of its own"),
        ({"lanes": [[5, 5, 6, 6]], "slots": [5]}, "bad record: slot 5, model.slots is 4"),
        ({"lanes": [], "exist": [1, 2]}, "exist has a 0 or a 1 for each slot"),
        ({"lanes": [], "exist": [1]}, "exist has 1 flags, model.slots is 4"),
        ({"lanes": [], "category": "night"}, "unknown category 'night'; model.categories: none"),
        ([[1, 2, 3, 4]] * 6, "bad lane: 6 lanes, model.max_lanes is 5"),
        ("nowhere.lines.txt", "no lanes: cannot read nowhere.lines.txt: No such file"),
        ("nowhere.png", "cannot read the image file: nowhere.png"),
        ({"mask": 3}, "a path is a text, not '3'"),
        ("data:image/png;base64,AAAA", "not a map: begins with"),
        (mask_text(np.full(SIZE, 7, np.uint8)), "unknown slot: 7 in the mask; known: 1 to 4 and 255; where numbers"),
    ],
)
def test_cells_that_say_nothing_usable_are_refused(cell, reason):
    with pytest.raises(ValueError, match=reason):
        arrays(cell)


def test_limits(tmp_path):
    with pytest.raises(ValueError, match="it has 31 points, model.max_points is 30"):
        arrays([[n for y in range(31) for n in (y, y)]], CULANE)
    (tmp_path / "x.lines.txt").write_bytes(b"1 2 " * 300_000)
    with pytest.raises(ValueError, match="has more than 1048576 bytes"):
        read_cell("x.lines.txt", str(tmp_path), 10**6)
    (tmp_path / "y.lines.txt").write_text("1 2 three 4")
    with pytest.raises(ValueError, match="bad lane: .*y.lines.txt: could not convert string to float"):
        read_cell("y.lines.txt", str(tmp_path), 10**6)
    with pytest.raises(ValueError, match="is more than max_pixels=100"):
        read_cell(mask_text(np.zeros(SIZE, np.uint8)), "", 100)
    with pytest.raises(ValueError, match=r"h_samples of an image of \[48, 64\], model.original_size is \[96, 128\]"):
        arrays({"lanes": [], "h_samples": [8]}, size=(48, 64))


# Points and masks --------------------------------------------------------------------------------------------


def test_points_of_a_mask_are_the_middles_of_its_rows():
    inside = np.zeros([20, 30], bool)
    inside[4:, 10:13] = True
    inside[9, 20] = True
    lane = centre_line(inside, 5, (2.0, 4.0))
    # Rows 4, 9, 14, 19 from the bottom up; centres in the image: row r is 2 r + 0.5, column c is 4 c + 1.5.
    assert lane.tolist() == [[45.5, 8.5], [4 * 13.25 + 1.5, 18.5], [45.5, 28.5], [45.5, 38.5]]
    assert len(centre_line(np.zeros([4, 4], bool), 1, (1.0, 1.0))) == 0


def test_order_of_points():
    assert from_top(np.array([[1.0, 5], [2, 3], [3, 5]])).tolist() == [[2, 3], [1, 5], [3, 5]]
