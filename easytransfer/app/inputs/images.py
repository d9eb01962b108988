"""Images of one size, with the statistics that a network normalises them with."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from easytransfer.app.inputs.base import Encoded, Input, Tensors
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.image.decode import load_images
from easytransfer.image.graph import decode_batch
from easytransfer.image.resize import ResizeMode, Resizer
from easytransfer.image.size import ImageSize, height_width, size_reader
from easytransfer.image.statistics import ChannelStatistics
from easytransfer.run.log import say

# Of decoded images that are held at a time while a table is read.
CHUNK_BYTES = 64 << 20


class ImageInput(Input):
    """A picture a row, as uint8 `image` [batch, height, width, channels]; a request has `image_bytes`.

    Args:
        column: Table column: a path relative to the table, `data:` text, encoded bytes or an array.
        size: One number, or height and width.
        channels: 1 or 3.
        name: Of the array, where a network takes several pictures a row, such as `left` and `right`; a request then has
            `left_bytes` and `right_bytes`.
        mode: How other sizes are brought to this one, see `easytransfer.image.resize`.
        crop_top: Rows cut off at the top before that; a picture with no more is a bad row.
        max_pixels: Larger pictures are bad rows.
        statistics: Of the channels, kept with the model; None where it needs none, or they are not known yet.
        fit_statistics: Whether statistics that are not known are computed from the training table.
    """

    preprocessable = False
    doc = "files of JPEG, PNG, WebP or BMP images of one frame"

    def __init__(
        self,
        column: str,
        size: ImageSize | Sequence[int],
        channels: int = 3,
        *,
        name: str = "image",
        mode: ResizeMode = "stretch",
        crop_top: int = 0,
        max_pixels: int = 50_000_000,
        statistics: ChannelStatistics | None = None,
        fit_statistics: bool = False,
    ) -> None:
        self.column, self.size, self.channels, self.mode = column, size_reader(1)(size), channels, mode
        self.name, self.crop_top = name, crop_top
        self.max_pixels, self.statistics, self._fit = max_pixels, statistics, fit_statistics
        self.resizer = Resizer(self.size, mode, crop_top)
        self._file = ChannelStatistics.FILE if name == "image" else f"{name}_statistics.json"

    @property
    def asset_files(self) -> tuple[str, ...]:  # type: ignore[override]
        """The statistics, each picture of a row its own."""
        return (self._file,) if self._fit or self.statistics is not None else ()

    @property
    def shape(self) -> list[int]:
        """Height, width and channels."""
        return [*height_width(self.size), self.channels]

    @property
    def chunk_rows(self) -> int:
        """Rows decoded at a time: what fits into `CHUNK_BYTES` at the size they are brought to."""
        return max(1, CHUNK_BYTES // math.prod(self.shape))

    def table_columns(self) -> list[str]:
        """Returns the image column."""
        return [self.column]

    def encode(self, chunk: RowChunk) -> Encoded:
        """Decodes and resizes images; those that cannot be used are bad rows with their file."""
        return Encoded({self.name: self.loaded(chunk, self.resizer)[0]})

    def loaded(
        self, chunk: RowChunk, change: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray | str]]:
        """Decodes the images of a chunk; those that cannot be used are bad rows.

        Args:
            chunk: Rows of the table.
            change: Brings a decoded picture to `self.shape`.

        Returns:
            uint8 [rows, height, width, channels], zeros for bad rows; and what was loaded, as `load_images` returns it.
        """
        found = load_images(
            chunk.columns[self.column],
            os.path.dirname(chunk.file),
            channels=self.channels,
            max_pixels=self.max_pixels,
            change=change,
        )
        images = np.zeros((len(found), *self.shape), np.uint8)
        for row, image in enumerate(found):
            if isinstance(image, str):
                chunk.reject(row, self.column, image)
            else:
                images[row] = image
        return images, found

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the images as `encode` makes them."""
        return {self.name: tf.TensorSpec([None, *self.shape], tf.uint8)}

    def serving_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the encoded pictures."""
        return {f"{self.name}_bytes": tf.TensorSpec([None], tf.string)}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns encoded pictures of all forms."""
        return {f"{self.name}_bytes": np.array(sample_images(self.size, self.crop_top), object)}

    def from_request(self, tensors: Tensors) -> Tensors:
        """Decodes and resizes pictures as `encode` does."""
        encoded = tensors[f"{self.name}_bytes"]
        found = decode_batch(encoded, self.size, self.channels, self.mode, self.max_pixels, self.crop_top)
        return {self.name: found}

    def on_train_table(self, train: EncodedTable) -> None:
        """Computes the statistics where they are wanted and not known."""
        if self._fit and self.statistics is None:
            self.statistics = ChannelStatistics.of(train.columns[self.name])
            mean, deviation = (
                " ".join(f"{value:.4f}" for value in values) for values in (self.statistics.mean, self.statistics.std)
            )
            say(f"channels of {len(train):,} training images: mean {mean}, standard deviation {deviation}")

    def save_assets(self, folder: Path) -> None:
        """Writes the statistics."""
        if self.statistics is not None:
            self.statistics.save(folder, self._file)


def sample_images(size: ImageSize, crop_top: int = 0) -> list[bytes]:
    """Returns encoded images on which every export is checked: of all forms, grey, colour, alpha, turned, resized.

    Args:
        size: Size that the model takes.
        crop_top: Rows that it cuts off.
    """
    height, width = height_width(size)
    random = np.random.default_rng(0)
    found = []
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    for mode, form, shape, settings in (
        ("L", "PNG", (height + crop_top, width), {}),
        ("RGB", "PNG", (height + 5 + crop_top, 2 * width), {}),
        ("RGBA", "PNG", (7 + crop_top, 9), {}),
        ("RGB", "JPEG", (3 * width, 2 * height + crop_top), {"exif": turned}),
        ("L", "JPEG", (height + crop_top, width + 1), {}),
        ("RGB", "WEBP", (height + crop_top, width), {}),
        ("L", "BMP", (height + 2 + crop_top, width), {}),
    ):
        bands = len(Image.new(mode, (1, 1)).getbands())
        small = random.integers(0, 256, (4, 4, bands)).astype(np.uint8)
        picture = Image.fromarray(small[..., 0] if bands == 1 else small).resize(shape[::-1], Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        picture.save(stream, form, **settings)
        found.append(stream.getvalue())
    return found
