"""Tables of persons: the folders of Market-1501, LTCC and PRCC, read by their file names, and drawn persons.

All have the columns `name`, `image`, `pid`, `camera`, `clothes` and `split`; drawn persons also have `mask`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from easytransfer.data.files import open_text
from easytransfer.data.picture_folders import has_image_name
from easytransfer.errors import DataError

Row = dict[str, Any]
# 0002_c1s1_000451_03.jpg and -1_c1s1_000401_03.jpg; 001_1_c1_015833.png; A_cropped_rgb001.jpg.
_MARKET = re.compile(r"(-?\d{1,9})_c(\d{1,4})")
_LTCC = re.compile(r"(\d{1,9})_(\d{1,9})_c(\d{1,4})")
_PRCC = re.compile(r"([ABC])[_.]")
# In PRCC the cameras A and B show the same clothes, C others.
_PRCC_CAMERAS = {"A": (1, 1), "B": (2, 1), "C": (3, 2)}
# In the test A is the gallery.
_PRCC_SPLITS = {"A": "gallery", "B": "query", "C": "query"}
_MOST_IMAGES, _MOST_PIXELS = 1_000_000, 1 << 18
# Keys of a file of drawn persons, with the least and the most of each number.
PERSON_KEYS = {
    "seed": (0, 2**31),
    "first_pid": (1, 10**6),
    "identities": (1, 10**5),
    "labelled": (0, 10**5),
    "outfits": (1, 100),
    "cameras": (1, 100),
    "images": (1, 100),
    "height": (16, 1024),
    "width": (16, 1024),
}


def read_folder(path: str) -> Iterator[Row]:
    """Reads a folder of one of the data sets: of pictures, or of folders of persons.

    What a row is for follows from the name of the folder: training from `bounding_box_train`, `train` and `val`,
    queries from `query`, the gallery from `bounding_box_test` and `test`. In PRCC's test it follows from the camera.

    Yields:
        `image`, the path from the folder above; numbers as text. Of a picture whose name says nothing `pid` is its
        name, which makes a bad row.
    """
    name = os.path.basename(os.path.abspath(path))
    entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    folders = [entry.name for entry in entries if entry.is_dir()]
    yield from _pictures(path, name, [entry.name for entry in entries if entry.is_file()])
    for folder in folders:
        if folder in _PRCC_CAMERAS and name == "test":
            for person in sorted(os.listdir(os.path.join(path, folder))):
                yield from _person(path, os.path.join(folder, person), name, camera=folder)
        else:
            yield from _person(path, folder, name)


def _pictures(path: str, name: str, files: list[str]) -> Iterator[Row]:
    """Yields the pictures of Market-1501 and LTCC."""
    split = "train" if name in ("train", "val", "bounding_box_train") else "query" if name == "query" else "gallery"
    for file in filter(has_image_name, files):
        pid, camera, clothes = file, "-1", "-1"
        if found := _LTCC.match(file):
            pid, clothes, camera = found.groups()
        elif found := _MARKET.match(file):
            pid, camera = found.groups()
        yield {
            "name": file,
            "image": f"{name}/{file}",
            "pid": pid,
            "camera": camera,
            "clothes": clothes,
            "split": split,
        }


def _person(path: str, folder: str, name: str, camera: str | None = None) -> Iterator[Row]:
    """Yields the pictures of a person of PRCC: the folder is called as the person, pictures begin with the camera."""
    pid = os.path.basename(folder)
    for file in sorted(filter(has_image_name, os.listdir(os.path.join(path, folder)))):
        found = _PRCC.match(file)
        letter = camera or (found[1] if found else None)
        number, clothes = _PRCC_CAMERAS.get(str(letter), (-1, -1))
        split = _PRCC_SPLITS.get(str(letter), "gallery") if name == "test" else "train"
        known = letter is not None and pid.isdigit()
        yield {
            "name": f"{folder}/{file}",
            "image": f"{name}/{folder}/{file}",
            "pid": pid if known else f"{folder}/{file}",
            "camera": str(number),
            "clothes": str(clothes),
            "split": split,
        }


def read_persons(path: str) -> Iterator[Row]:
    """Draws persons; the file is JSON with the numbers of `PERSON_KEYS` and `split`, `train` or `test`.

    Persons have the numbers from `first_pid`; in training those behind the first `labelled` have the identity -1. In a
    test the first camera has the queries. Files with one seed have the same cameras, and a person of one number looks
    the same in all of them.

    Raises:
        DataError: The file says something else.
    """
    from appzoo.person_reid.synthetic import crop

    found = _person_settings(path)
    size = (found["height"], found["width"])
    for index in range(found["identities"]):
        pid = found["first_pid"] + index
        for clothes in range(found["outfits"]):
            for camera in range(found["cameras"]):
                split = "train" if found["split"] == "train" else "query" if camera == 0 else "gallery"
                for image in range(found["images"]):
                    pixels, mask = crop(found["seed"], pid, clothes, camera, image, size)
                    yield {
                        "name": f"{pid}_{clothes}_c{camera}_{image}",
                        "image": _png_text(pixels),
                        "pid": pid if index < found["labelled"] else -1,
                        "camera": camera,
                        "clothes": clothes,
                        "split": split,
                        "mask": _png_text(mask),
                    }


def _png_text(pixels: Any) -> str:
    import io

    from PIL import Image

    from easytransfer.image.files import data_text

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return data_text(stream.getvalue())


def _person_settings(path: str) -> dict[str, Any]:
    with open_text(path) as stream:
        text = stream.read(1 << 16).decode("utf-8")
    if not text:
        raise DataError(f"{path} is empty: it has no row", accepted=f"JSON with {', '.join(PERSON_KEYS)} and split")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}", accepted=f"an object with {', '.join(PERSON_KEYS)}") from None
    if not isinstance(found, dict) or found.keys() != {*PERSON_KEYS, "split"}:
        raise DataError(
            f"{path} is no description of drawn persons", accepted=f"an object with {', '.join(PERSON_KEYS)} and split"
        )
    for name, (least, most) in PERSON_KEYS.items():
        if type(found[name]) is not int or not least <= found[name] <= most:
            raise DataError(f"{path}: {name} is {found[name]!r}", accepted=f"a whole number from {least} to {most}")
    if found["split"] not in ("train", "test"):
        raise DataError(f"{path}: split is {found['split']!r}", accepted="train or test")
    images = found["identities"] * found["outfits"] * found["cameras"] * found["images"]
    if images > _MOST_IMAGES or found["height"] * found["width"] > _MOST_PIXELS:
        raise DataError(
            f"{path}: {images:,} images of {found['height']} x {found['width']}",
            accepted=f"at most {_MOST_IMAGES:,} images of {_MOST_PIXELS:,} pixels",
        )
    if found["height"] % 2 or found["width"] % 2:
        raise DataError(f"{path}: {found['height']} x {found['width']} pixels", accepted="even numbers")
    return found


# By the folders that the data sets have; `/` behind an ending means a folder.
_FOLDERS = ("/bounding_box_train/", "/bounding_box_test/", "/query/", "/train/", "/val/", "/test/")
READERS: dict[str, Callable[[str], Iterator[Row]]] = {**dict.fromkeys(_FOLDERS, read_folder), ".persons": read_persons}
