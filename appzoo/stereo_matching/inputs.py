"""Rectified pairs of images of one size each, filled up to one size for all."""

from __future__ import annotations

import io
import math
import os
from pathlib import PurePath
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from easytransfer.app.inputs.base import Encoded, Input, Tensors
from easytransfer.data.encoded import HostColumn
from easytransfer.data.table import RowChunk
from easytransfer.image import graph
from easytransfer.image.decode import load_images
from easytransfer.image.size import ImageSize, height_width

# Of decoded images that are held at a time while a table is read.
_CHUNK_BYTES = 64 << 20
# Pairs of a request that are decoded at a time.
_AT_A_TIME = 4
UNEQUAL_SIZES = "images of unequal sizes"
TOO_LARGE = "pair too large"
TOO_NARROW = "pair too narrow"


class StereoInput(Input):
    """A pair a row: `left` and `right` uint8 [batch, height, width, 3], and `size`, what of them is the pair.

    Pairs of other sizes are filled with black at the top and on the right: x of a pixel, and with it the side from
    which the right eye sees, stays as it is. A request has `left_bytes` and `right_bytes`.

    Args:
        left: Table column of the left image: a path relative to the table, `data:` text or bytes.
        right: The same of the right image.
        size: Height and width that pairs are filled up to.
        disparities: Disparities are below this number; pairs have twice as many columns.
        max_pixels: Larger images are bad rows, and not decoded.
    """

    doc = "files of the two images of rectified pairs, JPEG, PNG, WebP or BMP"

    def __init__(self, left: str, right: str, size: ImageSize, disparities: int, max_pixels: int = 50_000_000) -> None:
        self.columns, self.size = (left, right), height_width(size)
        self.disparities, self.max_pixels = disparities, max_pixels

    @property
    def chunk_rows(self) -> int:  # type: ignore[override]
        """Pairs decoded at a time."""
        return max(1, _CHUNK_BYTES // (6 * math.prod(self.size)))

    def table_columns(self) -> list[str]:
        """Returns the columns of both images."""
        return list(self.columns)

    def encode(self, chunk: RowChunk) -> Encoded:
        """Decodes pairs; those that cannot be used are bad rows with the reason. `name` is that of the left file."""
        rows, folder = len(chunk.accepted), os.path.dirname(chunk.file)
        images = np.zeros((2, rows, *self.size, 3), np.uint8)
        sizes = np.zeros((rows, 2), np.int32)
        found = [
            load_images(
                chunk.columns[column], folder, channels=3, max_pixels=self.max_pixels, change=self._small_enough
            )
            for column in self.columns
        ]
        for row, pair in enumerate(zip(*found, strict=True)):
            if problem := self._problem(pair):
                chunk.reject(row, *problem)
                continue
            sizes[row] = pair[0].shape[:2]
            for side, image in enumerate(pair):
                filled_up(images[side, row], image)
        cells = chunk.columns[self.columns[0]]
        names = HostColumn.of(_name(cell, int(chunk.index[row])) for row, cell in enumerate(cells))
        return Encoded({"left": images[0], "right": images[1], "size": sizes, "name": names})

    def _small_enough(self, image: np.ndarray) -> np.ndarray:
        """Refuses what is too large at once: only a few such images are held at a time."""
        height, width = image.shape[:2]
        if height > self.size[0] or width > self.size[1]:
            raise ValueError(f"{TOO_LARGE}: {height} x {width} is more than image_size={list(self.size)}")
        return image

    def _problem(self, pair: tuple[np.ndarray | str, ...]) -> tuple[str, str] | None:
        """Returns the column and the reason for which a pair cannot be used."""
        for column, image in zip(self.columns, pair, strict=True):
            if isinstance(image, str):
                return column, image
        (height, width), other = pair[0].shape[:2], pair[1].shape[:2]
        if (height, width) != other:
            return self.columns[1], f"{UNEQUAL_SIZES}: left {height} x {width}, right {other[0]} x {other[1]}"
        if width < 2 * self.disparities:
            return self.columns[
                0
            ], f"{TOO_NARROW}: {width} columns, max_disparity={self.disparities} needs twice as many"
        return None

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the pairs as `encode` makes them."""
        image = tf.TensorSpec([None, *self.size, 3], tf.uint8)
        return {"left": image, "right": image, "size": tf.TensorSpec([None, 2], tf.int32)}

    def serving_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the encoded images."""
        return {f"{side}_bytes": tf.TensorSpec([None], tf.string) for side in ("left", "right")}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns encoded pairs of several forms and sizes."""
        pairs = sample_pairs(self.size, self.disparities)
        return {
            f"{side}_bytes": np.array([pair[i] for pair in pairs], object) for i, side in enumerate(("left", "right"))
        }

    def from_request(self, tensors: Tensors) -> Tensors:
        """Decodes pairs as `encode` does; fails where it would reject them."""
        specs = self.specs()
        kinds = tuple(tf.TensorSpec(specs[name].shape[1:], specs[name].dtype) for name in ("left", "right", "size"))

        def one(pair: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
            return self.filled(*(graph.decode(data, 3, self.max_pixels) for data in pair))

        with tf.device("/device:CPU:0"):
            encoded = (tensors["left_bytes"], tensors["right_bytes"])
            found = tf.map_fn(one, encoded, fn_output_signature=kinds, parallel_iterations=_AT_A_TIME)
        # Once more under another name: it goes to the answer, too.
        return {**dict(zip(("left", "right", "size"), found, strict=True)), "request_size": found[2]}

    def filled(self, left: tf.Tensor, right: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns, inside a graph, a pair or a batch of pairs of one size, and that size, as `encode` makes them.

        Args:
            left: uint8 [..., height, width, 3].
            right: The same.
        """
        size, other = tf.shape(left)[-3:-1], tf.shape(right)[-3:-1]
        shown = (tf.strings.reduce_join(tf.strings.as_string(x), separator=" x ") for x in (size, other))
        left_text, right_text = shown
        checks = [
            (tf.reduce_all(size == other), [UNEQUAL_SIZES, ": left ", left_text, ", right ", right_text]),
            (tf.reduce_all(size <= self.size), [TOO_LARGE, ": ", left_text, f" is more than {list(self.size)}"]),
            (
                size[1] >= 2 * self.disparities,
                [TOO_NARROW, ": ", left_text, f", {2 * self.disparities} columns needed"],
            ),
        ]
        asserted = [tf.debugging.Assert(true, [tf.strings.join(text)]) for true, text in checks]
        with tf.control_dependencies([check for check in asserted if check is not None]):
            empty = tf.maximum(tf.constant(self.size) - size, 0)
        pad = [[0, 0]] * (left.shape.rank - 3) + [[empty[0], 0], [0, empty[1]], [0, 0]]
        images = [tf.ensure_shape(tf.pad(x, pad), [*x.shape[:-3], *self.size, 3]) for x in (left, right)]
        return images[0], images[1], size


def filled_up(whole: np.ndarray, part: np.ndarray) -> None:
    """Puts an image or a map into the lower left corner of a larger one."""
    whole[len(whole) - len(part) :, : part.shape[1]] = part


def inside(size: tf.Tensor, whole: tuple[int, int]) -> tf.Tensor:
    """Returns which pixels are of the pair, bool [batch, height, width].

    Args:
        size: Of the pairs, int32 [batch, 2].
        whole: Height and width that they are filled up to.
    """
    rows = tf.range(whole[0])[None, :] >= whole[0] - size[:, :1]
    columns = tf.range(whole[1])[None, :] < size[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


def _name(cell: Any, index: int) -> str:
    """Returns the name that results of a row get: that of its left file, or its number."""
    if isinstance(cell, str) and not cell.startswith("data:") and PurePath(cell).stem:
        return PurePath(cell).stem
    return f"{index:06d}"


def sample_pairs(size: tuple[int, int], disparities: int) -> list[tuple[bytes, bytes]]:
    """Returns encoded pairs on which every export is checked: of several forms, as large as they may be and smaller.

    Args:
        size: Largest height and width.
        disparities: They have twice as many columns.
    """
    height, width = size
    random = np.random.default_rng(0)
    found = []
    for mode, form, shape in (
        ("RGB", "PNG", (height, width)),
        ("L", "PNG", (height - 3, max(2 * disparities, width - 5))),
        ("RGB", "JPEG", (max(height // 2, 1), width)),
        ("RGBA", "WEBP", (height, 2 * disparities)),
    ):
        bands = len(Image.new(mode, (1, 1)).getbands())
        small = random.integers(0, 256, (8, 16, bands)).astype(np.uint8)
        left = Image.fromarray(small[..., 0] if bands == 1 else small).resize(shape[::-1], Image.Resampling.BICUBIC)
        right = left.transform(left.size, Image.Transform.AFFINE, (1, 0, 3, 0, 1, 0))
        pair = []
        for image in (left, right):
            stream = io.BytesIO()
            image.save(stream, form)
            pair.append(stream.getvalue())
        found.append((pair[0], pair[1]))
    return found
