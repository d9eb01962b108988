"""Regions of images beside a text: features and boxes from the table, from a file an image, or from files of records.

Arrays of a batch, with K regions of F numbers:

- `features` float32 [batch, K, F] and `boxes` float32 [batch, K, 4] (x1, y1, x2, y2 divided by width and height of the
  image), zeros where there are none; `region_mask` int32 [batch, K], 1 for real regions;
- with `classes` also `object_id`, `attribute_id` int32 [batch, K], -1 for unknown, and `object_conf`, `attribute_conf`
  float32 [batch, K], 0 for unknown;
- with `labels` what `region_labels.LabelMaker.in_use` makes the labels of;
- on the host `image_id`, what tells images apart, and `image_size`, [height, width] in pixels or None.
"""

from __future__ import annotations

import abc
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from easytransfer.app.inputs.base import Encoded, Input, Tensors
from easytransfer.app.inputs.region_labels import STORED, LabelMaker, Labels
from easytransfer.data.encoded import HostColumn
from easytransfer.data.region_files import RegionFiles
from easytransfer.data.regions import WRONG_BOX, WRONG_REGIONS, ImageRegions, checked, regions_of_npz
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.errors import ConfigError
from easytransfer.image.files import decode_cell
from easytransfer.run.log import warn_once

ARRAYS = ("features", "boxes", "region_mask")
CLASSES = ("object_id", "object_conf", "attribute_id", "attribute_conf")
# What stands where nothing is known, if not 0.
_EMPTY = {"object_id": -1, "attribute_id": -1, **dict.fromkeys(STORED, -1)}
# Of features that are held at a time while a table is read.
CHUNK_BYTES = 64 << 20
_NO_CLASSES = "there are images without classes of regions: what is learnt of classes and labels leaves them out"

# A reason why the cell of a row cannot be used, or regions with what tells their image apart.
Found = str | tuple[str, ImageRegions]


class Regions(Input):
    """Regions of the image of a row; a subclass knows where they come from.

    Args:
        column: Table column that says which image it is.
        count: Most regions of an image, K; an image with more is a bad row.
        width: Numbers of a region, F.
        has_boxes: Whether regions have boxes, which a request then gives too.
        classes: Whether the classes of a detector are read.
        labels: Makes labels of these classes; None where there are none.
        suffix: Behind the names of the arrays, where a network reads several images a row.
        raw_prefix: Before the names of the raw tensors of a request.
    """

    preprocessable = False

    def __init__(
        self,
        column: str,
        count: int,
        width: int,
        *,
        has_boxes: bool,
        classes: bool = False,
        labels: LabelMaker | None = None,
        suffix: str = "",
        raw_prefix: str = "",
    ) -> None:
        self.column, self.count, self.width, self.has_boxes = column, count, width, has_boxes
        self.classes, self.labels, self.suffix, self.raw_prefix = classes, labels, suffix, raw_prefix
        self.chunk_rows = max(1, CHUNK_BYTES // (4 * count * (width + 4)))
        self.doc = "features of regions" + (" and their boxes in pixels" if has_boxes else "")

    @abc.abstractmethod
    def found(self, chunk: RowChunk) -> Iterator[Found]:
        """Yields the regions of every position of a chunk, not yet checked, or why there are none."""

    def table_columns(self) -> list[str]:
        """Returns the column of the image."""
        return [self.column]

    def encode(self, chunk: RowChunk) -> Encoded:
        """Returns the regions; those that cannot be used are bad rows."""
        rows = len(chunk.index)
        arrays = {name: np.zeros([rows, *spec.shape[1:]], spec.dtype.as_numpy_dtype) for name, spec in self._specs()}
        for name, array in arrays.items():
            array += _EMPTY.get(name, 0)
        images: list[str] = [""] * rows
        sizes: list[Any] = [None] * rows
        for row, found in enumerate(self.found(chunk)):
            try:
                if isinstance(found, str):
                    raise ValueError(found)
                regions = checked(found[1], self.width, self.count)
                if self.has_boxes and regions.boxes is None:
                    raise ValueError(f"{WRONG_BOX}: there are none, and the application reads boxes")
                labels = self.labels.make(regions) if self.labels else None
            except ValueError as error:
                chunk.reject(row, self.column, str(error))
                continue
            images[row], sizes[row] = found[0], regions.size
            self._fill({name: array[row] for name, array in arrays.items()}, regions, labels)
        named = {f"{name}{self.suffix}": array for name, array in arrays.items()}
        of_host = {"image_id": HostColumn.of(images), "image_size": HostColumn.of(sizes)}
        return Encoded(named | {f"{name}{self.suffix}": column for name, column in of_host.items()})

    def _fill(self, row: dict[str, np.ndarray], regions: ImageRegions, labels: Labels | None) -> None:
        real = slice(len(regions))
        row["features"][real], row["region_mask"][real] = regions.features, 1
        if self.has_boxes:
            row["boxes"][real] = regions.boxes
        if labels is not None:
            self.labels.fill(row, labels)
        if (self.classes or self.labels) and regions.object_id is None:
            warn_once(_NO_CLASSES)
            return
        for name in CLASSES if self.classes else ():
            values = getattr(regions, name)
            if values is None and name == "object_conf":
                # Classes that somebody wrote down without a confidence are certain.
                values = (regions.object_id >= 0).astype(np.float32)
            elif values is None and name == "attribute_conf" and regions.attribute_id is not None:
                values = (regions.attribute_id >= 0).astype(np.float32)
            if values is not None:
                row[name][real] = values

    def _specs(self) -> list[tuple[str, tf.TensorSpec]]:
        shape = [None, self.count]
        found = [
            ("features", tf.TensorSpec([*shape, self.width], tf.float32)),
            ("boxes", tf.TensorSpec([*shape, 4], tf.float32)),
            ("region_mask", tf.TensorSpec(shape, tf.int32)),
        ]
        for name in CLASSES if self.classes else ():
            found.append((name, tf.TensorSpec(shape, tf.int32 if name.endswith("_id") else tf.float32)))
        return [*found, *(self.labels.specs().items() if self.labels else ())]

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the arrays of the module's list."""
        return {f"{name}{self.suffix}": spec for name, spec in self._specs()}

    # A request -------------------------------------------------------------------------------------------------

    def serving_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns `features`, `num_regions` [batch], and with boxes `boxes` in pixels and `image_size` [batch, 2].

        `image_size` is height and width; what stands behind the first `num_regions` of an image is not read.
        """
        found = {"features": dict(self._specs())["features"], "num_regions": tf.TensorSpec([None], tf.int32)}
        if self.has_boxes:
            found |= box_specs(self.count)
        return {f"{self.raw_prefix}{name}": spec for name, spec in found.items()}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns images with one region, with all, and with some between."""
        rows, random = 5, np.random.default_rng(len(self.suffix))
        counts = np.linspace(1, self.count, rows).round().astype(np.int32)
        real = np.arange(self.count) < counts[:, None]
        features = random.normal(size=[rows, self.count, self.width]).astype(np.float32) * real[..., None]
        found = {"features": features, "num_regions": counts}
        if self.has_boxes:
            found |= box_samples(rows, self.count, random)
        return {f"{self.raw_prefix}{name}": value for name, value in found.items()}

    def from_request(self, tensors: Tensors) -> Tensors:
        """Returns the arrays; classes are unknown in a request."""
        raw = {name.removeprefix(self.raw_prefix): value for name, value in tensors.items()}
        mask = real_regions(raw["num_regions"], self.count)
        finite = tf.reduce_all(tf.math.is_finite(raw["features"]))
        with tf.control_dependencies([tf.debugging.Assert(finite, ["features must be finite numbers"])]):
            features = tf.where(mask[..., None] == 1, raw["features"], 0.0)
        boxes = tf.zeros([tf.shape(mask)[0], self.count, 4])
        if self.has_boxes:
            boxes = boxes_of_request(raw["boxes"], raw["image_size"], mask)
        return self.served(features, boxes, mask) | self._size(raw)

    def served(self, features: tf.Tensor, boxes: tf.Tensor, mask: tf.Tensor) -> Tensors:
        """Returns the arrays of `specs` for those of a request, whose classes are unknown."""
        found = {"features": features, "boxes": boxes, "region_mask": mask}
        for name, spec in self._specs():
            if name not in found:
                shape = tf.concat([tf.shape(mask)[:1], spec.shape[1:]], axis=0)
                found[name] = tf.fill(shape, tf.constant(_EMPTY.get(name, 0), spec.dtype))
        return {f"{name}{self.suffix}": value for name, value in found.items()}

    def _size(self, raw: Tensors) -> Tensors:
        return {f"image_size{self.suffix}": raw["image_size"]} if self.has_boxes else {}


class TableRegions(Regions):
    """Regions whose numbers stand in the table: K x F floats of a row, one region behind the other, all of them real.

    Args:
        column: Column of the features: a flat list, or nested ones; F numbers for each region, at most K x F.
        box_column: Column of the boxes, 4 numbers for each region, as shares of the image; None where there are none.
        count: Most regions of an image.
        width: Numbers of a region.
        options: As `Regions` has them.
    """

    def __init__(
        self,
        column: str,
        count: int,
        width: int,
        *,
        box_column: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(column, count, width, has_boxes=box_column is not None, **options)
        self.box_column = box_column
        # A number of a list takes eight times what it takes in an array.
        self.chunk_rows = max(1, self.chunk_rows // 8)

    def table_columns(self) -> list[str]:
        """Returns the column of the features, and that of the boxes."""
        return [self.column, *([self.box_column] if self.box_column else [])]

    def found(self, chunk: RowChunk) -> Iterator[Found]:
        """See `Regions`; images are told apart by their features."""
        boxes = chunk.columns[self.box_column] if self.box_column else [None] * len(chunk.index)
        for cell, box in zip(chunk.columns[self.column], boxes, strict=True):
            try:
                features = region_numbers(cell, self.width, WRONG_REGIONS)
                regions = ImageRegions(features, None if box is None else region_numbers(box, 4, WRONG_BOX))
                yield hashlib.sha256(features.tobytes()).hexdigest()[:16], regions
            except ValueError as error:
                yield str(error)


def region_numbers(cell: Any, width: int, kind: str) -> np.ndarray:
    """Returns the numbers of a cell as float32 [regions, width].

    Raises:
        ValueError: They are none, or of no whole regions; the message is the reason, with `kind` in front.
    """
    try:
        values = np.asarray(cell, np.float32).reshape(-1)
    except (TypeError, ValueError):
        raise ValueError(f"{kind}: the cell holds no numbers: {str(cell)[:40]!r}") from None
    if not values.size or values.size % width:
        raise ValueError(f"{kind}: {values.size} numbers are no whole regions of {width}")
    return values.reshape(-1, width)


class NpzRegions(Regions):
    """Regions in an `.npz` file an image, whose path is in the table; see `data.regions.regions_of_npz`."""

    def text_columns(self) -> dict[str, ListForm]:
        """Returns the column of the paths."""
        return {self.column: "none"}

    def found(self, chunk: RowChunk) -> Iterator[Found]:
        """See `Regions`; an image that several rows have is read once."""
        folder, known = os.path.dirname(chunk.file), _Last()
        for cell in chunk.columns[self.column]:
            yield known.get(cell, lambda cell: decode_cell(cell, folder, regions_of_npz))


class RecordRegions(Regions):
    """Regions in TSV or TFRecord files, found by the id of the image that is in the table.

    Args:
        column: Column of the ids.
        files: See `data.region_files.RegionFiles`; None where only requests are answered.
        count: Most regions of an image.
        width: Numbers of a region.
        options: As `Regions` has them.
    """

    def __init__(self, column: str, files: str | None, count: int, width: int, **options: Any) -> None:
        super().__init__(column, count, width, **options)
        self._spec, self._files = files, None

    def text_columns(self) -> dict[str, ListForm]:
        """Returns the column of the ids."""
        return {self.column: "none"}

    @property
    def files(self) -> RegionFiles:
        """The files, opened when they are first asked for."""
        if self._files is None:
            if self._spec is None:
                raise ConfigError(
                    "regions are looked up by the id of their image, and data.region_file is not given",
                    fix="name the .tsv or .tfrecord file of the regions: --set data.region_file=FILE",
                )
            self._files = RegionFiles(self._spec)
        return self._files

    def read_files(self) -> list[str]:
        """Returns the files."""
        return self.files.files

    def found(self, chunk: RowChunk) -> Iterator[Found]:
        """See `Regions`; an image that several rows have is read once."""
        known, files = _Last(), self.files
        for cell in chunk.columns[self.column]:
            yield known.get(cell, files.find)


class _Last:
    """What was found for the cell before: rows of an image usually stand together, and all would not fit in memory."""

    def __init__(self) -> None:
        self._cell: Any = None
        self._found: Found = ""

    def get(self, cell: str, find: Callable[[str], ImageRegions]) -> Found:
        """Returns the cell with what `find` makes of it, or the reason of its ValueError."""
        if cell != self._cell:
            self._cell = cell
            try:
                self._found = cell, find(cell)
            except ValueError as error:
                self._found = str(error)
        return self._found


# Parts of requests -----------------------------------------------------------------------------------------------


def box_specs(count: int) -> dict[str, tf.TensorSpec]:
    """Returns the raw tensors of boxes: x1, y1, x2, y2 in pixels, and height and width of the image."""
    return {"boxes": tf.TensorSpec([None, count, 4], tf.float32), "image_size": tf.TensorSpec([None, 2], tf.int32)}


def box_samples(rows: int, count: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns raw tensors of boxes that lie in their images."""
    sizes = random.integers(20, 60, [rows, 2]).astype(np.int32)
    begin = random.uniform(0, 0.5, [rows, count, 2])
    shares = np.concatenate([begin, begin + random.uniform(0.1, 0.5, [rows, count, 2])], axis=-1)
    return {"boxes": (shares * np.tile(sizes[:, None, ::-1], 2)).astype(np.float32), "image_size": sizes}


def real_regions(counts: tf.Tensor, most: int) -> tf.Tensor:
    """Returns int32 [batch, most], 1 for the first `counts` [batch] of each row."""
    fine = tf.reduce_all((counts >= 1) & (counts <= most))
    with tf.control_dependencies([tf.debugging.Assert(fine, [f"num_regions must lie between 1 and {most}"])]):
        return tf.sequence_mask(counts, most, tf.int32)


def boxes_of_request(boxes: tf.Tensor, size: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns boxes as shares of their images [batch, regions, 4], zeros where `mask` is 0.

    Those of real regions must lie in the image and have an area; see `data.regions.checked`.
    """
    sides = tf.cast(tf.reverse(size, [-1]), tf.float32)[:, None]
    shares = boxes / tf.concat([sides, sides], axis=-1)
    real = mask[..., None] == 1
    inside = tf.reduce_all((shares >= -0.01) & (shares <= 1.01), axis=-1)
    shares = tf.clip_by_value(shares, 0.0, 1.0)
    usable = inside & (shares[..., 2] > shares[..., 0]) & (shares[..., 3] > shares[..., 1])
    fine = tf.reduce_all(usable | (mask == 0)) & tf.reduce_all(size >= 1)
    told = "boxes must be x1 y1 x2 y2 in pixels within image_size (height, width), with x1 < x2 and y1 < y2"
    with tf.control_dependencies([tf.debugging.Assert(fine, [told])]):
        return tf.where(real, shares, 0.0)
