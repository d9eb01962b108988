"""Drawn scenes for trying tasks on texts and regions: coloured shapes, each a region with a noisy vector and a box.

A file names numbers (`SCENE_KEYS`); the rows of its table are made as they are read, the same ones every time. A reader
of an application makes its row of each scene.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from easytransfer.data.files import open_text
from easytransfer.errors import DataError

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = ("red", "green", "blue", "yellow")
FEATURE_SIZE = 16
# Keys of a file, with the least and the most of each number: there are `kinds` shapes and as many colours, and noise is
# the standard deviation of what is added to vectors whose numbers have a variance of 2.
SCENE_KEYS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31),
    "rows": (1, 10**6),
    "objects": (2, 9),
    "kinds": (2, len(SHAPES)),
    "noise": (0, 10),
}
# The vectors of shapes and colours, which are the same in all files.
_VECTOR_SEED = 20201208
# Boxes lie in the cells of a grid of so many rows and columns, each at least a third of its cell long.
_CELLS, _SHORTEST = 3, 1 / 3
# Digits of the numbers in a table.
_DIGITS = 4


@dataclass(frozen=True)
class Scene:
    """Objects of a scene, no two alike in shape and colour.

    Attributes:
        shapes: Number of the shape of each object, into `SHAPES`.
        colours: Number of its colour, into `COLOURS`.
        features: float64 [objects, FEATURE_SIZE]: vector of the shape + vector of the colour + noise.
        boxes: x1, y1, x2, y2 divided by the size of the image, float64 [objects, 4].
        kinds: How many shapes, and how many colours, there could be.
    """

    shapes: list[int]
    colours: list[int]
    features: np.ndarray
    boxes: np.ndarray
    kinds: int

    def possible(self) -> list[str]:
        """Returns what an object could be called."""
        return [f"{colour} {shape}" for colour in COLOURS[: self.kinds] for shape in SHAPES[: self.kinds]]

    def names(self) -> list[str]:
        """Returns what each object is called, such as `red circle`."""
        return [f"{COLOURS[colour]} {SHAPES[shape]}" for shape, colour in zip(self.shapes, self.colours, strict=True)]

    def cells(self, suffix: str = "") -> dict[str, list[float]]:
        """Returns the columns `features` and `boxes` of a row, flat."""
        found = {"features": self.features, "boxes": self.boxes}
        return {f"{name}{suffix}": np.round(value, _DIGITS).ravel().tolist() for name, value in found.items()}


def draw(random: np.random.Generator, objects: int, noise: float, kinds: int = len(SHAPES)) -> Scene:
    """Returns a scene.

    Args:
        random: Where its random numbers come from.
        objects: How many there are, up to 9.
        noise: Standard deviation of what is added to each number of a vector.
        kinds: How many shapes, and how many colours, there can be.
    """
    fixed = np.random.Generator(np.random.PCG64(_VECTOR_SEED))
    of_shape, of_colour = (fixed.normal(size=[len(names), FEATURE_SIZE]) for names in (SHAPES, COLOURS))
    shapes, colours = np.divmod(random.choice(kinds**2, objects, replace=False), kinds)
    features = of_shape[shapes] + of_colour[colours] + noise * random.normal(size=[objects, FEATURE_SIZE])
    cell = np.stack(np.divmod(random.choice(_CELLS**2, objects, replace=False), _CELLS), axis=1)[:, ::-1]
    length = random.uniform(_SHORTEST, 1, [objects, 2])
    start = cell + random.uniform(0, 1, [objects, 2]) * (1 - length)
    boxes = np.concatenate([start, start + length], axis=1) / _CELLS
    return Scene(shapes.tolist(), colours.tolist(), features, boxes, kinds)


def scene_settings(path: str, further: Mapping[str, tuple[float, float]] | None = None) -> dict[str, Any]:
    """Reads a file of scenes: a JSON object with the numbers of `SCENE_KEYS` and further ones.

    Args:
        path: The file.
        further: Least and most of each further number.

    Raises:
        DataError: The file says something else.
    """
    keys = {**SCENE_KEYS, **(further or {})}
    accepted = f"a JSON object with {', '.join(keys)}"
    with open_text(path) as stream:
        text = stream.read(1 << 16).decode("utf-8")
    if not text:
        raise DataError(f"{path} is empty: it has no row", accepted=accepted)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}", accepted=accepted) from None
    if not isinstance(found, dict) or found.keys() != keys.keys():
        raise DataError(f"{path} is no description of drawn scenes", accepted=accepted)
    for name, (least, most) in keys.items():
        kinds = (int, float) if name == "noise" else (int,)
        if type(found[name]) not in kinds or not least <= found[name] <= most:
            wanted = "a number" if name == "noise" else "a whole number"
            raise DataError(f"{path}: {name} is {found[name]!r}", accepted=f"{wanted} from {least:g} to {most:g}")
    if found["objects"] >= found["kinds"] ** 2:
        raise DataError(f"{path}: {found['objects']} objects", accepted="fewer than kinds x kinds: no two are alike")
    return found


def row_randoms(settings: Mapping[str, Any]) -> Iterator[tuple[int, np.random.Generator]]:
    """Yields number and random numbers of each row: a row does not depend on how many there are."""
    for row in range(settings["rows"]):
        yield row, np.random.Generator(np.random.PCG64([settings["seed"], row]))
