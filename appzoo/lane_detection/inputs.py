"""Images of a camera: brought to its size, the sky cut off, made smaller; the same in tables and in requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.lane_detection.config import LaneSettings
from easytransfer.app.inputs.base import Encoded, Tensors
from easytransfer.app.inputs.images import ImageInput
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk
from easytransfer.image.graph import decode
from easytransfer.image.resize import resize
from easytransfer.image.size import height_width

# Each of them may take 16 bytes a pixel while it is resized.
_AT_A_TIME = 4


@dataclass
class EncodedCamera(Encoded):
    """Images of a chunk.

    Attributes:
        sizes: Height and width of each picture as it came, (0, 0) for rejected ones.
    """

    sizes: list[tuple[int, int]] = field(default_factory=list)


class CameraImage(ImageInput):
    """A picture a row, as uint8 `image` [batch, height, width, 3] without the rows that are cut off.

    Pictures of another size than the camera's are brought to it first.

    Args:
        column: Table column.
        settings: Sizes.
        lanes: Column of the lanes, whose lists are read as text; None where there is none.
    """

    def __init__(self, column: str, settings: LaneSettings, lanes: str | None) -> None:
        super().__init__(
            column,
            list(height_width(settings.image_size)),
            crop_top=settings.cut_height,
            max_pixels=settings.max_pixels,
        )
        self.settings, self.lanes = settings, lanes
        spec = tf.TensorSpec([None, None, 3], tf.uint8)
        self._resized = tf.function(self.fitted, input_signature=[spec], autograph=False)

    def fitted(self, picture: tf.Tensor) -> tf.Tensor:
        """Returns, inside a graph, uint8 [height, width, 3] of a picture of any size."""
        original = height_width(self.settings.original_size)
        same = tf.reduce_all(tf.shape(picture)[:2] == original)
        picture = tf.cond(same, lambda: picture, lambda: resize(picture, original))
        picture = tf.ensure_shape(picture, [*original, 3])
        return tf.ensure_shape(resize(picture, self.size, "stretch", self.settings.cut_height), self.shape)

    def meaning(self) -> dict[str, Any]:
        """Returns what part of the camera's images it is."""
        return {"original_size": height_width(self.settings.original_size), "cut_height": self.settings.cut_height}

    def text_columns(self) -> dict[str, ListForm]:
        """Returns the column of the lanes, which may hold lists."""
        return {self.lanes: "json"} if self.lanes else {}

    def encode(self, chunk: RowChunk) -> EncodedCamera:
        """Decodes and resizes pictures; those that cannot be used are bad rows with their file."""
        sizes: dict[int, tuple[int, int]] = {}

        def change(picture: np.ndarray) -> np.ndarray:
            with tf.device("/cpu:0"):
                small = self._resized(tf.constant(picture)).numpy()
            sizes[id(small)] = picture.shape[:2]
            return small

        images, found = self.loaded(chunk, change)
        return EncodedCamera({self.name: images}, sizes=[sizes.get(id(image), (0, 0)) for image in found])

    def from_request(self, tensors: Tensors) -> Tensors:
        """Decodes and resizes pictures as `encode` does."""
        return {self.name: self.each(tensors[f"{self.name}_bytes"], lambda data: decode(data, 3, self.max_pixels))}

    def each(self, rows: tf.Tensor, picture: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """Returns, inside a graph, uint8 [batch, height, width, 3].

        Args:
            rows: Pictures in some form [batch, ...].
            picture: Returns uint8 [rows, columns, 3] of one of them.
        """
        spec = tf.TensorSpec(self.shape, tf.uint8)
        # As on the host: a GPU would resize with other roundings.
        with tf.device("/device:CPU:0"):
            return tf.map_fn(
                lambda row: self.fitted(picture(row)), rows, fn_output_signature=spec, parallel_iterations=_AT_A_TIME
            )
