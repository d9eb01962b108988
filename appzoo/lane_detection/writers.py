"""Result files in the forms of the benchmarks, from predicted rows with the column of the images beside them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from appzoo.lane_detection.decoding import lanes_of, submitted
from easytransfer.errors import ConfigError

# Columns that say which image a row is of; the first one that is there counts.
NAMES = ("raw_file", "image")
_NOWHERE = -2
# Of entries of a zip file, so that equal results are equal files.
_TIME = (1980, 1, 1, 0, 0, 0)


def image_of(row: Mapping[str, Any]) -> str:
    """Returns the path of the image of a row.

    Raises:
        ConfigError: No column holds it.
    """
    name = next((row[name] for name in NAMES if isinstance(row.get(name), str)), None)
    if name is None or name.startswith("data:"):
        raise ConfigError(
            "a result file names the images, and no column holds their paths",
            received=", ".join(row),
            accepted=" or ".join(NAMES),
            fix="give --appendCols=image, or raw_file for TuSimple",
        )
    return name


def _arrays(row: Mapping[str, Any]) -> tuple[np.ndarray, list[int]]:
    missing = [name for name in ("lane_x", "rows") if name not in row]
    if missing:
        raise ConfigError(f"a result file needs the column {missing[0]}", fix="leave --outputSchema out")
    return np.array(row["lane_x"], np.float32), row["rows"]


def write_tusimple(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Writes one JSON object a line: `raw_file`, `lanes` with an x for every row, `h_samples`, `run_time`.

    Without any lane there is one that is nowhere, as in the released code. `run_time` is 0: prediction is not timed
    image by image, and the official script looks only for more than 200 ms.
    """
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            lane_x, y = _arrays(row)
            lanes = [[int(x) if x > 0 else _NOWHERE for x in lane] for lane in submitted(lane_x)]
            record = {"raw_file": image_of(row), "lanes": lanes, "h_samples": y, "run_time": 0}
            file.write(json.dumps(record) + "\n")


def write_culane(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Writes a zip file with a `.lines.txt` for each image, at the place of the image in the data set.

    Each lane is a line of whole x and y, from the bottom; unpacked, the file is the folder that the official program
    compares with the data set.

    Raises:
        ConfigError: A path leads out of the folder, or two rows are of one image.
    """
    seen = set()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for row in rows:
            lane_x, y = _arrays(row)
            image = PurePosixPath(image_of(row).lstrip("/"))
            if ".." in image.parts or image in seen:
                wrong = "two rows are of one image" if image in seen else "an image lies outside of the data set"
                raise ConfigError(
                    wrong,
                    received=str(image),
                    accepted="a path of the data set, once",
                    fix="name the column of such paths: --appendCols=raw_file",
                )
            seen.add(image)
            lines = [" ".join(f"{int(x)} {int(y)}" for x, y in lane[::-1]) for lane in lanes_of(lane_x, y)]
            entry = zipfile.ZipInfo(str(image.with_suffix("")) + ".lines.txt", _TIME)
            archive.writestr(entry, "".join(f"{line}\n" for line in lines), zipfile.ZIP_DEFLATED)


WRITERS = {".tusimple.json": write_tusimple, ".culane.zip": write_culane}
