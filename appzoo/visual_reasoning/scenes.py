"""Sentences about one or two drawn scenes, each true of some and false of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from appzoo.drawn_scenes import COLOURS, SHAPES, Scene, draw

# Rows of a sentence: half of them are true.
ROWS_OF_SENTENCE = 4


def statements(
    random: np.random.Generator, number: int, images: int, objects: int, noise: float, kinds: int
) -> Iterator[dict[str, Any]]:
    """Yields the rows of one sentence: of one scene `there is a red circle`, of two that there is one in both.

    A sentence about two scenes is false where one of them lacks the object, or both do.

    Args:
        random: Where random numbers come from.
        number: Of the sentence.
        images: 1 or 2.
        objects: Of each scene.
        noise: See `drawn_scenes.draw`.
        kinds: See `drawn_scenes.draw`.
    """
    shape, colour = random.integers(kinds, size=2)
    name = f"{COLOURS[colour]} {SHAPES[shape]}"
    sentence = f"there is a {name}" if images == 1 else f"both images have a {name}"
    for row in range(ROWS_OF_SENTENCE):
        truth = row % 2 == 0
        wanted = [truth] * images
        if not truth and images == 2:
            wanted[int(random.integers(2))] = bool(random.uniform() < 0.5)
        cells: dict[str, Any] = {}
        for suffix, has in zip(("", "_2"), wanted, strict=False):
            cells |= _scene(random, name, has, objects, noise, kinds).cells(suffix)
        identifier = f"drawn-{number}-{row}-0"
        yield {"identifier": identifier, "sentence": sentence, "label": str(truth).lower(), **cells}


def _scene(random: np.random.Generator, name: str, has: bool, objects: int, noise: float, kinds: int) -> Scene:
    """Returns a scene with the object, or one without."""
    while True:
        scene = draw(random, objects, noise, kinds)
        if (name in scene.names()) == has:
            return scene
