"""Maps of labels, depth and disparity: whole values of PNG and PFM files, against Pillow and by hand, and refusals."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from easytransfer.data.bad_rows import BadRows
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.data.writers import open_writer
from easytransfer.errors import ConfigError
from easytransfer.image import maps
from easytransfer.image.files import data_text
from easytransfer.image.maps import decode_map, decode_pfm, encode_pfm, encode_png, load_maps, write_map

RANDOM = np.random.default_rng(9)
MOST = 1000
DEEP = RANDOM.integers(0, 65536, (5, 7)).astype(np.uint16)
FLOATS = RANDOM.normal(size=(5, 7)).astype(np.float32)


def png(picture: Image.Image, **settings) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", **settings)
    return stream.getvalue()


def raw_png(values: np.ndarray, bits: int, colour: int, palette: bool = False) -> bytes:
    """A PNG file made by hand: rows of samples packed into bytes, no filter."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = values.shape[:2]
    flat = values.reshape(height, width)
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in flat]
    else:
        bit = (flat[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        rows = [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in bit]
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    colours = chunk(b"PLTE", RANDOM.integers(0, 256, 3 << bits).astype(np.uint8).tobytes()) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + colours + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_16_bits_are_read_and_written_whole():
    for data in (
        png(Image.fromarray(DEEP)),
        encode_png(DEEP),
        raw_png(DEEP, 16, 0),
        tf.io.encode_png(DEEP[..., None]).numpy(),
    ):
        found = decode_map(data, MOST)
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, DEEP)
    # What others read of ours.
    np.testing.assert_array_equal(tf.io.decode_png(encode_png(DEEP), dtype=tf.uint16)[..., 0], DEEP)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(DEEP)))), DEEP)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_labels_are_the_numbers_of_the_file_and_no_colours(bits):
    values = RANDOM.integers(0, 1 << bits, (5, 7)).astype(np.uint8)
    values[0, 0] = (1 << bits) - 1
    for data in (raw_png(values, bits, 3, palette=True), raw_png(values, bits, 0)):
        found = decode_map(data, MOST)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, values)
    picture = Image.fromarray(values).convert("P")
    picture.putdata(values.reshape(-1))
    picture.putpalette(RANDOM.integers(0, 256, 768).astype(np.uint8).tobytes())
    np.testing.assert_array_equal(decode_map(png(picture), MOST), values)
    np.testing.assert_array_equal(decode_map(encode_png(values), MOST), values)


@pytest.mark.parametrize("little", [True, False])
def test_float_maps_by_hand(little):
    """Two rows: the lower one comes first."""
    values = np.float32([[1.5, -2.25], [np.inf, 1e-30]])
    body = struct.pack("<4f" if little else ">4f", np.inf, np.float32(1e-30), 1.5, -2.25)
    data = b"Pf\n2 2\n" + (b"-1.0" if little else b"1.0") + b"\n" + body
    assert encode_pfm(values, little=little) == data
    np.testing.assert_array_equal(decode_map(data, MOST), values)
    # Blanks and line ends of other programs; the size of the scale is left alone.
    other = b"Pf 2  2\r\n" + (b"-0.25" if little else b"+2.5e1") + b"\r\n" + body
    np.testing.assert_array_equal(decode_map(other, MOST), values)
    colour = RANDOM.normal(size=(3, 2, 3)).astype(np.float32)
    found = decode_pfm(encode_pfm(colour, little=little), MOST)
    assert found.dtype == np.float32 and found.flags.writeable
    np.testing.assert_array_equal(found, colour)
    # The first pixel of the file is the lower left one.
    first = np.frombuffer(encode_pfm(colour)[-4 * colour.size :], "<f4")[:3]
    np.testing.assert_array_equal(first, colour[-1, 0])


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return png(Image.new("L", (3, 4)), exif=exif)


GREY = [Image.new("L", (3, 4), value) for value in (1, 2)]
HEAD = b"Pf\n3 2\n-1\n"
REFUSED = {
    "nothing": (b"", "not a map: begins with b''"),
    "jpeg": (b"\xff\xd8\xff\xe0 and so on", "not a map: .*PNG and PFM files are read"),
    "colours": (png(Image.new("RGB", (3, 4))), "form of map that is not read: it has three values a pixel; grey"),
    "alpha": (png(Image.new("LA", (3, 4))), "it has a grey value and alpha"),
    "colour and alpha": (png(Image.new("RGBA", (3, 4))), "it has four values a pixel"),
    "unknown colours": (raw_png(DEEP, 16, 1), "the unknown form 1"),
    "palette of 16 bits": (raw_png(DEEP, 16, 3, palette=True), "broken map"),
    "animation": (png(GREY[0], save_all=True, append_images=GREY[1:]), "it is an animation"),
    "turned": (turned(), "it is to be turned, as its EXIF or XMP data say"),
    "too many": (png(Image.new("L", (40, 40))), "image too large: 40 x 40 is more than max_pixels=1000"),
    "none": (raw_png(np.zeros((0, 4), np.uint8), 8, 0), "broken map: it has no pixels"),
    "head": (png(GREY[0])[:20], "broken map: a PNG file without its header"),
    "cut off": (encode_png(DEEP)[:-40], "broken map"),
    "changed": (encode_png(DEEP).replace(b"IDAT", b"IDAT\0", 1), "broken map"),
    "pfm without head": (b"Pf\n3\n-1\n" + bytes(24), "a PFM file begins Pf, width, height and a scale"),
    "pfm of scale 0": (b"Pf\n3 2\n0.0\n" + bytes(24), "a scale that is not 0"),
    "pfm of no scale": (b"Pf\n3 2\n1e-+\n" + bytes(24), "a scale that is not 0"),
    "pfm of infinite scale": (b"Pf\n3 2\n1e999\n" + bytes(24), "a scale that is not 0"),
    "pfm short": (HEAD + bytes(23), "broken map: 23 bytes of values where its header says 24"),
    "pfm long": (HEAD + bytes(25), "broken map: 25 bytes"),
    "pfm of colours": (b"PF\n1 2\n-1\n" + bytes(24), "it has three values a pixel, a map has one"),
    "pfm of nothing": (b"Pf\n0 2\n-1\n", "it has no pixels"),
    "pfm bomb": (b"Pf\n999999999 999999999\n-1\n", "image too large: 999999999 x 999999999"),
    "pfm endless head": (b"Pf\n" + b" " * 10_000_000, "a PFM file begins"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_map_says_why_in_one_line(name):
    data, expected = REFUSED[name]
    with pytest.raises(ValueError, match=expected) as refused:
        decode_map(data, MOST)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 200


def test_a_large_header_takes_no_memory(monkeypatch):
    monkeypatch.setattr(maps.Image, "open", None)
    bomb = raw_png(np.zeros((1, 1), np.uint8), 8, 0)
    bomb = bomb[:16] + struct.pack(">II", 60000, 60000) + bomb[24:]
    with pytest.raises(ValueError, match="image too large"):
        decode_map(bomb, 10**9)


def test_cells_of_every_kind_and_their_reasons(tmp_path):
    write_map(tmp_path / "a.png", DEEP)
    write_map(tmp_path / "a.pfm", FLOATS)
    (tmp_path / "b.pfm").write_bytes(HEAD)
    cells = ["a.png", "a.pfm", encode_png(DEEP), data_text(encode_png(DEEP)), DEEP, DEEP[..., None]]
    cells += [data_text(encode_pfm(FLOATS), "image/x-portable-floatmap")]
    found = load_maps(cells, str(tmp_path), max_pixels=MOST)
    for cell, values in zip(cells, found, strict=True):
        np.testing.assert_array_equal(values, FLOATS if "pfm" in str(cell) or "float" in str(cell)[:60] else DEEP)
    wrong = ["b.pfm", "c.png", "data:,x", DEEP.astype(np.int64), np.zeros((2, 3, 4), np.uint8), "a.png"]

    def refuse(values):
        raise ValueError("unknown label: 7")

    reasons = load_maps(wrong, str(tmp_path), max_pixels=MOST, change=refuse)
    expected = ["broken map: .*b.pfm: 0 bytes", "cannot read the image file: .*c.png", "bad data: text"]
    expected += ["not a map: its values are int64", r"not a map: shape \[2, 3, 4\]", "unknown label: .*a.png: 7"]
    for reason, words in zip(reasons, expected, strict=True):
        with pytest.raises(ValueError, match=words):
            raise ValueError(reason)


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "parquet", "tfrecord"])
def test_maps_are_cells_of_every_form_of_table(tmp_path, form):
    path = tmp_path / f"t.{form}"
    cells = [data_text(encode_png(DEEP)), data_text(encode_pfm(FLOATS), "image/x-portable-floatmap")]
    with open_writer(path, ["map", "name"]) as writer:
        writer.write({"map": cells, "name": ["a", "b"]})
    # CSV files have a header of their own.
    schema = None if form == "csv" else parse_schema("map:image:1,name:str:1")
    table = open_table(str(path), schema=schema, bad_rows=BadRows("fail"))
    (chunk,) = table.chunks()
    deep, floats = load_maps(chunk.columns["map"], "", max_pixels=MOST)
    np.testing.assert_array_equal(deep, DEEP)
    np.testing.assert_array_equal(floats, FLOATS)


@pytest.mark.parametrize("encoded", [encode_png(DEEP), encode_pfm(FLOATS)])
def test_encoded_bytes_in_tables_are_known_without_a_schema(tmp_path, encoded):
    example = tf.train.Example()
    example.features.feature["map"].bytes_list.value.append(encoded)
    with tf.io.TFRecordWriter(str(tmp_path / "t.tfrecord")) as writer:
        writer.write(example.SerializeToString())
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"map": pyarrow.array([encoded], pyarrow.binary())}), tmp_path / "t.parquet")
    for name in ("t.tfrecord", "t.parquet"):
        table = open_table(str(tmp_path / name), schema=None, bad_rows=BadRows("fail"))
        (chunk,) = table.chunks()
        (found,) = load_maps(chunk.columns["map"], "", max_pixels=MOST)
        np.testing.assert_array_equal(found, DEEP if encoded[:1] == b"\x89" else FLOATS)


def test_written_files_are_whole_or_none(tmp_path, monkeypatch):
    write_map(tmp_path / "a.PNG", DEEP)
    np.testing.assert_array_equal(decode_map((tmp_path / "a.PNG").read_bytes(), MOST), DEEP)
    for name, values, expected in (
        ("a.tif", DEEP, "unknown form of map"), ("a.png", FLOATS, "PNG map is uint8 or uint16"),
        ("a.pfm", DEEP, "PFM map is float32"), ("a.png", DEEP[None], "height, width"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=expected):
            write_map(tmp_path / name, values)
    assert [path.name for path in tmp_path.iterdir()] == ["a.PNG"]


def test_fixed_point_numbers_follow_kitti():
    values = np.float32([[0, 1, 0.0001, 2.00390625], [np.inf, np.nan, -3, 255.99]])
    found = maps.to_fixed_point(values, 256)
    # max(floor(256 d), 1), and 0 for what is not known.
    assert found.dtype == np.uint16 and found.tolist() == [[0, 256, 1, 513], [0, 0, 0, 65533]]
    disparities = RANDOM.uniform(0.1, 255, (20, 30)).astype(np.float32)
    again = maps.from_fixed_point(decode_map(encode_png(maps.to_fixed_point(disparities, 256)), MOST), 256)
    assert again.dtype == np.float32 and (0 <= disparities - again).all() and (disparities - again).max() <= 1 / 256
    with pytest.raises(ValueError, match="256.5 does not fit into 16 bits: at scale 256 up to 255.996 do"):
        maps.to_fixed_point(np.float32([[1, 256.5]]), 256)
