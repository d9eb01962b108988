"""Decoding on the host and in the graph against Pillow, resizing against Pillow, statistics against NumPy."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from easytransfer.errors import ModelError
from easytransfer.image import graph
from easytransfer.image.contact_sheet import write_contact_sheet
from easytransfer.image.decode import decode, load_image, load_images, to_channels
from easytransfer.image.resize import Resizer
from easytransfer.image.statistics import ChannelStatistics

pytestmark = pytest.mark.draws_nothing

RANDOM = np.random.default_rng(2)
SMOOTH = Image.fromarray(RANDOM.integers(0, 256, (6, 5, 3)).astype(np.uint8)).resize((23, 17), Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, form: str = "PNG", **settings) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **settings)
    return stream.getvalue()


def with_alpha(mode: str) -> Image.Image:
    picture = SMOOTH.convert(mode)
    picture.putalpha(Image.fromarray(RANDOM.integers(0, 256, (17, 23)).astype(np.uint8)))
    return picture


DEEP = Image.fromarray(RANDOM.integers(0, 65536, (17, 23)).astype(np.uint16))
EXIF = Image.Exif()
CASES = {
    "grey": (encoded(SMOOTH.convert("L")), SMOOTH.convert("L")),
    "black and white": (encoded(SMOOTH.convert("1")), SMOOTH.convert("1").convert("L")),
    "grey with alpha": (encoded(with_alpha("L")), SMOOTH.convert("L")),
    "colour": (encoded(SMOOTH), SMOOTH),
    "colour with alpha": (encoded(with_alpha("RGB")), SMOOTH),
    "palette": (encoded(SMOOTH.quantize(16)), SMOOTH.quantize(16).convert("RGB")),
    "16 bits": (encoded(DEEP), Image.fromarray((np.asarray(DEEP) >> 8).astype(np.uint8))),
    "bmp": (encoded(SMOOTH, "BMP"), SMOOTH),
    "webp": (encoded(SMOOTH, "WEBP", lossless=True), SMOOTH),
}
for quality, form, picture in ((60, "jpeg", SMOOTH), (95, "fine jpeg", SMOOTH), (80, "grey jpeg", SMOOTH.convert("L"))):
    data = encoded(picture, "JPEG", quality=quality)
    CASES[form] = (data, Image.open(io.BytesIO(data)))
for orientation in range(1, 9):
    EXIF[0x0112] = orientation
    data = encoded(SMOOTH, "JPEG", exif=EXIF)
    CASES[f"orientation {orientation}"] = (data, ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def both_in_graph(data):
    return graph.decode(data, 1, 1000), graph.decode(data, 3, 1000)


@pytest.mark.parametrize("name", CASES)
def test_host_and_graph_decode_what_pillow_says(name):
    data, picture = CASES[name]
    # Pillow's own conversions of a plain grey or RGB picture.
    expected = {1: np.asarray(picture.convert("L"))[..., None], 3: np.asarray(picture.convert("RGB"))}
    for channels, found in zip((1, 3), both_in_graph(data), strict=True):
        np.testing.assert_array_equal(decode(data, channels=channels, max_pixels=1000), expected[channels])
        np.testing.assert_array_equal(found.numpy(), expected[channels])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "not an image: no bytes"),
        (b"hello, this is text", "not an image: begins with"),
        (encoded(SMOOTH)[:200], "broken image"),
        (encoded(SMOOTH, "JPEG")[:300], "broken image"),
        (encoded(SMOOTH)[:60] + b"\0" * 40 + encoded(SMOOTH)[100:], "broken image"),
        (encoded(Image.new("L", (60, 60))), "image too large: 60 x 60 is more than max_pixels=1000"),
        (encoded(SMOOTH, "GIF"), "not an image"),
    ],
)
def test_unusable_images_say_why(data, expected):
    with pytest.raises(ValueError, match=expected):
        decode(data, channels=3, max_pixels=1000)


def test_a_bomb_is_refused_before_it_is_decoded():
    head = encoded(Image.new("L", (1, 1)))
    # The width and height in the first chunk, 50,000 pixels each; its checksum is made new.
    import zlib

    chunk = b"IHDR" + (50000).to_bytes(4, "big") * 2 + head[24:29]
    bomb = head[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + head[33:]
    with pytest.raises(ValueError, match="image too large"):
        decode(bomb, channels=1, max_pixels=50_000_000)


def test_cells_of_every_kind_and_their_reasons(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(SMOOTH))
    (tmp_path / "b.png").write_bytes(b"text")
    cells = ["a.png", str(tmp_path / "a.png"), encoded(SMOOTH), np.asarray(SMOOTH), "b.png", "c.png", "data:,x"]
    cells += [np.zeros((3, 3)), np.zeros((2, 2, 7), np.uint8), "data:image/png;base64,!!"]
    found = load_images(cells, str(tmp_path), channels=3, max_pixels=1000)
    for image in found[:4]:
        np.testing.assert_array_equal(image, np.asarray(SMOOTH))
    reasons = ["not an image: .*b.png", "cannot read the image file: .*c.png: No such file", "bad data: text"]
    reasons += ["not an image array: .*float64", "not an image array: shape", "bad data: text"]
    for reason, expected in zip(found[4:], reasons, strict=True):
        with pytest.raises(ValueError, match=expected):
            raise ValueError(reason)


def test_grey_is_pillows():
    for channels in (1, 2, 3, 4):
        pixels = RANDOM.integers(0, 256, (9, 8, channels)).astype(np.uint8)
        if channels > 2:
            picture = Image.fromarray(pixels[..., :3]).convert("L")
            np.testing.assert_array_equal(to_channels(pixels, 1)[..., 0], np.asarray(picture))
        else:
            np.testing.assert_array_equal(to_channels(pixels, 3), np.repeat(pixels[..., :1], 3, -1))


@pytest.mark.parametrize("shape", [(40, 31), (5, 7), (16, 9), (12, 12)])
def test_resizing_is_within_one_level_of_pillow(shape):
    image = np.asarray(SMOOTH.resize(shape[::-1], Image.Resampling.BICUBIC))
    found = Resizer(12)(image).astype(int)
    expected = np.asarray(Image.fromarray(image).resize((12, 12), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(found - expected).max() <= 1
    side = min(shape)
    top, left = ((length - side) // 2 for length in shape)
    square = Resizer(12)(np.ascontiguousarray(image[top : top + side, left : left + side]))
    np.testing.assert_array_equal(Resizer(12, "crop")(image) if shape[0] != shape[1] else square, square)


def test_batches_in_the_graph_equal_the_host():
    batch = [data for data, _ in CASES.values()]
    for channels, mode in ((1, "stretch"), (3, "crop")):
        resizer = Resizer(10, mode)
        expected = np.stack([resizer(load_image(data, channels=channels, max_pixels=1000)) for data in batch])
        found = tf.function(lambda x, c=channels, m=mode: graph.decode_batch(x, 10, c, m, 1000))(tf.constant(batch))
        np.testing.assert_array_equal(found.numpy(), expected)


def test_statistics_are_numpys(tmp_path):
    images = RANDOM.integers(0, 256, (50, 4, 6, 3)).astype(np.uint8)
    images[..., 2] = 40
    found = ChannelStatistics.of(images)
    scaled = images / 255
    np.testing.assert_allclose(found.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std[:2], scaled.std(axis=(0, 1, 2))[:2], rtol=1e-12)
    assert found.std[2] == 0.5 / 255 and found.images == 50
    found.save(tmp_path)
    assert ChannelStatistics.load(tmp_path) == found
    with pytest.raises(ModelError, match="image_statistics.json"):
        ChannelStatistics.load(tmp_path / "nowhere")


def test_contact_sheet_shows_every_image_unchanged(tmp_path):
    images = RANDOM.integers(0, 200, (3, 28, 28, 1)).astype(np.uint8)
    write_contact_sheet(tmp_path / "s.png", images, [("猫 0.99", "is x" * 9)] * 3, columns=2)
    sheet = np.asarray(Image.open(tmp_path / "s.png"))
    tile = np.repeat(np.repeat(images[0, ..., 0], 4, 0), 4, 1)
    np.testing.assert_array_equal(sheet[8 : 8 + 112, 8 : 8 + 112, 0], tile)
    assert sheet.shape[1] == 2 * 120 + 8 and sheet.shape[0] == 2 * (112 + 36 + 8) + 8
    # The second line is cut at the end of its tile: nothing is drawn into the gap.
    assert (sheet[8 + 112 : 8 + 112 + 36, 8 : 8 + 112] < 128).any() and (sheet[:156, 120:128] == 255).all()
