"""What the label column of a table may hold: poly-lines, a mask, a file of CULane, a record of TuSimple."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from appzoo.lane_detection.lanes import Lane, from_top
from easytransfer.config.paths import expand_home
from easytransfer.image.files import decode_cell
from easytransfer.image.maps import decode_map

# The kinds of bad cells; a detail follows after a colon.
NO_LANES = "no lanes"
BAD_LANE = "bad lane"
BAD_RECORD = "bad record"
LINES_FILE = ".lines.txt"
# A file of lines of more bytes is not read: a line of text has at most a few hundred points.
_MOST_BYTES = 1 << 20
# Pixels from the corner of the image that a point may be away.
_FARTHEST = 1e5
_FORMS = "poly-lines as JSON, a path of a mask (.png) or of lines (.lines.txt), or a record as JSON"
# TuSimple's masks leave lanes of fewer points out.
_LEAST_SAMPLES, _LEAST_POINTS = 4, 2
_KEYS = ("lanes", "slots", "h_samples", "lines", "mask", "exist", "category")


@dataclass
class Labels:
    """The lanes of a row as its cell gives them.

    Attributes:
        lanes: Points in pixels of the image, each lane with at least one.
        drawable: Which of them masks show: not those of too few points.
        slots: Slot of each lane, as the table says; None where it follows from their angles.
        h_samples: Rows the lanes were read off at; None where they are poly-lines.
        sampled: x of every lane in these rows [lanes, rows], negative where it is not seen.
        mask: uint8 or uint16 [height, width]; None where masks are drawn.
        exist: Which slots have a lane, as the table says; None where the mask says it.
        category: Kind of image; empty where there is none.
        given: Whether lanes are given, and not only a mask.
    """

    lanes: list[Lane] = field(default_factory=list)
    drawable: list[bool] = field(default_factory=list)
    slots: list[int] | None = None
    h_samples: np.ndarray | None = None
    sampled: np.ndarray | None = None
    mask: np.ndarray | None = None
    exist: np.ndarray | None = None
    category: str = ""
    given: bool = False


def read_cell(cell: str, folder: str, max_pixels: int) -> Labels:
    """Returns what a cell says.

    Args:
        cell: Its text.
        folder: What relative paths are relative to.
        max_pixels: Masks of more pixels are refused before they are decoded.

    Raises:
        ValueError: It says nothing that is understood, or a file of it cannot be read; the message is the reason shown
            to the user.
    """
    text = cell.strip()
    if text.startswith(("[", "{")):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{BAD_RECORD}: invalid JSON: {error}") from None
        return _of_record(value if isinstance(value, dict) else {"lanes": value}, folder, max_pixels)
    if text.lower().endswith(LINES_FILE):
        return _of_record({"lines": text}, folder, max_pixels)
    if text.lower().endswith(".png") or text.startswith("data:"):
        return _of_record({"mask": text}, folder, max_pixels)
    raise ValueError(f"{NO_LANES}: {text[:60]!r} is none of: {_FORMS}")


def _of_record(record: Mapping[str, Any], folder: str, max_pixels: int) -> Labels:
    unknown = [key for key in record if key not in _KEYS]
    if unknown or not any(key in record for key in ("lanes", "lines", "mask")):
        wrong = f"unknown key {unknown[0]!r}" if unknown else "it has none of lanes, lines and mask"
        raise ValueError(f"{BAD_RECORD}: {wrong}; known: {', '.join(_KEYS)}")
    if "lanes" in record and "lines" in record:
        raise ValueError(f"{BAD_RECORD}: it has both lanes and lines")
    labels = Labels(category=str(record.get("category", "")), given="lanes" in record or "lines" in record)
    if "h_samples" in record:
        _read_samples(labels, record.get("lanes"), record["h_samples"])
    elif labels.given:
        lanes = record["lanes"] if "lanes" in record else _of_file(record["lines"], folder)
        labels.lanes = [lane for lane in map(_points, _listed(lanes, "lanes")) if len(lane)]
        labels.drawable = [len(lane) >= _LEAST_POINTS for lane in labels.lanes]
    if "slots" in record:
        labels.slots = _slots(record["slots"], len(labels.lanes))
    if "mask" in record:
        labels.mask = decode_cell(_path(record["mask"]), folder, lambda data: decode_map(data, max_pixels))
        if labels.mask.dtype == np.float32:
            raise ValueError(f"{BAD_RECORD}: the mask has values of float32, whole numbers in a PNG file are read")
    if "exist" in record:
        labels.exist = _flags(record["exist"])
    return labels


def _read_samples(labels: Labels, lanes: Any, rows: Any) -> None:
    """Takes the lanes of a TuSimple record: one x for every row, negative where the lane is not seen."""
    rows = _numbers(rows, "h_samples")
    if not len(rows) or (np.diff(rows) <= 0).any() or (rows != np.rint(rows)).any():
        raise ValueError(f"{BAD_RECORD}: h_samples must be whole numbers that rise")
    x = [_numbers(lane, "lanes") for lane in _listed(lanes, "lanes")]
    for number, lane in enumerate(x, 1):
        if len(lane) != len(rows):
            raise ValueError(f"{BAD_LANE}: lane {number} has {len(lane)} numbers for {len(rows)} h_samples")
    labels.h_samples, labels.sampled = rows, np.array(x).reshape(len(x), len(rows))
    seen = [np.stack([lane[lane >= 0], rows[lane >= 0]], axis=1) for lane in x]
    labels.lanes = [lane for lane in seen if len(lane)]
    labels.drawable = [len(lane) >= _LEAST_SAMPLES for lane in labels.lanes]


def _of_file(path: Any, folder: str) -> list[list[float]]:
    """Returns the numbers of a file with a lane a line: x y x y ..."""
    try:
        full = os.path.join(folder, expand_home(_path(path)))
        if os.path.getsize(full) > _MOST_BYTES:
            raise ValueError(f"{NO_LANES}: {full} has more than {_MOST_BYTES} bytes")
        with open(full, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{NO_LANES}: cannot read {path}: {reason}") from None
    try:
        return [[float(word) for word in line.split()] for line in lines if line.strip()]
    except ValueError as error:
        raise ValueError(f"{BAD_LANE}: {full}: {error}") from None


def _points(lane: Any) -> Lane:
    """Returns the points of a poly-line: x y x y ..., or pairs of x and y."""
    if isinstance(lane, list) and lane and isinstance(lane[0], list):
        lane = [number for point in lane for number in (_pair(point))]
    numbers = _numbers(lane, "lanes")
    if len(numbers) % 2:
        raise ValueError(f"{BAD_LANE}: it has {len(numbers)} numbers, x and y in turn are needed")
    if (np.abs(numbers) > _FARTHEST).any():
        raise ValueError(f"{BAD_LANE}: a point is more than {_FARTHEST:.0f} pixels away")
    return from_top(numbers.reshape(-1, 2))


def _pair(point: Any) -> list[Any]:
    if not isinstance(point, list) or len(point) != 2:
        raise ValueError(f"{BAD_LANE}: a point is x and y, not {str(point)[:40]}")
    return point


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{BAD_RECORD}: {name} is a list, not {type(value).__name__}")
    return value


def _numbers(value: Any, name: str) -> np.ndarray:
    """Returns finite numbers as float64."""
    found = _listed(value, name)
    for number in found:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"{BAD_LANE}: {str(number)[:40]!r} in {name} is no finite number")
    return np.array(found, np.float64)


def _flags(value: Any) -> np.ndarray:
    found = _numbers(value, "exist")
    if not np.isin(found, (0, 1)).all():
        raise ValueError(f"{BAD_RECORD}: exist has a 0 or a 1 for each slot")
    return found.astype(np.float32)


def _slots(value: Any, lanes: int) -> list[int]:
    found = [int(number) for number in _numbers(value, "slots")]
    if len(found) != lanes or len(set(found)) < lanes or min(found, default=1) < 1:
        raise ValueError(f"{BAD_RECORD}: slots are {found} for {lanes} lanes; each needs one of its own, from 1")
    return found


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{BAD_RECORD}: a path is a text, not {str(value)[:40]!r}")
    return value
