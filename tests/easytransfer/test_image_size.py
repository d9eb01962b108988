"""Images that are not square: resizing and cropping against Pillow and by hand, on the host and in the graph."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from easytransfer.app.inputs.images import ImageInput
from easytransfer.config.draft import Draft
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import ConfigError
from easytransfer.image import graph
from easytransfer.image.resize import Resizer, kept_box
from easytransfer.image.size import height_width, size_reader, size_text

RANDOM = np.random.default_rng(6)
SMOOTH = Image.fromarray(RANDOM.integers(0, 256, (6, 5, 3)).astype(np.uint8))


def picture(height: int, width: int) -> np.ndarray:
    return np.asarray(SMOOTH.resize((width, height), Image.Resampling.BICUBIC))


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (32, 32), ("32", 32), (32.0, 32), ([32], 32), ([32, 32], 32), ((288, 800), (288, 800)), (["8", "9"], (8, 9)),
        (7, None), ([8, 7], None), ([8, 9, 10], None), ([], None), ("a", None), (8.5, None), (None, None),
    ],
)  # fmt: skip
def test_a_size_is_one_number_or_two(value, expected):
    read = size_reader(8)
    if expected is None:
        with pytest.raises(ValueError, match=r"one number, or \[height, width\], of 8 pixels or more"):
            read(value)
    else:
        assert read(value) == expected and type(read(value)) is type(expected)
        assert read(height_width(read(value))) == expected


def test_sizes_of_a_command_line_and_a_file_are_the_same():
    from appzoo.image_classify.config import ImageClassifyConfig

    def built(value):
        draft = Draft()
        draft.put("model.image_size", value, "--set")
        return draft.build(ImageClassifyConfig).model

    assert built("16,24") == built([16, 24]) == built("[16,24]") and built("16,24").image_shape == (16, 24, 3)
    assert built("16,16") == built(16) and size_text(built("16,24").image_size) == "[16,24]"
    assert built("16,24").model_dump(mode="json")["image_size"] == [16, 24]
    with pytest.raises(ConfigError, match=r"--set: one number, or \[height, width\], of 8 pixels or more") as refused:
        built("16,4")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("shape", [(40, 31), (5, 70), (12, 20)])
@pytest.mark.parametrize("crop_top", [0, 4])
def test_rectangles_are_within_one_level_of_pillow(shape, crop_top):
    image = picture(*shape)
    found = Resizer((12, 20), crop_top=crop_top)(image).astype(int)
    part = Image.fromarray(image[crop_top:])
    expected = np.asarray(part.resize((20, 12), Image.Resampling.BILINEAR)).astype(int)
    assert found.shape == (12, 20, 3) and np.abs(found - expected).max() <= 1


@pytest.mark.parametrize(
    ("shape", "size", "crop_top", "box"),
    [
        # Wider than the result: all rows, columns in the middle. Higher: the other way round.
        ((100, 500), (10, 20), 0, (0, 150, 100, 200)),
        ((100, 100), (10, 20), 0, (25, 0, 50, 100)),
        ((590, 1640), (288, 800), 240, (240, 333, 350, 973)),
        ((9, 9), 4, 3, (3, 1, 6, 6)),
        ((1, 9), (100, 1), 0, (0, 4, 1, 1)),
        ((9, 1), (1, 100), 0, (4, 0, 1, 1)),
    ],
)
def test_the_box_in_the_middle_has_the_aspect_of_the_result(shape, size, crop_top, box):
    assert kept_box(*shape, size, "crop", crop_top) == box
    wide = [tf.constant(side, tf.int64) for side in shape]
    assert [int(side) for side in kept_box(*wide, size, "crop", crop_top, tf.minimum)] == list(box)
    assert kept_box(*shape, size, "stretch", crop_top) == (crop_top, 0, shape[0] - crop_top, shape[1])
    image, (top, left, tall, across) = picture(*shape), box
    part = np.ascontiguousarray(image[top : top + tall, left : left + across])
    np.testing.assert_array_equal(Resizer(size, "crop", crop_top)(image), Resizer(size)(part))


def test_the_graph_equals_the_host_and_refuses_the_same():
    images = [picture(*shape) for shape in ((20, 30), (9, 14), (16, 24), (60, 8))]
    for mode in ("stretch", "crop"):
        expected = np.stack([Resizer((16, 24), mode, 8)(image) for image in images])
        serve = tf.function(lambda x, m=mode: graph.decode_batch(x, (16, 24), 3, m, 10_000, 8))
        np.testing.assert_array_equal(serve(tf.constant(list(map(png, images)))), expected)
        low = picture(8, 90)
        reason = "image too low: 8 rows are not more than crop_top=8"
        with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
            serve(tf.constant([png(low)]))
        with pytest.raises(ValueError, match=reason):
            Resizer((16, 24), mode, 8)(low)


def test_two_pictures_a_row_have_names_and_statistics_of_their_own(tmp_path):
    parts = [
        ImageInput(f"{name}_path", [12, 20], 3, name=name, crop_top=2, fit_statistics=True)
        for name in ("left", "right")
    ]
    lines = []
    for row in range(3):
        for name in ("left", "right"):
            (tmp_path / f"{name}{row}.png").write_bytes(png(picture(9 + row, 30) // (1 if name == "left" else 3)))
        lines.append(f"left{row}.png\tright{row}.png\n")
    Image.new("RGB", (30, 2)).save(tmp_path / "low.png")
    (tmp_path / "t.tsv").write_text("".join([*lines, "left0.png\tlow.png\n"]))
    schema = parse_schema("left_path:image:1,right_path:image:1")
    bad = BadRows("skip")
    (chunk,) = open_table(str(tmp_path / "t.tsv"), schema=schema, bad_rows=bad).chunks()
    columns = {name: value for part in parts for name, value in part.encode(chunk).columns.items()}
    assert bad.reasons == {"image too low": 1} and chunk.accepted.tolist() == [True] * 3 + [False]
    for part in parts:
        assert part.specs()[part.name].shape.as_list() == [None, 12, 20, 3] and part.chunk_rows == (64 << 20) // 720
        files = [(tmp_path / name).read_bytes() for name in chunk.columns[part.column][:3]]
        served = part.from_request({f"{part.name}_bytes": tf.constant(files)})
        np.testing.assert_array_equal(served[part.name], columns[part.name][:3])
        samples = part.samples()[f"{part.name}_bytes"]
        assert part.from_request({f"{part.name}_bytes": tf.constant(list(samples))})[part.name].shape == (7, 12, 20, 3)
        part.on_train_table(EncodedTable({part.name: columns[part.name][:3]}))
        part.save_assets(tmp_path)
    assert ImageInput("image", 8).asset_files == ()
    assert [part.asset_files for part in parts] == [("left_statistics.json",), ("right_statistics.json",)]
    assert (tmp_path / "left_statistics.json").read_text() != (tmp_path / "right_statistics.json").read_text()
