"""Regions of an image: vectors of features, boxes and the classes a detector gives them, checked once where they enter.

Forms that are read: an `.npz` file an image; rows of bottom-up attention TSV files, with or without classes; records of
a TFRecord file, which `write_region_records` makes of the others.
"""

from __future__ import annotations

import base64
import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from easytransfer.errors import DataError
from easytransfer.run.atomic import atomic_path

# Kinds of bad rows; a detail follows after a colon.
WRONG_REGIONS = "wrong regions"
WRONG_BOX = "wrong box"
NO_REGIONS = "no regions"
# Arrays of one image that are more, unpacked, are not read.
_MOST_BYTES = 1 << 28
# How far a box may stick out of its image, as a share of the image; it is then cut at the border.
_STICKS_OUT = 0.01
# Columns of the two kinds of TSV files, which differ in the order of width and height.
PLAIN_TSV = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
CLASSES_TSV = (
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
)
_CLASSES = ("object_id", "object_conf", "attribute_id", "attribute_conf")


@dataclass
class ImageRegions:
    """Regions of one image, in the order of the file.

    Attributes:
        features: float32 [regions, width].
        boxes: x1, y1, x2, y2 divided by width and height of the image, float32 [regions, 4]; None where there are none.
        object_id: Number of the class, -1 = unknown, int32 [regions]; None where no detector has told any.
        object_conf: Confidence from 0 to 1, float32 [regions].
        attribute_id: As `object_id`, of attributes such as colours.
        attribute_conf: As `object_conf`.
        size: Height and width of the image in pixels; None where they are not known.
    """

    features: np.ndarray
    boxes: np.ndarray | None = None
    object_id: np.ndarray | None = None
    object_conf: np.ndarray | None = None
    attribute_id: np.ndarray | None = None
    attribute_conf: np.ndarray | None = None
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.features)


def checked(regions: ImageRegions, width: int, most: int) -> ImageRegions:
    """Returns the regions in the types of `ImageRegions`, boxes cut at the border of the image.

    Args:
        regions: As read.
        width: Numbers that a region must have.
        most: Most regions.

    Raises:
        ValueError: They cannot be used; the message is the reason shown to the user, as `kind: detail`.
    """
    features = np.asarray(regions.features)
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise ValueError(f"{WRONG_REGIONS}: features of shape {list(features.shape)}, [regions, {width}] is needed")
    count = len(features)
    if not count:
        raise ValueError(f"{NO_REGIONS}: there is none in the image")
    if features.shape[1] != width:
        raise ValueError(f"{WRONG_REGIONS}: a region has {features.shape[1]} numbers, not model.feature_size={width}")
    if count > most:
        raise ValueError(f"{WRONG_REGIONS}: there are {count}, more than model.max_regions={most}")
    features = features.astype(np.float32)
    if not np.isfinite(features).all():
        raise ValueError(f"{WRONG_REGIONS}: features that are infinite or no numbers")
    found = ImageRegions(features, size=regions.size)
    if regions.boxes is not None:
        found.boxes = _checked_boxes(np.asarray(regions.boxes), count)
    for name in _CLASSES:
        values = getattr(regions, name)
        if values is not None:
            setattr(found, name, _checked_class(name, np.asarray(values), count))
    return found


def _checked_boxes(boxes: np.ndarray, count: int) -> np.ndarray:
    if boxes.shape != (count, 4) or boxes.dtype.kind not in "fiu":
        raise ValueError(f"{WRONG_BOX}: boxes of shape {list(boxes.shape)}, [{count}, 4] is needed")
    boxes = boxes.astype(np.float32)
    outside = np.flatnonzero(~((boxes >= -_STICKS_OUT) & (boxes <= 1 + _STICKS_OUT)).all(axis=1))
    if len(outside):
        shown = " ".join(f"{value:g}" for value in boxes[outside[0]])
        raise ValueError(f"{WRONG_BOX}: {shown} does not lie in the image: x1 y1 x2 y2 divided by its size are needed")
    boxes = np.clip(boxes, 0, 1)
    empty = np.flatnonzero((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
    if len(empty):
        shown = " ".join(f"{value:g}" for value in boxes[empty[0]])
        raise ValueError(f"{WRONG_BOX}: {shown} has no area: x1 y1 x2 y2 with x1 < x2 and y1 < y2 are needed")
    return boxes


def _checked_class(name: str, values: np.ndarray, count: int) -> np.ndarray:
    if values.shape != (count,):
        raise ValueError(f"{WRONG_REGIONS}: {name} of shape {list(values.shape)} for {count} regions")
    if name.endswith("_id"):
        if values.dtype.kind not in "iu" or (values < -1).any() or (values > np.iinfo(np.int32).max).any():
            raise ValueError(f"{WRONG_REGIONS}: {name} must be integers from 0, or -1 for unknown")
        return values.astype(np.int32)
    values = values.astype(np.float32)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{WRONG_REGIONS}: {name} must lie between 0 and 1")
    return values


def shares_of(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns boxes in pixels as shares of the image.

    Args:
        boxes: x1, y1, x2, y2 in pixels, [regions, 4].
        size: Height and width of the image.

    Raises:
        ValueError: They are no pixels, or the image has no size.
    """
    boxes, (height, width) = np.asarray(boxes, np.float32), size
    if height < 1 or width < 1:
        raise ValueError(f"{WRONG_REGIONS}: an image of height {height} and width {width}")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{WRONG_BOX}: boxes of shape {list(boxes.shape)}, [regions, 4] is needed")
    # A box of whole pixels ends at 1 or beyond, and all boxes of an image are not in its first pixel.
    if len(boxes) and max(height, width) > 1 and boxes.max() <= 1:
        raise ValueError(f"{WRONG_BOX}: all boxes lie between 0 and 1, and pixels are needed")
    return boxes / np.float32([width, height, width, height])


# An .npz file an image -----------------------------------------------------------------------------------------


def regions_of_npz(data: bytes) -> ImageRegions:
    """Returns the regions in an `.npz` file, not yet checked.

    It holds `features` [n, width]; maybe `norm_bb` [n, 4 or more], shares of the image, or `boxes` [n, 4] in pixels
    with `image_h` and `image_w`; and maybe `object_id`, `object_conf`, `attribute_id`, `attribute_conf` [n], for which
    `conf` is read as `object_conf`, and of `soft_labels` [n, classes], whose first class is the background, the best.

    Raises:
        ValueError: It cannot be read; the message is the reason shown to the user.
    """
    found = _arrays(data)
    if "features" not in found:
        raise ValueError(f"{WRONG_REGIONS}: no array `features` among {', '.join(sorted(found)) or 'none'}")
    size = None
    if {"image_h", "image_w"} <= found.keys():
        if found["image_h"].size != 1 or found["image_w"].size != 1:
            raise ValueError(f"{WRONG_REGIONS}: image_h and image_w must be one number each")
        size = (int(found["image_h"].item()), int(found["image_w"].item()))
    boxes = None
    if "norm_bb" in found:
        boxes = found["norm_bb"][:, :4] if found["norm_bb"].ndim == 2 else found["norm_bb"]
    elif "boxes" in found:
        if size is None:
            raise ValueError(f"{WRONG_BOX}: boxes in pixels need image_h and image_w; shares are called norm_bb")
        boxes = shares_of(found["boxes"], size)
    classes = {name: found.get(name) for name in _CLASSES}
    if classes["object_conf"] is None:
        classes["object_conf"] = found.get("conf")
    soft = found.get("soft_labels")
    if classes["object_id"] is None and soft is not None and soft.ndim == 2 and soft.shape[1] > 1:
        classes["object_id"] = soft[:, 1:].argmax(axis=1)
    return ImageRegions(found["features"], boxes, **classes, size=size)


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _MOST_BYTES:
            raise ValueError(f"{unpacked} bytes unpacked, at most {_MOST_BYTES} are read")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ValueError(f"{WRONG_REGIONS}: no arrays of an .npz file: {error}") from None


# Rows of a TSV file ----------------------------------------------------------------------------------------------


def regions_of_tsv(line: bytes) -> ImageRegions:
    """Returns the regions in a row of a bottom-up attention TSV file, by its number of columns.

    `PLAIN_TSV` has no classes; `CLASSES_TSV` has, and its ids are those of classes without the background. Boxes are
    float32 in pixels, features float32, both as base64.

    Raises:
        ValueError: The row is damaged; the message is the reason shown to the user.
    """
    cells = line.rstrip(b"\r\n").split(b"\t")
    names = {len(names): names for names in (PLAIN_TSV, CLASSES_TSV)}.get(len(cells))
    if names is None:
        raise ValueError(f"{WRONG_REGIONS}: a row of {len(cells)} columns; {len(PLAIN_TSV)} or {len(CLASSES_TSV)}")
    row = dict(zip(names, cells, strict=True))
    plain = names is PLAIN_TSV
    height, width, count = (
        _integer(row[name], name) for name in (("image_h", "image_w") if plain else ("img_h", "img_w")) + ("num_boxes",)
    )
    if count < 1:
        raise ValueError(f"{NO_REGIONS}: num_boxes is {count}")
    features = _decoded(row["features"], "features", "<f4", count)
    boxes = _decoded(row["boxes"], "boxes", "<f4", count)
    classes: dict[str, np.ndarray] = {}
    if not plain:
        stored = zip(_CLASSES, ("objects_id", "objects_conf", "attrs_id", "attrs_conf"), strict=True)
        for name, column in stored:
            kind = "<i8" if name.endswith("_id") else "<f4"
            classes[name] = _decoded(row[column], column, kind, count).reshape(-1)
    return ImageRegions(features, shares_of(boxes, (height, width)), **classes, size=(height, width))


def _integer(cell: bytes, name: str) -> int:
    if not cell.strip().isdigit():
        raise ValueError(f"{WRONG_REGIONS}: {name} is {cell[:20].decode('ascii', 'backslashreplace')!r}")
    return int(cell)


def _decoded(cell: bytes, name: str, kind: str, count: int) -> np.ndarray:
    """Returns [count, numbers of a region]."""
    try:
        raw = base64.b64decode(cell, validate=True)
    except ValueError as error:
        raise ValueError(f"{WRONG_REGIONS}: {name} are no base64: {error}") from None
    return _of_bytes(raw, name, kind, count)


def _of_bytes(raw: bytes, name: str, kind: str, count: int) -> np.ndarray:
    size = np.dtype(kind).itemsize * count
    if not raw or len(raw) % size:
        raise ValueError(f"{WRONG_REGIONS}: {name} has {len(raw)} bytes, which is nothing whole for {count} regions")
    return np.frombuffer(raw, kind).reshape(count, -1)


# Records of a TFRecord file --------------------------------------------------------------------------------------


def regions_of_record(record: bytes) -> ImageRegions:
    """Returns the regions in a record of `write_region_records`.

    Raises:
        ValueError: The record is damaged; the message is the reason shown to the user.
    """
    values = _example(record)
    count = _one(values, "num_regions")
    if count < 1:
        raise ValueError(f"{NO_REGIONS}: num_regions is {count}")
    size = (_one(values, "height"), _one(values, "width"))
    features = _of_bytes(_one(values, "features"), "features", "<f2", count)
    boxes = None
    if "boxes" in values:
        boxes = shares_of(_of_bytes(_one(values, "boxes"), "boxes", "<f4", count), size)
    classes = {}
    for name in _CLASSES:
        if name in values:
            classes[name] = np.asarray(values[name], np.int64 if name.endswith("_id") else np.float32)
    return ImageRegions(features, boxes, **classes, size=size if min(size) > 0 else None)


def image_of_record(record: bytes) -> str:
    """Returns the id of the image of a record.

    Raises:
        ValueError: It has none.
    """
    found = _one(_example(record), "image_id")
    return found.decode("utf-8", "backslashreplace")


def _example(record: bytes) -> dict[str, list[Any]]:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        raise ValueError(f"{WRONG_REGIONS}: no tf.train.Example") from None
    return {name: list(getattr(each, each.WhichOneof("kind") or "bytes_list").value) for name, each in features.items()}


def _one(values: Mapping[str, list[Any]], name: str) -> Any:
    kind = bytes if name in ("image_id", "features", "boxes") else int
    found = values.get(name, [])
    if len(found) != 1 or not isinstance(found[0], kind):
        raise ValueError(f"{WRONG_REGIONS}: a record without one value {name!r} of {kind.__name__}")
    return found[0]


def write_region_records(path: str | Path, images: Iterable[tuple[str, ImageRegions]]) -> int:
    """Writes a TFRecord file with a record for each image: features as float16, boxes in pixels as float32.

    Args:
        path: New file, written as a whole or not at all.
        images: Id and regions of every image; those with boxes need their size.

    Returns:
        How many there were.

    Raises:
        DataError: Features do not fit into 16 bits, or boxes have no image size.
    """
    import tensorflow as tf

    count = 0
    with atomic_path(Path(path)) as partial, tf.io.TFRecordWriter(str(partial)) as writer:
        for image, regions in images:
            writer.write(_record(image, regions))
            count += 1
    return count


def _record(image: str, regions: ImageRegions) -> bytes:
    import tensorflow as tf

    features = np.asarray(regions.features, np.float32)
    if not (np.abs(features) <= np.finfo(np.float16).max).all():
        raise DataError(f"features of image {image!r} do not fit into 16 bits", received=float(np.abs(features).max()))
    height, width = regions.size or (0, 0)
    lists: dict[str, Any] = {
        "image_id": [image.encode("utf-8")],
        "height": [height],
        "width": [width],
        "num_regions": [len(regions)],
        "features": [features.astype("<f2").tobytes()],
    }
    if regions.boxes is not None:
        if regions.size is None:
            raise DataError(f"image {image!r} has boxes and no size", fix="give height and width in pixels")
        pixels = np.asarray(regions.boxes, np.float32) * np.float32([width, height, width, height])
        lists["boxes"] = [pixels.astype("<f4").tobytes()]
    for name in _CLASSES:
        if getattr(regions, name) is not None:
            lists[name] = np.asarray(getattr(regions, name)).tolist()
    kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
    wrap = {"bytes_list": tf.train.BytesList, "int64_list": tf.train.Int64List, "float_list": tf.train.FloatList}
    found = {}
    for name, values in lists.items():
        kind = kinds[type(values[0])]
        found[name] = tf.train.Feature(**{kind: wrap[kind](value=values)})
    return tf.train.Example(features=tf.train.Features(feature=found)).SerializeToString()
