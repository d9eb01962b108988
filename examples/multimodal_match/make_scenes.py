"""Writes the drawn scenes of this folder again, always the same: `python examples/multimodal_match/make_scenes.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SHAPES = ("circle", "square", "star", "ring", "cross", "moon")
REGIONS = 3
# Of a training text: the share of images without what it says.
OTHERS = 0.5
CANDIDATES = 10
FOLDER = Path(__file__).parent


def image(draw: np.random.Generator) -> np.ndarray:
    """Returns which shapes are in an image, all of them different."""
    return draw.choice(len(SHAPES), REGIONS, replace=False)


def row(draw: np.random.Generator, text: int, shapes: np.ndarray) -> str:
    """Returns a text, the features of regions, and their boxes, as cells of a table."""
    features = np.eye(len(SHAPES))[shapes] + draw.normal(0, 0.2, [REGIONS, len(SHAPES)])
    corners = draw.uniform(0, 0.6, [REGIONS, 2])
    boxes = np.concatenate([corners, corners + draw.uniform(0.1, 0.4, [REGIONS, 2])], axis=1)
    cells = [",".join(f"{value:.2f}" for value in each.reshape(-1)) for each in (features, boxes)]
    return "\t".join([f"there is a {SHAPES[text]}", *cells])


def others(draw: np.random.Generator, text: int, count: int) -> list[np.ndarray]:
    """Returns images without what a text says."""
    found: list[np.ndarray] = []
    while len(found) < count:
        shapes = image(draw)
        if text not in shapes:
            found.append(shapes)
    return found


def main() -> None:
    """Writes training pairs, and candidate lists of one image with the shape and others without."""
    draw, lines = np.random.default_rng(5), []
    for _ in range(500):
        shapes = image(draw)
        text, match = int(draw.choice(shapes)), draw.random() >= OTHERS
        lines.append(row(draw, text, shapes if match else others(draw, text, 1)[0]) + f"\t{int(match)}\t-")
    (FOLDER / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = []
    for number in range(12):
        shapes = image(draw)
        text = int(draw.choice(shapes))
        images = others(draw, text, CANDIDATES - 1)
        place = int(draw.integers(CANDIDATES))
        images.insert(place, shapes)
        lines += [row(draw, text, each) + f"\t{int(k == place)}\tq{number}" for k, each in enumerate(images)]
    (FOLDER / "dev.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
