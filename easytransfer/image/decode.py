"""Cells of image columns to pixels, on the host with the decoder of the served graph."""

from __future__ import annotations

import base64
import functools
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.config.paths import expand_home
from easytransfer.image import graph
from easytransfer.image.colour import LUMA, LUMA_ROUND, LUMA_SHIFT
from easytransfer.image.headers import BROKEN, NOT_AN_IMAGE, SECTION_MARKS, TOO_LARGE
from easytransfer.run.log import warn_once

# The kinds of bad cells beside those of `headers`; a detail may follow after a colon.
UNREADABLE = "cannot read the image file"
BAD_DATA_TEXT = "bad data: text"
WRONG_ARRAY = "not an image array"
# An encoded picture of more bytes is not read: at 8 bytes a pixel it would be beyond any useful `max_pixels`.
MOST_BYTES = 1 << 28
_THREADS = 8
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

    def load(cell: Any) -> np.ndarray | str:
        try:
            return change(load_image(cell, folder, channels=channels, max_pixels=max_pixels))
        except ValueError as error:
            return str(error)

    if all(isinstance(cell, np.ndarray) for cell in cells):
        return [load(cell) for cell in cells]
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "decode") as threads:
        return list(threads.map(load, cells, chunksize=16))


def load_image(cell: Any, folder: str = "", *, channels: int, max_pixels: int) -> np.ndarray:
    """Returns the pixels of one cell; arguments as in `load_images`.

    Raises:
        ValueError: There is no usable picture; the message is the reason shown to the user.
    """
    if isinstance(cell, np.ndarray):
        return to_channels(_checked_array(cell), channels)
    if isinstance(cell, bytes):
        return decode(cell, channels=channels, max_pixels=max_pixels)
    if cell.startswith("data:"):
        return decode(_data_text(cell), channels=channels, max_pixels=max_pixels)
    try:
        path = os.path.join(folder, expand_home(cell))
    except ValueError as error:
        raise ValueError(f"{UNREADABLE}: {error}") from error
    try:
        if os.path.getsize(path) > MOST_BYTES:
            raise ValueError(f"{TOO_LARGE}: {path} has more than {MOST_BYTES} bytes")
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and str(error).startswith(TOO_LARGE):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{UNREADABLE}: {path}: {reason}") from error
    try:
        return decode(data, channels=channels, max_pixels=max_pixels)
    except ValueError as error:
        kind, _, detail = str(error).partition(": ")
        raise ValueError(f"{kind}: {path}: {detail}" if detail else f"{kind}: {path}") from error


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


def _data_text(text: str) -> bytes:
    head, _, body = text.partition(",")
    if not head.endswith(";base64"):
        raise ValueError(f"{BAD_DATA_TEXT}: it begins {text[:30]!r}, data:image/png;base64,... is read")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise ValueError(f"{BAD_DATA_TEXT}: {error}") from None
