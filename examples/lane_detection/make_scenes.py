"""Writes the two sample tables: small drawings of roads as `data:` text, with the lanes on them as poly-lines.

    python examples/lane_detection/make_scenes.py

The same seed always gives the same drawings; the tables beside this script were written by it.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 64, 160
# Lanes from the left, and how likely each of them is missing.
LANES, MISSING = 4, 0.15
# Edges of boxes that hide parts of the road, in pixels: height and width from and to.
LARGE = ((24, 40), (50, 110))


def scene(
    random: np.random.Generator, boxes: int = 0, edges: tuple[tuple[int, int], tuple[int, int]] = LARGE
) -> tuple[np.ndarray, dict[int, list[list[float]]]]:
    """Returns a road with up to four lanes through one vanishing point, bent alike, half of them dashed.

    Args:
        random: Decides everything.
        boxes: Opaque rectangles over the road.
        edges: Their smallest and largest height and width.

    Returns:
        uint8 [64, 160, 3], and the lanes that are there by their slots from 1, whole even where they are hidden: x and
        y from the top.
    """
    horizon = int(random.integers(10, 18))
    vanishing, centre = random.uniform(60, 100), random.uniform(70, 90)
    spacing, bend = random.uniform(50, 75), random.uniform(-45, 45)
    picture = Image.new("RGB", (WIDTH, HEIGHT), tuple(int(v) for v in random.integers(150, 220, 3)))
    draw = ImageDraw.Draw(picture)
    draw.rectangle([0, horizon, WIDTH, HEIGHT], fill=(int(random.integers(70, 120)),) * 3)
    lanes = {}
    for number in range(LANES):
        bottom, dashed = centre + (number - (LANES - 1) / 2) * spacing, random.random() < 0.5
        missing, phase = random.random() < MISSING, random.uniform(0, 1)
        y = np.arange(horizon + 3, HEIGHT)
        t = (y - horizon) / (HEIGHT - 1 - horizon)
        x = vanishing + (bottom - vanishing) * t + bend * (t * t - t)
        inside = (x >= 0) & (x < WIDTH - 0.5)
        if missing or inside.sum() < 8:
            continue
        for row in np.flatnonzero(inside & (not dashed or ((3 / (t + 0.3) + phase) % 1 < 0.5))):
            half = 0.4 + 1.1 * t[row]
            draw.line([x[row] - half, y[row], x[row] + half, y[row]], fill=(225, 225, 205))
        kept = np.flatnonzero(inside)
        kept = np.unique(np.r_[kept[::-4], kept[0]])
        lanes[number + 1] = [[round(float(x[row]), 1), int(y[row])] for row in kept]
    for _ in range(boxes):
        tall, wide = (int(random.integers(least, most + 1)) for least, most in edges)
        top, left = (
            int(random.integers(horizon, HEIGHT - tall // 2)),
            int(random.integers(-wide // 3, WIDTH - wide // 2)),
        )
        draw.rectangle([left, top, left + wide, top + tall], fill=tuple(int(v) for v in random.integers(0, 256, 3)))
    noisy = np.asarray(picture) + random.normal(0, 5, (HEIGHT, WIDTH, 1))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), lanes


def line(random: np.random.Generator) -> str:
    """Returns a line of a table: a scene and, as JSON, its lanes."""
    image, lanes = scene(random)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=60)
    text = "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
    cell = json.dumps({"lanes": list(lanes.values()), "slots": list(lanes)}, separators=(",", ":"))
    return f"{text}\t{cell}\n"


def main() -> None:
    """Writes both tables beside this script."""
    random = np.random.default_rng(0)
    for name, rows in (("train", 64), ("dev", 16)):
        lines = [line(random) for _ in range(rows)]
        Path(__file__).with_name(f"{name}.tsv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
