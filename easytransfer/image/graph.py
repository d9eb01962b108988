"""Encoded pictures to pixels inside a graph, with the results of `easytransfer.image.decode`."""

from __future__ import annotations

import tensorflow as tf

from easytransfer.image.decode import LUMA, LUMA_ROUND, LUMA_SHIFT
from easytransfer.image.resize import ResizeMode, resize

_JPEG = b"\xff\xd8\xff"
_EXIF = b"\xff\xe1..Exif\0\0"
# EXIF stands in the first segments of a file, which hold 64 KiB each at most.
_EXIF_BYTES = 1 << 17
_ORIENTATION_TAG = 0x0112
_MOST_TAGS = 128


def decode_batch(encoded: tf.Tensor, size: int, channels: int, mode: ResizeMode) -> tf.Tensor:
    """Returns uint8 [batch, size, size, channels] of encoded pictures.

    Pictures differ in size and form, so they are decoded one by one, several at a time.

    Args:
        encoded: Bytes of JPEG, PNG, WebP or BMP files, [batch].
        size: Height and width of the result.
        channels: 1 or 3.
        mode: How other sizes are brought to this one, see `resize`.
    """
    spec = tf.TensorSpec([size, size, channels], tf.uint8)

    def one(data: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(resize(decode(data, channels), size, mode), spec.shape)

    return tf.map_fn(one, encoded, fn_output_signature=spec, parallel_iterations=16)


def decode(data: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns uint8 [height, width, channels] of one encoded picture."""

    def jpeg() -> tf.Tensor:
        # The exact transform gives the pixels Pillow gives; the default differs by a few levels.
        pixels = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE")
        return _turned(pixels, exif_orientation(data))

    def other() -> tf.Tensor:
        return tf.io.decode_image(data, expand_animations=False)

    pixels = tf.cond(tf.strings.substr(data, 0, len(_JPEG)) == _JPEG, jpeg, other)
    return _to_channels(tf.ensure_shape(pixels, [None, None, None]), channels)


def _to_channels(pixels: tf.Tensor, channels: int) -> tf.Tensor:
    def grey() -> tf.Tensor:
        return tf.repeat(pixels[..., :1], channels, axis=-1)

    def colour() -> tf.Tensor:
        if channels == 3:
            return pixels[..., :3]
        bands = tf.cast(pixels[..., :3], tf.int32)
        luma = tf.reduce_sum(bands * tf.constant(LUMA), axis=-1, keepdims=True) + LUMA_ROUND
        return tf.cast(tf.bitwise.right_shift(luma, LUMA_SHIFT), tf.uint8)

    return tf.cond(tf.shape(pixels)[-1] < 3, grey, colour)


def _turned(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes an EXIF orientation: 5 to 8 exchange rows and columns, then columns and rows are reversed as needed."""
    pixels = tf.ensure_shape(pixels, [None, None, None])
    pixels = tf.cond(orientation >= 5, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    for axis, reversing in ((1, (2, 3, 6, 7)), (0, (3, 4, 7, 8))):
        wanted = tf.reduce_any(orientation == tf.constant(reversing))
        pixels = tf.cond(wanted, lambda p=pixels, a=axis: tf.reverse(p, [a]), lambda p=pixels: p)
    return pixels


def exif_orientation(data: tf.Tensor) -> tf.Tensor:
    """Returns the orientation 1 to 8 that the EXIF segment of a JPEG file states, 1 where there is none; int32.

    The segment holds a TIFF file: byte order, where its first directory is, and entries of 12 bytes each.
    """
    start = tf.strings.substr(data, 0, _EXIF_BYTES)
    # Zeros behind the end keep every reading of a cut-off or empty directory inside.
    values = tf.pad(tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int32), [[0, len(_EXIF) + 12]])
    count = tf.shape(values)[0]
    windows = count - len(_EXIF)
    fits = tf.ones([windows], tf.bool)
    for offset, byte in enumerate(_EXIF):
        if byte != ord("."):
            fits &= values[offset : offset + windows] == byte
    tiff = tf.argmax(tf.cast(fits, tf.int32), output_type=tf.int32) + len(_EXIF)

    def number(place: tf.Tensor, size: int) -> tf.Tensor:
        place = tf.clip_by_value(place, 0, count - size)
        found = [tf.gather(values, place + i) for i in range(size)]
        little = sum(byte * 256**i for i, byte in enumerate(found[:2]))
        big = sum(byte * 256**i for i, byte in enumerate(found[::-1][:2]))
        # Offsets of 64 KiB and more cannot lie inside the segment, so two bytes of four are enough.
        return tf.where(values[tf.minimum(tiff, count - 1)] == ord("I"), little, big)

    directory = tiff + number(tiff + 4, 4)
    places = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), _MOST_TAGS))
    stated = tf.where(number(places, 2) == _ORIENTATION_TAG, number(places + 8, 2), 0)
    found = tf.reduce_max(tf.concat([stated, [0]], axis=0))
    return tf.where(tf.reduce_any(fits) & (found >= 1) & (found <= 8), found, 1)
