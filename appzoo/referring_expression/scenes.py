"""Expressions for objects of drawn scenes, preferably of those that share shape or colour with another one."""

from __future__ import annotations

import numpy as np

from appzoo.drawn_scenes import Scene


def refer(random: np.random.Generator, scene: Scene) -> tuple[str, int]:
    """Returns an expression such as `the red circle`, and the number of the object it means."""
    shared = [
        i
        for i, (shape, colour) in enumerate(zip(scene.shapes, scene.colours, strict=True))
        if scene.shapes.count(shape) > 1 or scene.colours.count(colour) > 1
    ]
    target = int(random.choice(shared or len(scene.shapes)))
    return f"the {scene.names()[target]}", target
