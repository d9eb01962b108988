"""Writes the two sample tables: small drawings of five shapes as `data:` text, one a line.

    python examples/image_classify/make_shapes.py

The same seed always gives the same drawings; the tables beside this script were written by it.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "cross", "ring", "square", "triangle")
SIZE, FINE = 16, 4


def drawing(name: str, random: np.random.Generator) -> Image.Image:
    """Returns a grey image of a shape at a random place, of a random size and brightness."""
    canvas = Image.new("L", (SIZE * FINE, SIZE * FINE), int(random.integers(0, 60)))
    draw, ink = ImageDraw.Draw(canvas), int(random.integers(150, 256))
    radius = random.uniform(3.5, 6) * FINE
    x, y = random.uniform(radius, SIZE * FINE - radius, 2)
    box = [x - radius, y - radius, x + radius, y + radius]
    if name == "circle":
        draw.ellipse(box, fill=ink)
    elif name == "ring":
        draw.ellipse(box, outline=ink, width=int(radius * 0.4))
    elif name == "square":
        draw.rectangle([v + radius * 0.15 * s for v, s in zip(box, (1, 1, -1, -1), strict=True)], fill=ink)
    elif name == "triangle":
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=ink)
    else:
        draw.rectangle([x - radius, y - radius / 4, x + radius, y + radius / 4], fill=ink)
        draw.rectangle([x - radius / 4, y - radius, x + radius / 4, y + radius], fill=ink)
    return canvas.resize((SIZE, SIZE), Image.Resampling.BOX)


def cell(image: Image.Image) -> str:
    """Returns an image as the text of a cell."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def main() -> None:
    """Writes both tables beside this script."""
    random = np.random.default_rng(0)
    for name, rows in (("train", 160), ("dev", 80)):
        labels = [SHAPES[row % len(SHAPES)] for row in range(rows)]
        lines = [f"{cell(drawing(label, random))}\t{label}\n" for label in labels]
        Path(__file__).with_name(f"{name}.tsv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
