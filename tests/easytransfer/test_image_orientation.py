"""Pictures are turned as Pillow turns them, whatever holds the orientation; training, prediction and server alike."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from time_limit import within

from easytransfer.image import graph
from easytransfer.image.decode import decode
from easytransfer.image.headers import JPEG, sections
from easytransfer.image.orientation import exif_orientation

pytestmark = pytest.mark.draws_nothing

PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (3, 4, 3)).astype(np.uint8)).resize((21, 16))
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:{} /></x:xmpmeta>'
SERVED = tf.function(lambda data: graph.decode(data, 3, 10_000), input_signature=[tf.TensorSpec([], tf.string)])


def tiff(value: int, order: str = "<", kind: int = 3, before: int = 0) -> bytes:
    """EXIF data that state an orientation behind `before` other entries."""
    form = {1: "B3x", 3: "H2x", 4: "I"}[kind]
    other = struct.pack(order + "HHII", 0x0100, 4, 1, 7) * before
    entry = struct.pack(order + "HHI" + form, 0x0112, kind, 1, value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, before + 1)
    return head + other + entry + b"\0\0\0\0"


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    """A JPEG file with segments in front of those it has."""
    stream = io.BytesIO()
    PICTURE.save(stream, "JPEG", quality=95)
    parts = [struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content for kind, content in segments]
    return stream.getvalue()[:2] + b"".join(parts) + stream.getvalue()[2:]


def png(*chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    """A PNG file with chunks in front of its pixels or behind them."""
    stream = io.BytesIO()
    PICTURE.save(stream, "PNG")
    data = stream.getvalue()
    parts = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ]
    at = data.index(b"IEND") - 4 if behind else 33
    return data[:at] + b"".join(parts) + data[at:]


def webp(exif: bytes = b"", xmp: bytes = b"") -> bytes:
    stream = io.BytesIO()
    PICTURE.save(stream, "WEBP", lossless=True, exif=exif, xmp=xmp)
    return stream.getvalue()


def mpo(value: int) -> bytes:
    """Two pictures in one JPEG file, as phones make them; only the first one has an orientation."""
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = value
    PICTURE.save(stream, "MPO", exif=exif, save_all=True, append_images=[PICTURE.rotate(180)], quality=95)
    return stream.getvalue()


def xmp_of(value: object) -> bytes:
    return XMP.format(f'Orientation="{value}"').encode()


ICC = (0xE2, b"ICC_PROFILE\0" + b"\1\1" + bytes(65000))
EXIF, ADOBE = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
FILES = {
    "exif first, little": jpeg((0xE1, EXIF + tiff(6))),
    "exif first, big": jpeg((0xE1, EXIF + tiff(8, ">"))),
    "exif as the ninth entry": jpeg((0xE1, EXIF + tiff(5, ">", before=8))),
    "exif of four bytes": jpeg((0xE1, EXIF + tiff(7, ">", kind=4))),
    "exif behind 200 KB of colour profile": jpeg(ICC, ICC, ICC, (0xE1, EXIF + tiff(6))),
    "exif behind xmp without one": jpeg((0xE1, ADOBE + b"<x/>"), (0xE1, EXIF + tiff(3))),
    "exif mentioned in a comment": jpeg((0xFE, b"\xff\xe1\0\x20" + EXIF + tiff(3)), (0xE1, EXIF + tiff(6))),
    "exif in another segment only": jpeg((0xE5, b"\xff\xe1\0\x20" + EXIF + tiff(3))),
    "exif and xmp differ": jpeg((0xE1, ADOBE + xmp_of(3)), (0xE1, EXIF + tiff(6))),
    "exif of no such orientation": jpeg((0xE1, EXIF + tiff(9)), (0xE1, ADOBE + xmp_of(3))),
    "xmp attribute": jpeg((0xE1, ADOBE + xmp_of(8))),
    "xmp element": jpeg((0xE1, ADOBE + XMP.format("Orientation>6</tiff:Orientation").encode())),
    "xmp mentioned, then stated": jpeg((0xE1, ADOBE + XMP.format("Orientation").encode() + xmp_of(7))),
    "xmp of no orientation": jpeg((0xE1, ADOBE + xmp_of("x"))),
    "mpo": mpo(6),
    "mpo without": mpo(1),
    "png exif": png((b"eXIf", tiff(6))),
    "png exif with its jpeg mark": png((b"eXIf", EXIF + tiff(6, ">"))),
    "png exif behind the pixels": png((b"tEXt", b"a\0b"), (b"eXIf", tiff(3)), behind=True),
    "png xmp": png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp_of(5))),
    "webp exif": webp(EXIF + tiff(6)),
    "webp exif without its mark": webp(tiff(7, ">")),
    "webp xmp": webp(xmp=xmp_of(8)),
    **{f"png orientation {value}": png((b"eXIf", tiff(value))) for value in range(10)},
}


@pytest.mark.parametrize("name", FILES)
def test_host_and_graph_turn_what_pillow_turns(name):
    data = FILES[name]
    with Image.open(io.BytesIO(data)) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    np.testing.assert_array_equal(decode(data, channels=3, max_pixels=10_000), expected)
    np.testing.assert_array_equal(SERVED(data).numpy(), expected)


def test_most_of_these_are_turned():
    lying = [name for name, data in FILES.items() if decode(data, channels=1, max_pixels=10_000).shape[:2] == (21, 16)]
    assert len(lying) > len(FILES) // 2 and "mpo" in lying and "mpo without" not in lying


def test_data_that_are_cut_off_anywhere_state_nothing_else():
    whole = tiff(6, before=1)
    for end in range(len(whole)):
        assert int(exif_orientation(tf.constant(whole[:end]))) in (-1, 0, 6)
    for data in (jpeg((0xE1, EXIF + whole))[:30], b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\xff\xff" + EXIF):
        found = sections(tf.constant(data), JPEG)
        assert len(found.exif.numpy()) < 30 and not found.xmp.numpy()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xe1\0\x02" * 500_000 + FILES["mpo"][2:],
        b"\xff\xd8" + b"\xff" * 2_000_000 + FILES["mpo"][2:],
        png() + bytes(2_000_000) + b"eXIf",
        webp(EXIF + tiff(6)) + b"XMP \0\0\0\0" * 200_000,
    ],
    ids=["segments", "fill bytes", "chunks", "riff"],
)
def test_metadata_without_end_take_no_time(data):
    with within(10):
        try:
            SERVED(data)
        except tf.errors.InvalidArgumentError:
            pass
