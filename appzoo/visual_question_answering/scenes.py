"""Questions about drawn scenes, each answered by ten people who are right most of the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from appzoo.drawn_scenes import COLOURS, SHAPES, Scene

ANNOTATORS = 10
# Share of the annotators who are right.
_RIGHT = 0.9
_YES_NO = ("yes", "no")
_COUNTS = tuple(map(str, range(5)))


def ask(random: np.random.Generator, scene: Scene) -> tuple[str, list[str], str]:
    """Returns a question about a scene, its ten answers, and their type as the VQA challenge names it.

    Asked are the colour of a shape that is there once, whether there is an object, and how many objects of a colour
    there are.
    """
    kind = random.choice(["colour", "there", "count"])
    if kind == "colour":
        once = [shape for shape, count in Counter(scene.shapes).items() if count == 1]
        if once:
            shape = int(random.choice(once))
            truth = COLOURS[scene.colours[scene.shapes.index(shape)]]
            return f"what colour is the {SHAPES[shape]}?", _answers(random, truth, COLOURS[: scene.kinds]), "other"
        kind = "there"
    if kind == "there":
        names = scene.names()
        others = [name for name in scene.possible() if name not in names]
        is_there = random.uniform() < 0.5
        asked = random.choice(names if is_there else others)
        return f"is there a {asked}?", _answers(random, _YES_NO[not is_there], _YES_NO), "yes/no"
    colour = int(random.integers(scene.kinds))
    truth = _COUNTS[scene.colours.count(colour)]
    return f"how many {COLOURS[colour]} objects are there?", _answers(random, truth, _COUNTS), "number"


def _answers(random: np.random.Generator, truth: str, possible: Sequence[str]) -> list[str]:
    wrong = [answer for answer in possible if answer != truth]
    return [truth if random.uniform() < _RIGHT else str(random.choice(wrong)) for _ in range(ANNOTATORS)]
