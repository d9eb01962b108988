"""Forms of tables of pairs: lists of files, KITTI's folders, and scenes that are made as they are read.

Lists have the columns `left`, `right`, `disparity`, `disparity_noc` and `objects`; what there is none of is empty.
Scenes have the first four of them.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from easytransfer.data.files import open_text
from easytransfer.errors import DataError
from easytransfer.image.files import data_text

COLUMNS = ("left", "right", "disparity", "disparity_noc", "objects")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
# By year of the benchmark: folders of left and right images; of all true disparities, of those the right eye sees, and
# of maps of objects.
KITTI_2015 = ("image_2", "image_3", "disp_occ_0", "disp_noc_0", "obj_map")
KITTI_2012 = ("colored_0", "colored_1", "disp_occ", "disp_noc", None)
# Bounds of a file of scenes, which is small whatever it asks for.
_MOST_SCENES, _MOST_PIXELS = 100_000, 1 << 22
_SCENE_KEYS = {"pairs": (1, _MOST_SCENES), "seed": (0, 2**31), "height": (16, 4096), "width": (32, 4096)}
_SCENE_KEYS["max_disparity"] = (8, 1024)

Row = dict[str, Any]


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Yields number and text of the lines of a list but empty ones and remarks, which follow a `#`."""
    with open_text(path) as stream:
        for number, line in enumerate(stream, 1):
            text, remark, _ = line.decode("utf-8").rstrip("\r\n").partition("#")
            # Blanks alone are no empty line: tables of other forms are not taken for empty ones.
            if text.strip() or (text and not remark):
                yield number, text.strip()


def read_pairs(path: str) -> Iterator[Row]:
    """Yields the rows of a list of files, relative to the list: left right [disparity [disparity_noc [objects]]].

    Raises:
        DataError: A line has fewer than two or more than five parts.
    """
    for number, text in _lines(path):
        parts = text.split()
        if not 2 <= len(parts) <= len(COLUMNS):
            raise DataError(
                f"{path}:{number}: wrong column count: expected 2 to {len(COLUMNS)}, got {len(parts)}",
                accepted=" ".join(COLUMNS),
                fix="write files without spaces in their names, or use a TSV table",
            )
        yield dict(zip(COLUMNS, (*parts, *[""] * (len(COLUMNS) - len(parts))), strict=True))


def _kitti(folders: tuple[str | None, ...]) -> Callable[[str], Iterator[Row]]:
    def read(path: str) -> Iterator[Row]:
        root = os.path.dirname(path)
        there = [folder is not None and os.path.isdir(os.path.join(root, folder)) for folder in folders]
        missing = [folder for folder, found in zip(folders[:2], there[:2], strict=True) if not found]
        if missing:
            raise DataError(
                f"{path}: there is no folder {missing[0]} beside it", fix="put the list beside KITTI's folders"
            )
        for number, text in _lines(path):
            for scene in _scenes_of(path, number, text):
                name = f"{scene:06d}_10.png"
                cells = (os.path.join(str(f), name) if found else "" for f, found in zip(folders, there, strict=True))
                yield dict(zip(COLUMNS, cells, strict=True))

    return read


def _scenes_of(path: str, number: int, text: str) -> range:
    """Returns the scenes that a line of a KITTI list names: 12, or 0-159."""
    found = _RANGE.fullmatch(text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if last < first or last >= 1_000_000:
        raise DataError(
            f"{path}:{number}: {text!r} is no scene", accepted="a number such as 12, or a range such as 0-159"
        )
    return range(first, last + 1)


def read_scenes(path: str) -> Iterator[Row]:
    """Yields pairs of random scenes; each line is JSON with `pairs`, `seed`, `height`, `width` and `max_disparity`.

    Raises:
        DataError: A line is not that.
    """
    import numpy as np

    from appzoo.stereo_matching.synthetic import scene

    for number, text in _lines(path):
        asked = _scene_settings(f"{path}:{number}", text)
        for pair in range(asked["pairs"]):
            # Each has random numbers of its own: a row is the same wherever reading begins.
            random = np.random.default_rng([asked["seed"], pair])
            made = scene(random, asked["height"], asked["width"], asked["max_disparity"])
            seen = np.where(made.visible, made.disparity, 0)
            cells = (_colour(made.left), _colour(made.right), _map(made.disparity), _map(seen))
            yield {**dict(zip(COLUMNS, cells, strict=False)), "scene": f"{asked['seed']}-{pair}"}


def _colour(pixels: Any) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return data_text(stream.getvalue())


def _map(disparity: Any) -> str:
    from easytransfer.image.maps import encode_png, to_fixed_point

    return data_text(encode_png(to_fixed_point(disparity, 256)))


def _scene_settings(place: str, text: str) -> dict[str, int]:
    """Returns what a line asks for; `place` is what messages call it."""
    accepted = f"an object with {', '.join(_SCENE_KEYS)}"
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"{place} is not JSON: {error}", accepted=accepted) from None
    if not isinstance(found, dict) or found.keys() != _SCENE_KEYS.keys():
        raise DataError(f"{place} is no description of scenes", accepted=accepted)
    for name, (least, most) in _SCENE_KEYS.items():
        if type(found[name]) is not int or not least <= found[name] <= most:
            raise DataError(f"{place}: {name} is {found[name]!r}", accepted=f"a whole number from {least} to {most}")
    if found["height"] * found["width"] > _MOST_PIXELS or found["width"] < 2 * found["max_disparity"]:
        raise DataError(
            f"{place}: scenes of {found['height']} x {found['width']} with disparities below {found['max_disparity']}",
            accepted=f"at most {_MOST_PIXELS} pixels, and twice as many columns as disparities",
        )
    return found


READERS = {
    ".pairs": read_pairs,
    ".kitti2015": _kitti(KITTI_2015),
    ".kitti2012": _kitti(KITTI_2012),
    ".scenes": read_scenes,
}
