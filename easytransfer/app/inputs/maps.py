"""Maps of one value a pixel: labels and disparities, as inputs, or as what a target learns."""

from __future__ import annotations

import abc
import math
import os
from collections.abc import Sequence

import numpy as np

from easytransfer.app.inputs.base import Encoded, Input
from easytransfer.app.inputs.images import CHUNK_BYTES
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.image.maps import from_fixed_point, load_maps
from easytransfer.image.resize import TOO_LOW, ResizeMode, kept_box
from easytransfer.image.size import ImageSize, height_width, size_reader

UNKNOWN_LABEL = "unknown label"
WRONG_MAP = "wrong kind of map"
# Where labels are not given.
_MOST_LABELS = 1 << 16


class MapInput(Input):
    """A map a row, as `<name>` [batch, height, width]; made smaller or larger by taking the nearest value.

    It is cut and resized as the image of the row is, so both take the same `mode`, `size` and `crop_top`. A target
    reads maps as labels by inheriting from this class and from `Target`.

    Args:
        column: Table column: a path relative to the table, `data:` text, encoded bytes or an array.
        size: One number, or height and width.
        name: Of the array; that of the column when None.
        mode: How other sizes are brought to this one, see `easytransfer.image.resize`.
        crop_top: Rows cut off at the top before that, in rows of the map; a map with no more is a bad row.
        max_pixels: Larger maps are bad rows.
    """

    preprocessable = False
    doc = "maps of one value a pixel"
    # Of the array.
    dtype: np.dtype

    def __init__(
        self,
        column: str,
        size: ImageSize | Sequence[int],
        *,
        name: str | None = None,
        mode: ResizeMode = "stretch",
        crop_top: int = 0,
        max_pixels: int = 50_000_000,
    ) -> None:
        self.column, self.name, self.size = column, name or column, size_reader(1)(size)
        self.mode, self.crop_top, self.max_pixels = mode, crop_top, max_pixels

    @abc.abstractmethod
    def values(self, stored: np.ndarray) -> np.ndarray:
        """Returns the values that a map holds.

        Args:
            stored: uint8, uint16 or float32 [height, width], as `decode_map` has them.

        Raises:
            ValueError: It is not of this kind; the message is the reason shown to the user.
        """

    @property
    def chunk_rows(self) -> int:
        """Rows read at a time: what fits into `CHUNK_BYTES` at the size they are brought to."""
        return max(1, CHUNK_BYTES // (math.prod(height_width(self.size)) * self.dtype.itemsize))

    def table_columns(self) -> list[str]:
        """Returns the column of the maps."""
        return [self.column]

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded] = ()) -> Encoded:
        """Reads and resizes maps; those that cannot be used are bad rows with their file.

        Args:
            chunk: Rows of the table.
            inputs: What inputs made of it, where this is a target; not looked at.
        """
        found = load_maps(
            chunk.columns[self.column], os.path.dirname(chunk.file), max_pixels=self.max_pixels, change=self._change
        )
        maps = np.zeros((len(found), *height_width(self.size)), self.dtype)
        for row, values in enumerate(found):
            if isinstance(values, str):
                chunk.reject(row, self.column, values)
            else:
                maps[row] = values
        return Encoded({self.name: maps})

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the maps as `encode` makes them."""
        return {self.name: tf.TensorSpec([None, *height_width(self.size)], self.dtype)}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns maps of random values, as many as `ImageInput` has samples."""
        random = np.random.default_rng(0)
        return {self.name: random.integers(0, 2, (7, *height_width(self.size))).astype(self.dtype)}

    def _change(self, stored: np.ndarray) -> np.ndarray:
        rows, columns = stored.shape
        if rows <= self.crop_top:
            raise ValueError(f"{TOO_LOW}: {rows} rows are not more than crop_top={self.crop_top}")
        top, left, tall, wide = kept_box(rows, columns, self.size, self.mode, self.crop_top)
        height, width = height_width(self.size)
        # The value that the centre of each new pixel falls into, in whole numbers.
        y = top + (2 * np.arange(height) + 1) * tall // (2 * height)
        x = left + (2 * np.arange(width) + 1) * wide // (2 * width)
        return self.scaled(self.values(stored)[np.ix_(y, x)], width / wide)

    def scaled(self, values: np.ndarray, scale: float) -> np.ndarray:
        """Returns the values of a map whose width was multiplied by `scale`; most do not depend on it."""
        return values


class LabelMapInput(MapInput):
    """A map of labels: uint8, or uint16 where they do not fit.

    Files are PNG: grey values or places in a palette are the labels, as they are stored.

    Args:
        column: As in `MapInput`, like all others.
        size: One number, or height and width.
        classes: Labels are 0 to classes - 1; others are bad rows.
        ignored: A further label, of pixels that losses leave out, such as 255; None = there is none.
        **form: As in `MapInput`.

    Example:
        >>> LabelMapInput("mask", [288, 800], classes=5, ignored=255).specs()["mask"]
        TensorSpec(shape=(None, 288, 800), dtype=tf.uint8, name=None)
    """

    def __init__(
        self, column: str, size: ImageSize | Sequence[int], classes: int, *, ignored: int | None = None, **form: object
    ) -> None:
        super().__init__(column, size, **form)  # type: ignore[arg-type]
        most = max(classes - 1, ignored or 0)
        if not 1 <= classes <= _MOST_LABELS or not 0 <= most < _MOST_LABELS or (ignored is not None and ignored < 0):
            raise ValueError(f"labels are 0 to 65535: classes={classes}, ignored={ignored}")
        self.classes, self.ignored = classes, ignored
        self.dtype = np.dtype(np.uint8 if most < 256 else np.uint16)

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Returns labels; see `MapInput.values`."""
        if stored.dtype == np.float32:
            raise ValueError(f"{WRONG_MAP}: its values are float32, labels are whole numbers in a PNG file")
        wrong = stored >= self.classes
        if self.ignored is not None:
            wrong &= stored != self.ignored
        if wrong.any():
            known = f"0 to {self.classes - 1}" + ("" if self.ignored is None else f" and {self.ignored}")
            raise ValueError(f"{UNKNOWN_LABEL}: {stored[wrong][0]}; known: {known}")
        return stored.astype(self.dtype)


class DisparityInput(MapInput):
    """A map of disparities in pixels of the result: float32, 0 where it is not known.

    Files are PNG of 16 bits, whose values are divided by `png_scale`, or PFM, where unknown values are not finite.
    Values are multiplied by the horizontal scale when a map is resized.

    Args:
        column: As in `MapInput`, like all others.
        size: One number, or height and width.
        png_scale: What a disparity of 1 is in a PNG file; 256 in KITTI.
        **form: As in `MapInput`.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self, column: str, size: ImageSize | Sequence[int], *, png_scale: float = 256.0, **form: object
    ) -> None:
        super().__init__(column, size, **form)  # type: ignore[arg-type]
        self.png_scale = png_scale

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Returns disparities; see `MapInput.values`."""
        if stored.dtype == np.uint8:
            raise ValueError(f"{WRONG_MAP}: it has 8 bits a value, disparities are PNG of 16 bits or PFM")
        if stored.dtype == np.uint16:
            return from_fixed_point(stored, self.png_scale)
        found = np.where(np.isfinite(stored), stored, 0)
        if found.min() < 0:
            raise ValueError(f"{WRONG_MAP}: a disparity is {found.min():g}, left x minus right x is 0 or more")
        return found

    def scaled(self, values: np.ndarray, scale: float) -> np.ndarray:
        """Returns disparities in pixels of the new width."""
        return values * np.float32(scale)
