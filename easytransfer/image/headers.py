"""What an encoded picture says of itself before its pixels, read inside a graph.

Everything here is sums and slices of bytes that stay inside the picture whatever it claims. Decoders see a picture only
when this has accepted it: they allocate what a header asks for, and some of them write beyond it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from easytransfer.image.files import TOO_LARGE

# The kinds of pictures that are not decoded; a detail follows after a colon.
NOT_AN_IMAGE = "not an image"
ANIMATED = "animated image"
UNREAD_FORM = "form of image that is not read"
BROKEN = "broken image"

# What `form_of` counts.
FORMS = ("JPEG", "PNG", "WebP", "BMP")
JPEG, PNG, WEBP, BMP = range(len(FORMS))
_ANIMATION, _EXIF, _XMP = 2, 8, 4
_BMP_HEADER = 40
# Red, green and blue of four bytes, where a BMP file names them at all.
_BMP_MASKS = b"\0\0\xff\0" + b"\0\xff\0\0" + b"\xff\0\0\0"
# Segments and chunks that are looked at, so that a file of empty ones takes no time.
_MOST_SECTIONS = 4096
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_XMP = b"XML:com.adobe.xmp\0\0\0"


def part(data: tf.Tensor, at: tf.Tensor | int, size: tf.Tensor | int) -> tf.Tensor:
    """Returns the bytes of `data` from `at` >= 0 on, at most `size` of them; fewer where it ends before."""
    at = tf.minimum(tf.cast(at, tf.int64), length(data))
    return tf.strings.substr(data, at, tf.cast(size, tf.int64))


def length(data: tf.Tensor) -> tf.Tensor:
    """Returns the number of bytes, int64."""
    return tf.cast(tf.strings.length(data), tf.int64)


def number(data: tf.Tensor, at: tf.Tensor | int, size: int, little: bool) -> tf.Tensor:
    """Returns the unsigned number in 1, 2 or 4 bytes, int64; bytes behind the end are zero."""
    kind = {1: tf.uint8, 2: tf.uint16, 4: tf.int32}[size]
    found = tf.io.decode_raw(part(data, at, size), kind, little_endian=little, fixed_length=size)[0]
    wide = tf.cast(found, tf.int64)
    return tf.where(wide < 0, wide + 2**32, wide) if kind == tf.int32 else wide


def form_of(data: tf.Tensor) -> tf.Tensor:
    """Returns which of `FORMS` the first bytes announce, their number where it is none of them; int32."""
    webp = (part(data, 0, 4) == b"RIFF") & (part(data, 8, 4) == b"WEBP")
    png = part(data, 0, 8) == b"\x89PNG\r\n\x1a\n"
    found = [part(data, 0, 3) == b"\xff\xd8\xff", png, webp, part(data, 0, 2) == b"BM"]
    return tf.argmax(tf.stack([*found, True]), output_type=tf.int32)


def refusal(data: tf.Tensor, form: int, max_pixels: tf.Tensor | int) -> tf.Tensor:
    """Returns why a picture must not be decoded as `kind: detail`, the empty text where it may be; string.

    Args:
        data: Bytes that begin like `form`.
        form: Which of `FORMS`.
        max_pixels: More are refused.
    """
    problems = (_jpeg_problem, _png_problem, _webp_problem, _bmp_problem)
    sizes = (_jpeg_size, _png_size, _webp_size, _bmp_size)
    problem = problems[form](data)
    # Looking for the size of a JPEG picture is the only one of them that fails by itself, and it comes from no decoder.
    width, height = sizes[form](data)
    most = tf.cast(max_pixels, tf.int64)
    shown = [tf.strings.as_string(value) for value in (width, height, most)]
    large = tf.strings.join([f"{TOO_LARGE}: ", shown[0], " x ", shown[1], " is more than max_pixels=", shown[2]])
    problem = tf.where((problem == "") & ((width < 1) | (height < 1)), f"{BROKEN}: it has no pixels", problem)
    # Each side alone is below 2**32, their product may not fit.
    too_large = (height > 0) & (width > most // tf.maximum(height, 1))
    return tf.where((problem == "") & too_large, large, problem)


def _jpeg_problem(data: tf.Tensor) -> tf.Tensor:
    del data
    return tf.constant("")


def _jpeg_size(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.image.extract_jpeg_shape(data)
    return tf.cast(shape[1], tf.int64), tf.cast(shape[0], tf.int64)


def _png_problem(data: tf.Tensor) -> tf.Tensor:
    whole = (number(data, 8, 4, little=False) == 13) & (part(data, 12, 4) == b"IHDR")
    return tf.where(whole, "", f"{BROKEN}: a PNG file without its header")


def _png_size(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return number(data, 16, 4, little=False), number(data, 20, 4, little=False)


def _webp_problem(data: tf.Tensor) -> tf.Tensor:
    kind, flags = part(data, 12, 4), number(data, 20, 1, little=True)
    extended = kind == b"VP8X"
    animated = extended & (tf.bitwise.bitwise_and(flags, _ANIMATION) != 0)
    lossy = (kind == b"VP8 ") & (part(data, 23, 3) == b"\x9d\x01\x2a")
    lossless = (kind == b"VP8L") & (part(data, 20, 1) == b"\x2f")
    known = lossy | lossless | (extended & (number(data, 16, 4, little=True) == 10))
    problem = tf.where(known, "", f"{BROKEN}: a WebP file without its header")
    return tf.where(animated, f"{ANIMATED}: pictures of one frame are read", problem)


def _webp_size(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    kind = part(data, 12, 4)

    def bits(at: int, shift: int, count: int) -> tf.Tensor:
        return number(data, at, 4, little=True) // 2**shift % 2**count

    lossy = bits(26, 0, 14), bits(28, 0, 14)
    lossless = bits(21, 0, 14) + 1, bits(21, 14, 14) + 1
    extended = bits(24, 0, 24) + 1, bits(27, 0, 24) + 1
    return tuple(
        tf.where(kind == b"VP8X", c, tf.where(kind == b"VP8L", b, a))
        for a, b, c in zip(lossy, lossless, extended, strict=True)
    )


def _bmp_problem(data: tf.Tensor) -> tf.Tensor:
    start, header = number(data, 10, 4, little=True), number(data, 14, 4, little=True)
    bits, packing = number(data, 28, 2, little=True), number(data, 30, 4, little=True)
    masks = (packing == 3) & (bits == 32) & (part(data, 54, 12) == _BMP_MASKS)
    known = (header >= _BMP_HEADER) & ((packing == 0) | masks) & tf.reduce_any(bits == [8, 24, 32])
    width, height = _bmp_size(data)
    row = (bits // 8 * width + 3) // 4 * 4
    # Two factors below 2**33 and 2**31 fit into 64 bits.
    end = start + (height - 1) * row + bits // 8 * width
    whole = (start >= 14 + header) & (end <= length(data))
    unread = f"{UNREAD_FORM}: BMP files of 8, 24 or 32 bits a pixel without compression are read"
    return tf.where(known, tf.where(whole, "", f"{BROKEN}: a BMP file that is cut off"), unread)


def _bmp_size(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    width, height = (number(data, at, 4, little=True) for at in (18, 22))
    # Rows of a picture of negative height are stored from top to bottom; a negative width is none.
    signed = [tf.where(value < 2**31, value, value - 2**32) for value in (width, height)]
    return signed[0], tf.abs(signed[1])


@dataclass(frozen=True)
class Sections:
    """What stands beside the pixels of a picture.

    Attributes:
        exif: The TIFF file with the data of the camera, empty where there is none; string.
        xmp: The beginning of the XMP packet, the same.
        animated: Whether there is a section that only animations have; bool.
    """

    exif: tf.Tensor
    xmp: tf.Tensor
    animated: tf.Tensor


# One of these is in every file where `sections` finds something.
SECTION_MARKS = (b"Exif\0\0", b"tiff:Orientation", b"eXIf", b"EXIF", b"acTL", b"ANIM", b"ANMF")

# Where the next section begins, where this one's content does, how long that is, and what it is: EXIF, XMP, animation.
_Step = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]


def sections(data: tf.Tensor, form: int, plain: tf.Tensor | bool = False) -> Sections:
    """Returns the sections of a JPEG, PNG or WebP picture, the first of each kind.

    Args:
        data: The file.
        form: Which of `FORMS`.
        plain: Whether it is known to hold none of `SECTION_MARKS`; then it is not looked through.
    """
    step: Callable[[tf.Tensor, tf.Tensor], _Step] = (_jpeg_step, _png_step, _webp_step)[form]
    size = length(data)
    nothing = tf.zeros([2], tf.int64)

    def more(count: tf.Tensor, at: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (count < _MOST_SECTIONS) & (at < end)

    def look(
        count: tf.Tensor, at: tf.Tensor, exif: tf.Tensor, xmp: tf.Tensor, animated: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        following, begin, extent, is_exif, is_xmp, is_animation = step(data, at)
        here = tf.stack([begin, extent])
        exif = tf.where(is_exif & (exif[1] == 0), here, exif)
        xmp = tf.where(is_xmp & (xmp[1] == 0), here, xmp)
        return count + 1, following, exif, xmp, animated | is_animation

    start = tf.constant((2, 8, 12)[form], tf.int64)
    end = tf.where(plain, tf.zeros([], tf.int64), size)
    _, _, exif, xmp, animated = tf.while_loop(
        more, look, (tf.constant(0), start, nothing, nothing, tf.constant(False)), parallel_iterations=1
    )
    return Sections(part(data, *tf.unstack(exif)), part(data, *tf.unstack(xmp)), animated)


def _jpeg_step(data: tf.Tensor, at: tf.Tensor) -> _Step:
    marker, extent = number(data, at, 2, little=False), number(data, at + 2, 2, little=False)
    kind = marker % 256
    # Fill bytes and what is no marker are passed byte by byte; some markers have no content; pixels follow after SOS.
    filling = (marker < 0xFF00) | (kind == 0xFF)
    bare = (kind <= 1) | ((kind >= 0xD0) & (kind <= 0xD8))
    last = (kind == 0xD9) | (kind == 0xDA)
    step = tf.where(filling, tf.constant(1, tf.int64), tf.where(bare, tf.constant(2, tf.int64), extent + 2))
    following = tf.where(~filling & last, length(data), at + step)
    app1 = ~filling & (kind == 0xE1)
    is_exif = app1 & (part(data, at + 4, 6) == b"Exif\0\0")
    is_xmp = app1 & (part(data, at + 4, len(_JPEG_XMP)) == _JPEG_XMP)
    return following, at + 4, tf.maximum(extent - 2, 0), is_exif, is_xmp, tf.constant(False)


def _png_step(data: tf.Tensor, at: tf.Tensor) -> _Step:
    extent, kind = number(data, at, 4, little=False), part(data, at + 4, 4)
    is_xmp = (kind == b"iTXt") & (part(data, at + 8, len(_PNG_XMP)) == _PNG_XMP)
    following = tf.where(kind == b"IEND", length(data), at + 12 + extent)
    return following, at + 8, extent, kind == b"eXIf", is_xmp, kind == b"acTL"


def _webp_step(data: tf.Tensor, at: tf.Tensor) -> _Step:
    extent, kind = number(data, at + 4, 4, little=True), part(data, at, 4)
    flags = tf.where(part(data, 12, 4) == b"VP8X", number(data, 20, 1, little=True), tf.constant(0, tf.int64))
    is_exif = (kind == b"EXIF") & (tf.bitwise.bitwise_and(flags, _EXIF) != 0)
    is_xmp = (kind == b"XMP ") & (tf.bitwise.bitwise_and(flags, _XMP) != 0)
    animated = (kind == b"ANIM") | (kind == b"ANMF")
    return at + 8 + extent + extent % 2, at + 8, extent, is_exif, is_xmp, animated
