"""Directories of pictures: which of them are classes, and every file of a class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from easytransfer.errors import DataError
from easytransfer.run.log import warn_once

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".webp")
# What file managers leave behind, beside names that begin with a dot.
_CLUTTER = ("thumbs.db", "desktop.ini", "__macosx")
_MOST_NAMES = 10


def has_image_name(name: str) -> bool:
    """Returns whether a file is named like a picture of a form that is read."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_seen(name: str) -> bool:
    """Returns whether a file or directory of this name is read at all.

    Names that begin with `.` or `_` are hidden, but for pictures: cameras begin names with `_`.
    """
    return not _is_clutter(name) and (name[0] != "_" or has_image_name(name))


def _is_clutter(name: str) -> bool:
    return name[0] == "." or name.lower() in _CLUTTER


def files_below(folder: str) -> Iterator[str]:
    """Yields the files of a class, whatever they are, in its directory and the visible ones below, in a fixed order."""
    for root, folders, names in os.walk(folder):
        skipped = [name for name in folders if not is_seen(name) or os.path.islink(os.path.join(root, name))]
        folders[:] = sorted(set(folders) - set(skipped))
        warn_of_skipped(root, skipped)
        yield from (os.path.join(root, name) for name in sorted(names) if not _is_clutter(name))


def warn_of_skipped(root: str, names: Sequence[str]) -> None:
    """Warns of directories that are left out although pictures are in them; hidden ones and clutter may be."""
    lost = [name for name in sorted(names) if not _is_clutter(name) and _has_pictures(os.path.join(root, name))]
    if lost:
        warn_once(
            f"pictures in {root} are left out, those of the directories {_listed(lost)}: names that begin with _ and "
            "links below a class are not read; rename or move them to have them read"
        )


def class_folders(folder: str, names: Sequence[str]) -> list[str]:
    """Returns the directories that are classes: all of them where one has pictures, else none.

    Args:
        folder: Where they are.
        names: Directories there, as they come.
    """
    seen = [os.path.join(folder, name) for name in sorted(names) if is_seen(name)]
    if not any(map(_has_pictures, seen)):
        return []
    warn_of_skipped(folder, [name for name in names if not is_seen(name)])
    empty = [os.path.basename(path) for path in seen if next(files_below(path), None) is None]
    if empty:
        warn_once(f"directories in {folder} without a file are no classes: {_listed(empty)}")
    return [path for path in seen if os.path.basename(path) not in empty]


def beside_classes(folder: str, classes: Sequence[str], files: Sequence[str], tables: Sequence[str]) -> list[str]:
    """Returns what a directory with class directories and files beside them stands for, and tells what is left out.

    Args:
        folder: The directory.
        classes: Its class directories.
        files: Its visible files.
        tables: Those of them that are named like tables, which are read and not the directories.

    Raises:
        DataError: Pictures lie beside the classes, so that it could be a class itself.
    """
    names = [os.path.basename(path) for path in classes]
    if tables:
        shown = _listed([os.path.basename(path) for path in tables])
        warn_once(f"{folder} holds tables ({shown}), so directories of pictures are no classes: {_listed(names)}")
        return list(files)
    loose = [os.path.basename(path) for path in files if has_image_name(path)]
    if loose:
        raise DataError(
            f"{folder} holds pictures beside directories of pictures, so their class is not clear",
            received=f"{_listed(loose)} beside {_listed(names)}",
            fix="move them into the directory of a class, or name the directories with commas between them",
        )
    if files:
        shown = _listed([os.path.basename(path) for path in files])
        warn_once(f"files beside the class directories of {folder} are not read: {shown}")
    return list(classes)


def _has_pictures(folder: str) -> bool:
    """Looks below hidden directories too, and follows no links but its own."""
    return any(has_image_name(name) for _, _, names in os.walk(folder) for name in names if name[0] != ".")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
