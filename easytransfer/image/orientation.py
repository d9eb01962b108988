"""The orientation that EXIF or XMP data state, and pictures turned by it, inside a graph."""

from __future__ import annotations

import tensorflow as tf

from easytransfer.image.headers import Sections, number, part

_TAG = 0x0112
_LONG = 4
_MOST_TAGS, _TAG_BYTES = 128, 12
_EXIF_MARK = b"Exif\0\0"
_XMP_NAME = "tiff:Orientation"
# Orientation stands in the first kilobytes of a packet, which a JPEG file limits to 64 KiB.
_XMP_BYTES = 1 << 16
_NOT_STATED = -1


def orientation(found: Sections) -> tf.Tensor:
    """Returns the orientation 1 to 8 of a picture, that of EXIF before that of XMP, 1 where none is stated; int32."""
    exif = exif_orientation(found.exif)
    stated = tf.cond(exif == _NOT_STATED, lambda: _xmp_orientation(found.xmp), lambda: exif)
    return tf.where((stated >= 1) & (stated <= 8), stated, 1)


def exif_orientation(exif: tf.Tensor) -> tf.Tensor:
    """Returns the number that EXIF data have for the orientation, -1 where they have none; int32.

    They are a TIFF file: byte order, where its first directory is, and entries of 12 bytes each.
    """
    tiff = tf.where(part(exif, 0, len(_EXIF_MARK)) == _EXIF_MARK, part(exif, len(_EXIF_MARK), 1 << 30), exif)
    order = part(tiff, 0, 2)
    little = order == b"II"

    def either(at: tf.Tensor | int, size: int) -> tf.Tensor:
        return tf.where(little, number(tiff, at, size, little=True), number(tiff, at, size, little=False))

    directory = either(4, 4)
    entries = part(tiff, directory + 2, _MOST_TAGS * _TAG_BYTES)
    bytes_ = tf.io.decode_raw(entries, tf.uint8, fixed_length=_MOST_TAGS * _TAG_BYTES)
    table = tf.cast(tf.reshape(bytes_, [_MOST_TAGS, _TAG_BYTES]), tf.int32)

    def column(at: int) -> tf.Tensor:
        low, high = table[:, at], table[:, at + 1]
        return tf.where(little, low + 256 * high, 256 * low + high)

    # Four bytes, where somebody wrote so many, hold a small number in the first or the last two of them.
    value = tf.where((column(2) == _LONG) & ~little, column(10), column(8))
    here = (column(0) == _TAG) & (tf.range(_MOST_TAGS) < tf.cast(either(directory, 2), tf.int32))
    known = tf.reduce_any(here) & (little | (order == b"MM"))
    return tf.where(known, value[tf.argmax(tf.cast(here, tf.int32))], _NOT_STATED)


def _xmp_orientation(xmp: tf.Tensor) -> tf.Tensor:
    """Returns the digit that an XMP packet has for the orientation, as attribute or as element, 0 where it has none."""
    behind = tf.strings.split(part(xmp, 0, _XMP_BYTES), _XMP_NAME)[1:]
    attribute = tf.strings.substr(behind, 0, 3)[:, None] == [f'="{digit}' for digit in range(10)]
    element = tf.strings.substr(behind, 0, 2)[:, None] == [f">{digit}" for digit in range(10)]
    places = tf.where(attribute | element)
    return tf.cast(tf.reduce_max(tf.concat([places[:1, 1], [0]], axis=0)), tf.int32)


def turned(pixels: tf.Tensor, stated: tf.Tensor) -> tf.Tensor:
    """Undoes an orientation: 5 to 8 exchange rows and columns, then columns and rows are reversed as needed."""
    pixels = tf.cond(stated >= 5, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    for axis, reversing in ((1, (2, 3, 6, 7)), (0, (3, 4, 7, 8))):
        wanted = tf.reduce_any(stated == tf.constant(reversing))
        pixels = tf.cond(wanted, lambda p=pixels, a=axis: tf.reverse(p, [a]), lambda p=pixels: p)
    return pixels
