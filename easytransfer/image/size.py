"""Height and width of images, as settings name them; no TensorFlow here, so that configurations load fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError

# One number stands for both sides. A square is always one number, so that equal sizes are equal values.
ImageSize = int | tuple[int, int]
_SIDES = TypeAdapter(tuple[int, ...])


def height_width(size: ImageSize) -> tuple[int, int]:
    """Returns height and width in pixels."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def size_text(size: ImageSize) -> str:
    """Returns a size as a user types it: `32`, or `[288,800]`."""
    return str(size) if isinstance(size, int) else "[{},{}]".format(*size)


def size_reader(least: int) -> Callable[[Any], ImageSize]:
    """Returns what checks the value of a setting that is a size.

    Args:
        least: Fewest pixels of a side.

    Returns:
        A function that takes one number or a list of one or two, and returns the size. It raises ValueError for
        anything else.

    Example:
        >>> size_reader(8)("288,800".split(",")), size_reader(8)([32, 32])
        ((288, 800), 32)
    """

    def read(value: Any) -> ImageSize:
        try:
            sides = _SIDES.validate_python(value if isinstance(value, list | tuple) else [value])
        except ValidationError:
            sides = ()
        if len(sides) not in (1, 2) or min(sides) < least:
            raise ValueError(f"one number, or [height, width], of {least} pixels or more is needed")
        return sides[0] if len(set(sides)) == 1 else (sides[0], sides[1])

    return read
