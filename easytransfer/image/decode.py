"""Cells of image columns to pixels, on the host with the decoder of the served graph."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.image import graph
from easytransfer.image.colour import LUMA, LUMA_ROUND, LUMA_SHIFT
from easytransfer.image.files import decode_cell, load_each
from easytransfer.image.headers import BROKEN, NOT_AN_IMAGE, SECTION_MARKS
from easytransfer.run.log import warn_once

# A kind of bad cells beside those of `headers` and `files`; a detail follows after a colon.
WRONG_ARRAY = "not an image array"
# What a graph says when it refuses a picture, see `graph.decode`.
_REFUSED = re.compile(r"assertion failed: \[([^\]]*)\]")
# A PNG file says in this byte how many bits a value has.
_PNG, _PNG_BITS = b"\x89PNG", 24
_SIXTEEN_BITS = (
    "there are pictures of 16 bits a value: of each value only the upper 8 bits are read, here and by the server; "
    "where the content is in the lower ones, scale the pictures to 8 bits first"
)


def load_images(
    cells: list[Any],
    folder: str,
    *,
    channels: int,
    max_pixels: int,
    change: Callable[[np.ndarray], np.ndarray] = lambda image: image,
) -> list[np.ndarray | str]:
    """Reads and decodes cells in several threads.

    Args:
        cells: Paths, `data:` texts, encoded bytes or uint8 arrays.
        folder: What relative paths are relative to.
        channels: 1 or 3.
        max_pixels: Larger pictures are refused before their pixels are decoded.
        change: What is kept of each image, such as a smaller copy; only a few are held at their own size at a time.

    Returns:
        uint8 [height, width, channels] for each cell, or the reason why there is none.
    """
    return load_each(
        cells, lambda cell: load_image(cell, folder, channels=channels, max_pixels=max_pixels, change=change)
    )


def load_image(
    cell: Any,
    folder: str = "",
    *,
    channels: int,
    max_pixels: int,
    change: Callable[[np.ndarray], np.ndarray] = lambda image: image,
) -> np.ndarray:
    """Returns the pixels of one cell; arguments as in `load_images`.

    Raises:
        ValueError: There is no usable picture; the message is the reason shown to the user.
    """
    if isinstance(cell, np.ndarray):
        return change(to_channels(_checked_array(cell), channels))
    return decode_cell(cell, folder, lambda data: change(decode(data, channels=channels, max_pixels=max_pixels)))


def decode(data: bytes, *, channels: int, max_pixels: int) -> np.ndarray:
    """Returns uint8 [height, width, channels] of an encoded picture, as `graph.decode` makes them.

    Raises:
        ValueError: It is no picture, is damaged, of a form that is not read, or has more than `max_pixels` pixels.
    """
    if not data:
        raise ValueError(f"{NOT_AN_IMAGE}: no bytes")
    try:
        with tf.device("/cpu:0"):
            # To search here is much faster than to go through every file in the graph.
            plain = not any(mark in data for mark in SECTION_MARKS)
            found = _decoder(channels)(tf.constant(data), tf.constant(max_pixels, tf.int64), tf.constant(plain))
            pixels = found.numpy()
    except tf.errors.InvalidArgumentError as error:
        refused = _REFUSED.search(error.message)
        reason = refused[1] if refused else f"{BROKEN}: {error.message.splitlines()[0]}"
        if reason.startswith(NOT_AN_IMAGE):
            reason = reason.replace(": ", f": begins with {data[:8]!r}; ", 1)
        raise ValueError(reason) from None
    if data.startswith(_PNG) and data[_PNG_BITS] > 8:
        warn_once(_SIXTEEN_BITS)
    return pixels


@functools.cache
def _decoder(channels: int) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    inputs = [tf.TensorSpec([], kind) for kind in (tf.string, tf.int64, tf.bool)]
    decode = tf.function(lambda data, most, plain: graph.decode(data, channels, most, plain), autograph=False)
    return decode.get_concrete_function(*inputs)


def to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Returns uint8 [height, width, channels] of 1, 2 (grey, alpha), 3 or 4 (RGB, alpha) bands.

    Grey is Pillow's luma `(19595 R + 38470 G + 7471 B + 32768) >> 16`; colour of grey is three equal channels.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[-1] < 3:
        return np.repeat(pixels[..., :1], channels, axis=-1)
    pixels = pixels[..., :3]
    if channels == 3:
        return pixels
    luma = (pixels.astype(np.int32) @ np.array(LUMA, np.int32) + LUMA_ROUND) >> LUMA_SHIFT
    return luma.astype(np.uint8)[..., None]


def _checked_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ValueError(f"{WRONG_ARRAY}: its values are {array.dtype}, uint8 is read")
    if array.ndim not in (2, 3) or not array.size or (array.ndim == 3 and not 1 <= array.shape[-1] <= 4):
        raise ValueError(f"{WRONG_ARRAY}: shape {list(array.shape)} is not height, width(, channels)")
    return array
