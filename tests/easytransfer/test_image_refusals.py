"""What no decoder may see: it is refused by its header, on the host and in the graph alike, whatever else it holds."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from easytransfer.image import graph
from easytransfer.image.decode import decode
from easytransfer.image.headers import FORMS, form_of, refusal
from easytransfer.run.log import warn_once

pytestmark = pytest.mark.draws_nothing

MOST = 10_000
RANDOM = np.random.default_rng(5)
FRAMES = [Image.fromarray(RANDOM.integers(0, 256, (24, 20, 3)).astype(np.uint8)) for _ in range(3)]
SERVED = tf.function(
    lambda data: graph.decode_batch(data, 8, 3, "stretch", MOST), input_signature=[tf.TensorSpec([None], tf.string)]
)


def encoded(form: str, picture: Image.Image = FRAMES[0], **settings) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **settings)
    return stream.getvalue()


def animated(form: str) -> bytes:
    return encoded(form, save_all=True, append_images=FRAMES[1:])


def bmp(bits: int = 24, packing: int = 0, header: int = 40, start: int | None = None, size=(4, 3), body=None) -> bytes:
    """A BMP file whose header says so."""
    row = (size[0] * bits // 8 + 3) // 4 * 4
    body = bytes(row * abs(size[1])) if body is None else body
    fields = struct.pack("<IiiHHIIiiII", header, *size, 1, bits, packing, len(body), 1, 1, 0, 0)
    start = 14 + header if start is None else start
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, start) + fields + bytes(max(start - 54, 0)) + body


def png_of(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">II", width, height) + b"\x08\0\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + bytes(40)


def claiming(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


LOSSY, LOSSLESS = encoded("WEBP"), encoded("WEBP", lossless=True)
LOSSY_AT = LOSSY.index(b"\x9d\x01\x2a") + 3
SOF = encoded("JPEG").index(b"\xff\xc0") + 5
REFUSED = {
    "webp animation": (animated("WEBP"), "animated image: pictures of one frame are read"),
    "webp animation cut off": (animated("WEBP")[:40], "animated image"),
    "png animation": (animated("PNG"), "animated image: pictures of one frame are read"),
    "gif animation": (animated("GIF"), "not an image: JPEG, PNG, WebP and BMP files are read"),
    "gif": (encoded("GIF"), "not an image: JPEG, PNG, WebP and BMP files are read"),
    "tiff": (encoded("TIFF"), "not an image"),
    "text": (b"hello, this is text", "not an image"),
    "sound": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "not an image"),
    "png bomb": (png_of(50_000, 50_000), "image too large: 50000 x 50000 is more than max_pixels=10000"),
    "png of 2**64 pixels": (png_of(2**32 - 1, 2**32 - 1), "image too large"),
    "png without pixels": (png_of(0, 9), "broken image: it has no pixels"),
    "png of 8 bytes": (b"\x89PNG\r\n\x1a\n", "broken image: a PNG file without its header"),
    "jpeg bomb": (claiming(encoded("JPEG"), SOF, b"\xff\xdc\xff\xdc"), "image too large: 65500 x 65500"),
    "webp lossy bomb": (claiming(LOSSY, LOSSY_AT, b"\xff\x3f\xff\x3f"), "image too large: 16383 x 16383"),
    "webp lossless bomb": (claiming(LOSSLESS, 21, b"\xff\xff\xff\x0f"), "image too large: 16384 x 16384"),
    "webp extended bomb": (
        b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6 + LOSSY[12:],
        "image too large: 16777216 x 16777216",
    ),
    "webp of an unknown kind": (claiming(LOSSY, 12, b"VP8Q"), "broken image: a WebP file without its header"),
    "webp with frames and no flag": (
        b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x13\0\0\x17\0\0ANMF\x04\0\0\0abcd" + LOSSY[12:],
        "animated image",
    ),
    "bmp bomb": (bmp(size=(30_000, 30_000), body=b""), "broken image: a BMP file that is cut off"),
    "bmp too large": (bmp(size=(200, 100)), "image too large: 200 x 100"),
    "bmp of width -4": (bmp(size=(-4, 3), body=bytes(99)), "broken image: it has no pixels"),
    "bmp cut off": (bmp()[:-1], "broken image: a BMP file that is cut off"),
    "bmp pixels in the header": (bmp(start=20), "broken image: a BMP file that is cut off"),
    "bmp pixels before the file": (
        claiming(bmp(), 10, b"\xf8\xff\xff\xff"),
        "broken image: a BMP file that is cut off",
    ),
    "bmp of 4 bits": (
        encoded("BMP", Image.new("1", (9, 9))),
        "form of image that is not read: BMP files of 8, 24 or 32",
    ),
    "bmp of 16 bits": (bmp(bits=16), "form of image that is not read"),
    "bmp compressed": (bmp(bits=8, packing=1, body=bytes(2000)), "form of image that is not read"),
    "bmp of OS/2": (claiming(bmp(), 14, b"\x0c"), "form of image that is not read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_host_and_graph_refuse_alike(name):
    data, expected = REFUSED[name]
    with pytest.raises(ValueError) as host:
        decode(data, channels=3, max_pixels=MOST)
    told = str(host.value).replace(f"begins with {data[:8]!r}; ", "")
    assert told.startswith(expected) and f"a picture of {len(data)} bytes" in str(host.value)
    with pytest.raises(tf.errors.InvalidArgumentError) as served:
        SERVED([encoded("PNG"), data])
    assert f"[{expected}" in served.value.message and f"a picture of {len(data)} bytes" in served.value.message


@pytest.mark.parametrize("name", REFUSED)
def test_without_assertions_no_decoder_gets_a_byte(name, monkeypatch):
    """Optimizers may remove assertions, so the bytes do not depend on them."""
    monkeypatch.setattr(tf.debugging, "Assert", lambda *_: tf.no_op())
    seen = []
    for operation in ("decode_png", "decode_image", "decode_bmp", "decode_jpeg", "decode_raw"):
        monkeypatch.setattr(tf.io, operation, noting(seen, getattr(tf.io, operation), operation))
    data = tf.constant(REFUSED[name][0])
    form = int(form_of(data))
    if form < len(FORMS):
        assert refusal(data, form, MOST).numpy() or "animation" in name or "frames" in name
    try:
        graph.decode(data, 3, MOST)
    except tf.errors.InvalidArgumentError:
        pass
    assert all(found == b"" for operation, found in seen if operation != "decode_raw")


def noting(seen: list, operation, name: str):
    def call(data, *args, **kwargs):
        seen.append((name, data.numpy()))
        return operation(data, *args, **kwargs)

    return call


def test_bmp_files_are_read_as_pillow_reads_them():
    colours = FRAMES[0].quantize(200)
    wide = FRAMES[0].convert("RGBA")
    down = bmp(size=(4, -3), body=RANDOM.bytes(36))
    masks = b"\0\0\xff\0" + b"\0\xff\0\0" + b"\xff\0\0\0"
    fields = bmp(bits=32, packing=3, header=52, start=66, body=RANDOM.bytes(48))
    fields = fields[:54] + masks + fields[66:]
    files = [encoded("BMP", colours), encoded("BMP", FRAMES[0].convert("L")), encoded("BMP", wide), down, fields]
    # A place behind the palette is black.
    short = encoded("BMP", FRAMES[0].quantize(5))
    files.append(claiming(short, 46, struct.pack("<I", 5)))
    for data in files:
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(decode(data, channels=3, max_pixels=MOST), expected)
        grey = np.asarray(Image.fromarray(expected).convert("L"))
        np.testing.assert_array_equal(decode(data, channels=1, max_pixels=MOST)[..., 0], grey)


def test_values_of_16_bits_are_told_once(capsys):
    warn_once.cache_clear()
    deep = encoded("PNG", Image.fromarray(RANDOM.integers(0, 65536, (4, 5)).astype(np.uint16)))
    for data in (encoded("PNG"), deep, deep):
        decode(data, channels=1, max_pixels=MOST)
    assert capsys.readouterr().err.count("only the upper 8 bits are read") == 1
