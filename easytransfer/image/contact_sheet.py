"""Many small images with captions as one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from easytransfer.run.atomic import atomic_path

# Pixels. Smaller images are enlarged by a whole factor to about this.
_TILE = 112
_GAP, _LINE, _FONT = 8, 18, 14


def write_contact_sheet(path: Path, images: np.ndarray, captions: Sequence[Sequence[str]], *, columns: int = 8) -> None:
    """Writes a PNG with the images in rows, the lines of their captions below each.

    Args:
        path: The file.
        images: uint8 [rows, height, width, 1 or 3].
        captions: Lines for each image.
        columns: Images side by side.
    """
    factor = max(_TILE // max(images.shape[1:3]), 1)
    height, width = (factor * side for side in images.shape[1:3])
    lines = max(len(caption) for caption in captions)
    room = max(width, _TILE)
    across = room + _GAP
    down = height + _LINE * lines + _GAP
    columns = min(columns, len(images))
    size = (columns * across + _GAP, math.ceil(len(images) / columns) * down + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(place, columns)
        left, top = _GAP + column * across, _GAP + row * down
        tile = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
        sheet.paste(tile.resize((width, height), Image.Resampling.NEAREST), (left, top))
        for number, line in enumerate(caption):
            draw.text((left, top + height + number * _LINE), _drawable(line, font, room), "black", font)
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")


def _drawable(text: str, font: Any, room: int) -> str:
    """Shortens a text to some pixels, and leaves out what the built-in font has no picture of."""
    shown = text.encode("latin-1", "replace").decode("latin-1")
    if font.getlength(shown) <= room:
        return shown
    while shown and font.getlength(f"{shown}...") > room:
        shown = shown[:-1]
    return f"{shown}..."
