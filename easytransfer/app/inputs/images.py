"""Images of one size, with the statistics that a network normalises them with."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image

from easytransfer.app.inputs.base import Encoded, Input, Tensors
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.image.decode import load_images
from easytransfer.image.graph import decode_batch
from easytransfer.image.resize import ResizeMode, Resizer
from easytransfer.image.statistics import ChannelStatistics
from easytransfer.run.log import say

# Of decoded images that are held at a time while a table is read.
CHUNK_BYTES = 64 << 20


class ImageInput(Input):
    """A picture a row, as uint8 `image` [batch, size, size, channels].

    Args:
        column: Table column: a path relative to the table, `data:` text, encoded bytes or an array.
        size: Height and width.
        channels: 1 or 3.
        mode: How other sizes are brought to this one, see `easytransfer.image.resize`.
        max_pixels: Larger pictures are bad rows.
        statistics: Of the channels; None computes them from the training table.
    """

    asset_files: ClassVar[tuple[str, ...]] = (ChannelStatistics.FILE,)
    doc = "files of JPEG, PNG, WebP or BMP images of one frame"

    def __init__(
        self,
        column: str,
        size: int,
        channels: int = 3,
        *,
        mode: ResizeMode = "stretch",
        max_pixels: int = 50_000_000,
        statistics: ChannelStatistics | None = None,
    ) -> None:
        self.column, self.size, self.channels, self.mode = column, size, channels, mode
        self.max_pixels, self.statistics = max_pixels, statistics
        self.resizer = Resizer(size, mode)

    @property
    def chunk_rows(self) -> int:
        """Rows decoded at a time: what fits into `CHUNK_BYTES` at the size they are brought to."""
        return max(1, CHUNK_BYTES // (self.size**2 * self.channels))

    def table_columns(self) -> list[str]:
        """Returns the image column."""
        return [self.column]

    def encode(self, chunk: RowChunk) -> Encoded:
        """Decodes and resizes images; those that cannot be used are bad rows with their file."""
        found = load_images(
            chunk.columns[self.column],
            os.path.dirname(chunk.file),
            channels=self.channels,
            max_pixels=self.max_pixels,
            change=self.resizer,
        )
        images = np.zeros((len(found), self.size, self.size, self.channels), np.uint8)
        for row, image in enumerate(found):
            if isinstance(image, str):
                chunk.reject(row, self.column, image)
            else:
                images[row] = image
        return Encoded({"image": images})

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the images as `encode` makes them."""
        return {"image": tf.TensorSpec([None, self.size, self.size, self.channels], tf.uint8)}

    def serving_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the encoded pictures."""
        return {"image_bytes": tf.TensorSpec([None], tf.string)}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns encoded pictures of all forms."""
        return {"image_bytes": np.array(sample_images(self.size), object)}

    def from_request(self, tensors: Tensors) -> Tensors:
        """Decodes and resizes pictures as `encode` does."""
        encoded = tensors["image_bytes"]
        return {"image": decode_batch(encoded, self.size, self.channels, self.mode, self.max_pixels)}

    def on_train_table(self, train: EncodedTable) -> None:
        """Computes the statistics where they are not known."""
        if self.statistics is None:
            self.statistics = ChannelStatistics.of(train.columns["image"])
            mean, deviation = (
                " ".join(f"{value:.4f}" for value in values) for values in (self.statistics.mean, self.statistics.std)
            )
            say(f"channels of {len(train):,} training images: mean {mean}, standard deviation {deviation}")

    def save_assets(self, folder: Path) -> None:
        """Writes the statistics."""
        if self.statistics is not None:
            self.statistics.save(folder)


def sample_images(size: int) -> list[bytes]:
    """Returns encoded images on which every export is checked: of all forms, grey, colour, alpha, turned, resized."""
    random = np.random.default_rng(0)
    found = []
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    for mode, form, shape, settings in (
        ("L", "PNG", (size, size), {}),
        ("RGB", "PNG", (size + 5, 2 * size), {}),
        ("RGBA", "PNG", (7, 9), {}),
        ("RGB", "JPEG", (3 * size, 2 * size), {"exif": turned}),
        ("L", "JPEG", (size, size + 1), {}),
        ("RGB", "WEBP", (size, size), {}),
        ("L", "BMP", (size + 2, size), {}),
    ):
        bands = len(Image.new(mode, (1, 1)).getbands())
        small = random.integers(0, 256, (4, 4, bands)).astype(np.uint8)
        picture = Image.fromarray(small[..., 0] if bands == 1 else small).resize(shape[::-1], Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        picture.save(stream, form, **settings)
        found.append(stream.getvalue())
    return found
