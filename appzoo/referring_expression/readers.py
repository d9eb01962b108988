"""Tables of expressions about drawn scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from appzoo.drawn_scenes import draw, row_randoms, scene_settings
from appzoo.referring_expression.scenes import refer

Row = dict[str, Any]


def read_scenes(path: str) -> Iterator[Row]:
    """Yields expressions for objects of drawn scenes; the file is JSON with the numbers of `drawn_scenes.SCENE_KEYS`.

    The columns are `expression_id`, `expression`, `target_box` (x1, y1, x2, y2 divided by the size of the image),
    `features` and `boxes`.

    Raises:
        DataError: The file says something else.
    """
    settings = scene_settings(path)
    for number, random in row_randoms(settings):
        scene = draw(random, settings["objects"], settings["noise"], settings["kinds"])
        expression, target = refer(random, scene)
        cells = scene.cells()
        box = cells["boxes"][4 * target : 4 * target + 4]
        yield {"expression_id": number, "expression": expression, "target_box": box, **cells}


READERS: dict[str, Callable[[str], Iterator[Any]]] = {".expressions": read_scenes}
