"""Columns of label maps and disparity maps: what they read, how they are resized beside images, what they refuse."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from easytransfer.app.contract import App
from easytransfer.app.inputs.images import ImageInput
from easytransfer.app.inputs.maps import DisparityInput, LabelMapInput
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, RowChunk, open_table
from easytransfer.image.maps import to_fixed_point, write_map

RANDOM = np.random.default_rng(10)


def chunk_of(folder, name: str, files: list[str]) -> tuple[RowChunk, BadRows]:
    (folder / "t.tsv").write_text("".join(f"{file}\n" for file in files))
    bad = BadRows("skip")
    table = open_table(str(folder / "t.tsv"), schema=parse_schema(f"{name}:image:1"), bad_rows=bad)
    (chunk,) = table.chunks()
    return chunk, bad


@pytest.mark.parametrize(("mode", "crop_top"), [("stretch", 0), ("stretch", 5), ("crop", 5)])
def test_labels_stay_on_the_pixels_they_belong_to(tmp_path, mode, crop_top):
    """A picture of flat areas with the mask of these areas: after resizing the mask still says which area it is."""
    areas = np.kron(RANDOM.integers(0, 5, (4, 6)), np.ones((8, 8), int)).astype(np.uint8)
    Image.fromarray((areas * 50).astype(np.uint8)).save(tmp_path / "image.png")
    write_map(tmp_path / "mask.png", areas)
    size = (27, 96)
    image = ImageInput("image", size, 1, mode=mode, crop_top=crop_top)
    mask = LabelMapInput("mask", size, classes=5, mode=mode, crop_top=crop_top)
    pixels = image.encode(chunk_of(tmp_path, "image", ["image.png"])[0]).columns["image"][0, ..., 0]
    found = mask.encode(chunk_of(tmp_path, "mask", ["mask.png"])[0]).columns["mask"][0]
    assert found.shape == size and found.dtype == np.uint8
    # Where an area goes on all around a pixel, resizing has not mixed it with others.
    flat = np.ones(size, bool)
    for down, right in np.ndindex(5, 5):
        flat &= found == np.roll(found, (down - 2, right - 2), (0, 1))
    flat[[0, 1, -2, -1]], flat[:, [0, 1, -2, -1]] = False, False
    assert flat.mean() > 0.2
    np.testing.assert_array_equal(pixels[flat], 50 * found[flat])


def test_labels_are_the_nearest_by_hand(tmp_path):
    write_map(tmp_path / "m.png", np.uint8([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]))
    chunk, _ = chunk_of(tmp_path, "m", ["m.png"])
    # Centres of three columns fall on 2/3, 2 and 10/3 of four.
    found = LabelMapInput("m", [2, 3], classes=10, crop_top=1).encode(chunk).columns["m"][0]
    assert found.tolist() == [[4, 6, 7], [8, 0, 1]]


def test_labels_beyond_the_classes_are_bad_rows(tmp_path):
    maps = {"good": [[0, 4]], "ignored": [[255, 1]], "high": [[0, 5]], "deep": [[0, 300]], "low": [[1, 1]]}
    for name, values in maps.items():
        write_map(tmp_path / f"{name}.png", np.array(values * (1 if name == "low" else 3), np.uint16))
    write_map(tmp_path / "float.pfm", np.zeros((3, 2), np.float32))
    files = [f"{name}.png" for name in maps] + ["float.pfm", "absent.png"]
    chunk, bad = chunk_of(tmp_path, "mask", files)
    part = LabelMapInput("mask", [3, 2], classes=5, ignored=255, crop_top=1)
    found = part.encode(chunk).columns["mask"]
    assert chunk.accepted.tolist() == [True, True, False, False, False, False, False]
    assert found[:2, 0].tolist() == [[0, 4], [255, 1]]
    expected = {"unknown label": 2, "image too low": 1, "wrong kind of map": 1, "cannot read the image file": 1}
    assert bad.reasons == expected
    chunk, bad = chunk_of(tmp_path, "mask", ["ignored.png"])
    LabelMapInput("mask", [3, 2], classes=5).encode(chunk)
    assert bad.reasons == {"unknown label": 1}
    assert LabelMapInput("mask", 8, classes=300).specs()["mask"].dtype == tf.uint16
    for wrong in ({"classes": 0}, {"classes": 5, "ignored": 65536}, {"classes": 5, "ignored": -1}):
        with pytest.raises(ValueError, match="labels are 0 to 65535"):
            LabelMapInput("mask", 8, **wrong)


def test_disparities_are_pixels_of_the_result(tmp_path):
    stored = RANDOM.uniform(1, 60, (4, 6)).astype(np.float32)
    stored[1, 2] = 0
    write_map(tmp_path / "d.png", to_fixed_point(stored, 256))
    unknown = stored.copy()
    unknown[1, 2] = np.inf
    write_map(tmp_path / "d.pfm", unknown)
    chunk, _ = chunk_of(tmp_path, "d", ["d.png", "d.pfm"])
    found = DisparityInput("d", [4, 6], name="disparity").encode(chunk).columns["disparity"]
    np.testing.assert_array_equal(found[1], stored)
    assert (0 <= stored - found[0]).all() and (stored - found[0]).max() <= 1 / 256 and found[0, 1, 2] == 0
    # Twice as wide, twice as far; height changes no values.
    twice = DisparityInput("d", [12, 12]).encode(chunk).columns["d"]
    np.testing.assert_array_equal(twice, 2 * np.repeat(np.repeat(found, 3, 1), 2, 2))
    # The box in the middle has half of the columns and its own size: values stay.
    part = DisparityInput("d", [4, 3], mode="crop").encode(chunk).columns["d"]
    np.testing.assert_array_equal(part, found[:, :, 1:4])


def test_what_is_no_disparity_is_a_bad_row(tmp_path):
    write_map(tmp_path / "eight.png", np.uint8([[1, 2]]))
    write_map(tmp_path / "negative.pfm", np.float32([[1, -2.5]]))
    write_map(tmp_path / "whole.png", np.uint16([[256, 512]]))
    chunk, bad = chunk_of(tmp_path, "d", ["eight.png", "negative.pfm", "whole.png"])
    found = DisparityInput("d", [1, 2], png_scale=100).encode(chunk).columns["d"]
    assert bad.reasons == {"wrong kind of map": 2} and np.allclose(found[2], [[2.56, 5.12]])
    with pytest.raises(Exception, match="column 'd': wrong kind of map: .*eight.png: it has 8 bits a value"):
        (strict,) = open_table(
            str(tmp_path / "t.tsv"), schema=parse_schema("d:image:1"), bad_rows=BadRows("fail")
        ).chunks()
        DisparityInput("d", [1, 2]).encode(strict)


def test_chunks_are_as_small_as_the_largest_part_wants():
    """Full-size maps as labels decide how many rows are read at a time, as images do."""
    from easytransfer.app.targets.base import Target

    class Maps(DisparityInput, Target):
        losses = evaluator = output_columns = postprocess = None

    app = App.__new__(App)
    app.inputs, app.target = [LabelMapInput("mask", [64, 64], classes=2)], Maps("d", [375, 1242])
    assert app.target.chunk_rows == (64 << 20) // (375 * 1242 * 4) == app.chunk_rows
    assert app.inputs[0].chunk_rows == (64 << 20) // 4096
    app.target = None
    assert app.chunk_rows == 8192


def test_a_map_may_be_an_input_that_is_served_as_an_array():
    part = LabelMapInput("mask", [3, 4], classes=2)
    assert part.serving_specs() == part.specs() and part.samples()["mask"].dtype == np.uint8
    assert part.samples()["mask"].shape == (7, 3, 4)
    assert len(ImageInput("image", [3, 4]).samples()["image_bytes"]) == 7
