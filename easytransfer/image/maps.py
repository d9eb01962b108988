"""Maps: pictures of one value a pixel that is no colour, such as labels, depth or disparity, read and written whole.

PNG files hold 8 or 16 bits, or places in a palette, which are the labels; PFM files hold float32. Values are those of
the file: none is scaled, cut to 8 bits, or turned into a colour.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from easytransfer.errors import ConfigError
from easytransfer.image.files import TOO_LARGE, decode_cell, load_each
from easytransfer.run.atomic import atomic_path

# The kinds of maps that are not read; a detail follows after a colon.
NOT_A_MAP = "not a map"
BROKEN = "broken map"
UNREAD_FORM = "form of map that is not read"

_PNG = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3
_COLOUR_TYPES = {2: "three values a pixel", 4: "a grey value and alpha", 6: "four values a pixel"}
# Pillow scales grey values of fewer bits to 255; these bring them back.
_GREY_STEPS = {2: 85, 4: 17}
_TURNED = (b"eXIf", b"XML:com.adobe.xmp")
_PFM = re.compile(rb"P([fF])\s+(\d{1,9})\s+(\d{1,9})\s+([-+0-9.eE]{1,32})(?:\r\n|\s)")
_PFM_HEAD = 128
# What Pillow raises for files that are damaged, or made to deceive.
_DAMAGED = (
    *(OSError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, EOFError, AttributeError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)


def load_maps(
    cells: list[Any],
    folder: str,
    *,
    max_pixels: int,
    change: Callable[[np.ndarray], np.ndarray] = lambda values: values,
) -> list[np.ndarray | str]:
    """Reads cells of a column of maps in several threads.

    Args:
        cells: Paths, `data:` texts, encoded bytes, or arrays [height, width].
        folder: What relative paths are relative to.
        max_pixels: Larger maps are refused before their pixels are decoded.
        change: What is kept of each map, such as a smaller copy; it may refuse one with a ValueError.

    Returns:
        What `decode_map` and then `change` return for each cell, or the reason why there is none.
    """

    def load(cell: Any) -> np.ndarray:
        if isinstance(cell, np.ndarray):
            return change(_checked_array(cell))
        return decode_cell(cell, folder, lambda data: change(decode_map(data, max_pixels)))

    return load_each(cells, load)


def decode_map(data: bytes, max_pixels: int) -> np.ndarray:
    """Returns the values of a map.

    Args:
        data: A PNG file of grey values or places in a palette, or a PFM file of one channel.
        max_pixels: Larger maps are refused before their pixels are decoded.

    Returns:
        [height, width]: uint16 of a PNG file of 16 bits, uint8 of any other, float32 of a PFM file.

    Raises:
        ValueError: It is no such file, is damaged, or too large; the message is the reason shown to the user.
    """
    if data.startswith(_PNG):
        return _decode_png(data, max_pixels)
    if data[:2] in (b"Pf", b"PF"):
        values = decode_pfm(data, max_pixels)
        if values.ndim == 3:
            raise ValueError(f"{UNREAD_FORM}: it has three values a pixel, a map has one")
        return values
    raise ValueError(f"{NOT_A_MAP}: begins with {data[:8]!r}; PNG and PFM files are read")


def _decode_png(data: bytes, max_pixels: int) -> np.ndarray:
    if data[8:16] != b"\0\0\0\x0dIHDR" or len(data) < 33:
        raise ValueError(f"{BROKEN}: a PNG file without its header")
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    _check_pixels(width, height, max_pixels)
    if colour not in (_GREY, _PALETTE):
        what = _COLOUR_TYPES.get(colour, f"the unknown form {colour}")
        raise ValueError(f"{UNREAD_FORM}: it has {what}; grey values and palettes have one, which is the label")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            animated = getattr(picture, "is_animated", False)
            turned = any(mark in data for mark in _TURNED) and picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
            values = np.asarray(picture)
    except _DAMAGED as error:
        raise ValueError(f"{BROKEN}: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from None
    if animated or turned:
        what = "an animation" if animated else "to be turned, as its EXIF or XMP data say"
        raise ValueError(f"{UNREAD_FORM}: it is {what}; save it as one picture that is shown as it is stored")
    if values.shape != (height, width):
        raise ValueError(f"{BROKEN}: it has {list(values.shape)} values where its header says {[height, width]}")
    if bits == 16:
        return values.astype(np.uint16)
    return values.astype(np.uint8) // np.uint8(_GREY_STEPS.get(bits, 1) if colour == _GREY else 1)


def decode_pfm(data: bytes, max_pixels: int) -> np.ndarray:
    """Returns the values of a portable float map, top row first.

    Its rows are stored from the bottom up; a negative scale says that the lower byte comes first. The size of the scale
    is a unit that readers of disparity data sets leave alone, as is done here. Unknown values are often infinite.

    Args:
        data: The file.
        max_pixels: Larger maps are refused.

    Returns:
        float32 [height, width], or [height, width, 3] of a file that begins with `PF`.

    Raises:
        ValueError: It is no such file, or longer or shorter than its header says.
    """
    head = _PFM.match(data[:_PFM_HEAD])
    try:
        scale = float(head[4]) if head else 0.0
    except ValueError:
        scale = 0.0
    if head is None or scale == 0 or not math.isfinite(scale):
        raise ValueError(f"{BROKEN}: a PFM file begins Pf, width, height and a scale that is not 0")
    channels, width, height = 3 if head[1] == b"F" else 1, int(head[2]), int(head[3])
    _check_pixels(width, height, max_pixels)
    wanted, found = 4 * width * height * channels, len(data) - head.end()
    if found != wanted:
        raise ValueError(f"{BROKEN}: {found} bytes of values where its header says {wanted}")
    stored = np.frombuffer(data, "<f4" if scale < 0 else ">f4", offset=head.end())
    values = stored.reshape(height, width, channels)[::-1].astype(np.float32)
    return values[..., 0] if channels == 1 else values


def _check_pixels(width: int, height: int, most: int) -> None:
    if not width or not height:
        raise ValueError(f"{BROKEN}: it has no pixels")
    if width * height > most:
        raise ValueError(f"{TOO_LARGE}: {width} x {height} is more than max_pixels={most}")


def _checked_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{NOT_A_MAP}: shape {list(array.shape)} is not height, width")
    if array.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"{NOT_A_MAP}: its values are {array.dtype}; uint8, uint16 and float32 are read")
    return array


def encode_png(values: np.ndarray) -> bytes:
    """Returns a PNG file of grey values, 8 bits for uint8 and 16 bits for uint16 [height, width].

    In a graph `tf.io.encode_png` writes the same values.

    Raises:
        ValueError: Another type or shape.
    """
    if values.dtype not in (np.uint8, np.uint16) or values.ndim != 2:
        raise ValueError(f"a PNG map is uint8 or uint16 [height, width], not {values.dtype} {list(values.shape)}")
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(stream, "PNG")
    return stream.getvalue()


def encode_pfm(values: np.ndarray, *, little: bool = True) -> bytes:
    """Returns a portable float map of float32 [height, width] or [height, width, 3]; see `decode_pfm`.

    Args:
        values: Of any size; infinite ones are kept.
        little: Whether the lower byte comes first.

    Raises:
        ValueError: Another type or shape.
    """
    colour = values.ndim == 3 and values.shape[-1] == 3
    if values.dtype != np.float32 or not (values.ndim == 2 or colour):
        raise ValueError(f"a PFM map is float32 [height, width(, 3)], not {values.dtype} {list(values.shape)}")
    head = f"{'PF' if colour else 'Pf'}\n{values.shape[1]} {values.shape[0]}\n{-1.0 if little else 1.0}\n"
    return head.encode("ascii") + values[::-1].astype("<f4" if little else ">f4").tobytes()


def write_map(path: str | os.PathLike[str], values: np.ndarray) -> None:
    """Writes a map whole or not at all, as its ending says: `.png` for uint8 and uint16, `.pfm` for float32.

    Raises:
        ConfigError: The ending and the values do not go together.
    """
    forms = {".png": encode_png, ".pfm": encode_pfm}
    encode = forms.get(Path(path).suffix.lower())
    if encode is None:
        raise ConfigError("unknown form of map", received=os.fspath(path), accepted=list(forms))
    try:
        encoded = encode(values)
    except ValueError as error:
        raise ConfigError(f"{os.fspath(path)}: {error}") from None
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)


def from_fixed_point(values: np.ndarray, scale: float) -> np.ndarray:
    """Returns the float32 numbers that the whole numbers of a map stand for: values / scale, as KITTI has them."""
    return values.astype(np.float32) / np.float32(scale)


def to_fixed_point(values: np.ndarray, scale: float) -> np.ndarray:
    """Returns the uint16 numbers of a map by the rule of the KITTI benchmark, which rounds down.

    Args:
        values: Float [height, width]; 0, negative and undefined ones are unknown and become 0, all others at least 1.
        scale: What a value of 1 becomes, 256 in KITTI.

    Raises:
        ValueError: A value is too large for 16 bits.
    """
    known = np.isfinite(values) & (values > 0)
    whole = np.floor(np.where(known, values, 0).astype(np.float64) * scale)
    if whole.max(initial=0) > np.iinfo(np.uint16).max:
        most = np.iinfo(np.uint16).max / scale
        raise ValueError(
            f"{float(values[known].max()):g} does not fit into 16 bits: at scale {scale:g} up to {most:g} do"
        )
    return np.where(known, np.maximum(whole, 1), 0).astype(np.uint16)
