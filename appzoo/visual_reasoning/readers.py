"""Tables of sentences: files of NLVR2, and sentences about drawn scenes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from appzoo.drawn_scenes import row_randoms, scene_settings
from appzoo.visual_reasoning.scenes import ROWS_OF_SENTENCE, statements
from easytransfer.data.app_forms import BadRecord
from easytransfer.data.files import open_text
from easytransfer.errors import DataError

Row = dict[str, Any]
# Parts of an identifier of NLVR2: split, set of images, pair of the set, sentence.
_PARTS = 4


def read_nlvr2(path: str) -> Iterator[Row | BadRecord]:
    """Yields the rows of a file of NLVR2, an object a line, for region files with the names of its images.

    The columns are `identifier`, `sentence`, `label` where there is one, and `image_id` and `image_id_2`: of
    `dev-850-0-0` the images are `dev-850-0-img0` and `dev-850-0-img1`.

    Raises:
        DataError: The file is no text.
    """
    with open_text(path) as stream:
        for line in stream:
            text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
            if text.strip():
                yield _row(text)


def _row(text: str) -> Row | BadRecord:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return BadRecord("", f"damaged JSON: {error}", text)
    if not isinstance(found, dict):
        return BadRecord("", "damaged JSON: no object", text)
    row = {name: str(found[name]) for name in ("identifier", "sentence", "label") if found.get(name) is not None}
    if missing := next((name for name in ("identifier", "sentence") if name not in row), None):
        return BadRecord(missing, f"missing value: no {missing}", text)
    parts = row["identifier"].split("-")
    if len(parts) != _PARTS:
        return BadRecord("identifier", f"wrong identifier: {row['identifier']!r}, not split-set-pair-sentence", text)
    images = {name: "-".join([*parts[:3], f"img{side}"]) for side, name in enumerate(("image_id", "image_id_2"))}
    return {**row, **images}


def read_scenes(path: str) -> Iterator[Row]:
    """Yields sentences about drawn scenes; the file is JSON with numbers: `drawn_scenes.SCENE_KEYS` and `images`.

    The columns are `identifier`, `sentence`, `label`, `features`, `boxes`, and of two images `features_2`, `boxes_2`.

    Raises:
        DataError: The file says something else.
    """
    settings = scene_settings(path, {"images": (1, 2)})
    rows = settings["rows"]
    if rows % ROWS_OF_SENTENCE:
        raise DataError(f"{path}: rows is {rows}", accepted=f"a multiple of {ROWS_OF_SENTENCE}, the rows of a sentence")
    for number, random in row_randoms({**settings, "rows": rows // ROWS_OF_SENTENCE}):
        drawn = (settings[name] for name in ("images", "objects", "noise", "kinds"))
        yield from statements(random, number, *drawn)


READERS: dict[str, Callable[[str], Iterator[Any]]] = {".nlvr2.json": read_nlvr2, ".sentences": read_scenes}
