"""Encoded pictures to pixels inside a graph: the one decoder of training, prediction and serving.

By first bytes a picture goes to the decoder of its form, and to none before its header was found right: JPEG, PNG, WebP
and BMP of one frame and of a bounded number of pixels are decoded, everything else is refused.
"""

from __future__ import annotations

import tensorflow as tf

from easytransfer.image.colour import LUMA, LUMA_ROUND, LUMA_SHIFT
from easytransfer.image.headers import (
    ANIMATED,
    BMP,
    FORMS,
    JPEG,
    NOT_AN_IMAGE,
    PNG,
    WEBP,
    form_of,
    number,
    part,
    refusal,
    sections,
)
from easytransfer.image.orientation import orientation, turned
from easytransfer.image.resize import ResizeMode, resize
from easytransfer.image.size import ImageSize, height_width

# Each of them may take 16 bytes a pixel while it is resized.
_AT_A_TIME = 4


def decode_batch(
    encoded: tf.Tensor, size: ImageSize, channels: int, mode: ResizeMode, max_pixels: int, crop_top: int = 0
) -> tf.Tensor:
    """Returns uint8 [batch, height, width, channels] of encoded pictures.

    Pictures differ in size and form, so they are decoded one by one, several at a time.

    Args:
        encoded: Bytes of JPEG, PNG, WebP or BMP files, [batch].
        size: Height and width of the result.
        channels: 1 or 3.
        mode: How other sizes are brought to this one, see `resize`.
        max_pixels: Larger pictures are refused.
        crop_top: Rows cut off at the top before the picture is resized.
    """
    spec = tf.TensorSpec([*height_width(size), channels], tf.uint8)

    def one(data: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(resize(decode(data, channels, max_pixels), size, mode, crop_top), spec.shape)

    # As on the host: a GPU would resize with other roundings, and wait for every number of a header.
    with tf.device("/device:CPU:0"):
        return tf.map_fn(one, encoded, fn_output_signature=spec, parallel_iterations=_AT_A_TIME)


def decode(data: tf.Tensor, channels: int, max_pixels: tf.Tensor | int, plain: tf.Tensor | bool = False) -> tf.Tensor:
    """Returns uint8 [height, width, channels] of one encoded picture, turned as its EXIF or XMP data say.

    Alpha is left out, palettes become RGB, and 16-bit values lose their lower byte. A picture that is not decoded fails
    an assertion with the reason of `headers.refusal`; the decoders raise InvalidArgumentError.

    Args:
        data: The file, string.
        channels: 1 or 3.
        max_pixels: Larger pictures are refused before their pixels are decoded.
        plain: Whether it is known to hold nothing beside pixels, see `headers.sections`.
    """

    def jpeg() -> tf.Tensor:
        safe = _accepted(data, refusal(data, JPEG, max_pixels))
        # The exact transform gives the pixels Pillow gives; the default differs by a few levels.
        pixels = tf.io.decode_jpeg(safe, dct_method="INTEGER_ACCURATE")
        return turned(_of_image(pixels), orientation(sections(safe, JPEG, plain)))

    def png() -> tf.Tensor:
        safe, stated = _of_one_frame(data, PNG, max_pixels, plain)
        return turned(_of_image(tf.io.decode_png(safe)), stated)

    def webp() -> tf.Tensor:
        safe, stated = _of_one_frame(data, WEBP, max_pixels, plain)
        # Servers know this operation longer than the one for WebP alone; no other form gets here.
        return turned(_of_image(tf.io.decode_image(safe, expand_animations=False)), stated)

    def bmp() -> tf.Tensor:
        safe = _accepted(data, refusal(data, BMP, max_pixels))
        return _coloured(_of_image(tf.io.decode_bmp(safe)), safe)

    def unknown() -> tf.Tensor:
        read = f"{', '.join(FORMS[:-1])} and {FORMS[-1]} files are read"
        return tf.io.decode_raw(_accepted(data, tf.constant(f"{NOT_AN_IMAGE}: {read}")), tf.uint8)[:, None, None]

    found = tf.switch_case(form_of(data), [jpeg, png, webp, bmp, unknown])
    return _to_channels(_of_image(found), channels)


def _of_image(pixels: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(pixels, [None, None, None])


def _of_one_frame(
    data: tf.Tensor, form: int, max_pixels: tf.Tensor | int, plain: tf.Tensor | bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the bytes of a picture of one frame and the orientation it states."""
    found = sections(data, form, plain)
    problem = refusal(data, form, max_pixels)
    animated = (problem == "") & found.animated
    safe = _accepted(data, tf.where(animated, f"{ANIMATED}: pictures of one frame are read", problem))
    return safe, orientation(found)


def _accepted(data: tf.Tensor, problem: tf.Tensor) -> tf.Tensor:
    """Returns the bytes where there is no problem; else fails, and returns none so that no decoder can see them."""
    fine = problem == ""
    size = tf.strings.as_string(tf.strings.length(data))
    text = tf.strings.join([problem, " (a picture of ", size, " bytes)"])
    with tf.control_dependencies([tf.debugging.Assert(fine, [text])]):
        return tf.where(fine, data, "")


def _coloured(pixels: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """Returns the colours of a BMP picture, whose bytes are places in its palette where a pixel has 8 bits."""

    def from_palette() -> tf.Tensor:
        header, used = (number(data, at, 4, little=True) for at in (14, 46))
        size = 4 * tf.where((used == 0) | (used > 256), tf.constant(256, tf.int64), used)
        palette = tf.io.decode_raw(part(data, 14 + header, size), tf.uint8, fixed_length=4 * 256)
        colours = tf.reshape(palette, [256, 4])[:, 2::-1]
        return tf.gather(colours, tf.cast(pixels[..., 0], tf.int32))

    return tf.cond(tf.shape(pixels)[-1] == 1, from_palette, lambda: pixels)


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
