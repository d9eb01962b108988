"""Tables in the forms of the benchmarks: records of TuSimple, lists of CULane."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]
# A line of more characters is no record: 56 rows of a dozen lanes have a few thousand.
_MOST_CHARACTERS = 1 << 20
_MOST_SHOWN = 200
_SPLIT = re.compile(r"test\d+_(\w+)$")
_FLAGS = {"0": 0, "1": 1}


def read_tusimple(path: str) -> Iterator[Row]:
    """Reads TuSimple's labels: a JSON object a line with `raw_file`, `lanes` and `h_samples`.

    Images lie relative to the file. A record without lanes, as the tasks of the test have it, gets none.

    Yields:
        `image` and `raw_file`, the path; `lanes`, the record as JSON. Of a line that is no record both paths are
        missing, which makes a bad row, and `lanes` is the line.

    Raises:
        ValueError: The file is no text of lines.
    """
    for line in _lines(path):
        try:
            record = json.loads(line)
            image, rows = record["raw_file"], record["h_samples"]
        except (ValueError, KeyError, TypeError, RecursionError):
            yield _no_row(line)
            continue
        lanes = json.dumps({"lanes": record.get("lanes", []), "h_samples": rows})
        yield {"image": image, "raw_file": image, "lanes": lanes}


def read_culane(path: str) -> Iterator[Row]:
    """Reads a list of CULane, `list/train_gt.txt` or one of the lists of images, such as `test_split/test0_normal.txt`.

    Paths in it are relative to the folder that holds `list`. A line has the image, or image, mask and a flag for each
    slot; lines of the lanes are in the file beside the image. The name of a list of the test says the kind of image.

    Yields:
        `image`, the path relative to the list; `raw_file`, as the list has it; `lanes`, a record as JSON. Of a line in
        another form both paths are missing, which makes a bad row, and `lanes` is the line.

    Raises:
        ValueError: The file is no text of lines, or lies in no folder `list`.
    """
    folder = _data_set(path)
    category = _SPLIT.match(Path(path).name.split(".")[0])
    for line in _lines(path):
        image, *rest = line.split()
        record: Row = {}
        if rest:
            mask, flags = rest[0], rest[1:]
            if not flags or not all(flag in _FLAGS for flag in flags):
                yield _no_row(line)
                continue
            record = {"mask": _inside(folder, mask), "exist": [_FLAGS[flag] for flag in flags]}
        lines = _inside(folder, f"{os.path.splitext(image)[0]}.lines.txt")
        if not rest or os.path.isfile(os.path.join(os.path.dirname(path), lines)):
            record["lines"] = lines
        if category:
            record["category"] = category[1]
        yield {"image": _inside(folder, image), "raw_file": image, "lanes": json.dumps(record)}


def _no_row(line: str) -> Row:
    return {"image": None, "raw_file": None, "lanes": line[:_MOST_SHOWN]}


def _lines(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
        number = 0
        while line := file.readline(_MOST_CHARACTERS):
            number += 1
            if len(line) == _MOST_CHARACTERS:
                raise ValueError(f"{path}:{number}: a line of more than {_MOST_CHARACTERS} characters")
            if line.strip():
                yield line.strip()


def _data_set(path: str) -> str:
    """Returns the folder of the data set, relative to that of a list."""
    parts = Path(os.path.abspath(path)).parts
    if "list" not in parts[:-1]:
        raise ValueError(f"{path}: lists of CULane lie in its folder `list`, which says where its images are")
    depth = len(parts) - 1 - max(i for i, part in enumerate(parts[:-1]) if part == "list")
    return "/".join([".."] * depth)


def _inside(folder: str, path: str) -> str:
    return f"{folder}/{path.lstrip('/')}"


# By the names of the files as they are published; tables of one's own end in `.tusimple.json`.
_TUSIMPLE = ("label_data_0313.json", "label_data_0531.json", "label_data_0601.json", "test_label.json")
CATEGORIES = ("normal", "crowd", "hlight", "shadow", "noline", "arrow", "curve", "cross", "night")
_CULANE = ("_gt.txt", "list/test.txt", *(f"test{number}_{name}.txt" for number, name in enumerate(CATEGORIES)))
READERS = {
    **dict.fromkeys((*_TUSIMPLE, "test_tasks_0627.json", ".tusimple.json"), read_tusimple),
    **dict.fromkeys(_CULANE, read_culane),
}
