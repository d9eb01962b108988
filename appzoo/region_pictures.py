"""Regions of pictures as an image network sees them, in cells of a grid or in boxes; it is not trained.

FashionBERT (Gao et al. 2020, arXiv 2005.09801, section 3.1) cuts a picture into 8 x 8 patches and reads each with a
ResNet-50. Departs from the paper: the network reads the picture once, and a patch is the mean of its deepest feature
map there, so that what stands around a patch is in its features, too.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.vision_language_settings import VisionLanguageConfig
from easytransfer.app.inputs.base import Tensors
from easytransfer.app.inputs.images import sample_images
from easytransfer.app.inputs.regions import (
    CHUNK_BYTES,
    Found,
    Regions,
    box_samples,
    box_specs,
    boxes_of_request,
    real_regions,
    region_numbers,
)
from easytransfer.data.regions import WRONG_BOX, ImageRegions, checked
from easytransfer.data.table import RowChunk
from easytransfer.errors import ConfigError, ModelError
from easytransfer.image.augment import unit_scale
from easytransfer.image.decode import load_images
from easytransfer.image.graph import decode_batch
from easytransfer.image.resize import Resizer
from easytransfer.image.statistics import ChannelStatistics
from easytransfer.presets import resolve
from easytransfer.presets.folder import read_json
from easytransfer.presets.safetensors_file import read_safetensors, write_safetensors
from easytransfer.run.atomic import atomic_path, write_json
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.pretrained import input_form, network_shape, start_network

MOST_PIXELS = 50_000_000
# Pictures that the network reads at a time.
_BATCH = 16
# Samples across a box in each direction; a box has the mean of 16.
_SAMPLES = 4


class RegionNetwork(tf.Module):
    """An image network with fixed weights, and what it makes of cells or boxes of a picture.

    Args:
        network: The body of a network with feature maps.
        statistics: What it normalises pictures with.
        side: Height and width of pictures.
        grid: Cells in a row and in a column; None for boxes.

    Attributes:
        width: Numbers of a region.
        digest: Of weights and settings: regions of another digest are others.

    Raises:
        ConfigError: The feature map has no whole number of values in each cell.
    """

    FILES: ClassVar[tuple[str, ...]] = ("region_network.json", "region_network.safetensors")

    def __init__(self, network: CnnBackbone, statistics: ChannelStatistics, side: int, grid: int | None) -> None:
        super().__init__(name="region_network")
        network.trainable = False
        self.network, self.statistics, self.side, self.grid = network, statistics, side, grid
        strides = network.config.stage_strides()
        if not strides:
            raise ModelError(f"networks of the family {network.config.family} give no feature maps")
        self.stride = max(strides)
        cells = -(-side // self.stride)
        if grid is not None and (side % self.stride or cells % grid):
            raise ConfigError(
                "the feature map of model.region_network cannot be cut into equal cells",
                received=f"model.region_image_size={side}, model.region_grid={grid}",
                accepted=f"model.region_image_size a multiple of {self.stride * grid}",
            )
        self.width = int(
            network.feature_maps(tf.zeros([1, side, side, network.config.channels]))[self.stride].shape[-1]
        )
        self.source: Path | None = None

    @classmethod
    def of_job(cls, job: VisionLanguageConfig, folder: Path | None) -> RegionNetwork:
        """Returns the network that a job names, or the one stored in a run folder or the assets of an export.

        Raises:
            ModelError: It is not found or has no weights.
            ConfigError: Nothing says how pictures are normalised for it.
        """
        model, zoo = job.model, job.runtime.model_zoo_base_path
        grid = model.region_grid if model.region_source == "grid" else None
        if folder is not None:
            facts = read_json(folder / cls.FILES[0])
            network = CnnBackbone(CnnConfig.from_dict(facts["network"], source=str(folder / cls.FILES[0])))
            network.import_weights(read_safetensors(folder / cls.FILES[1]), str(folder))
            statistics = ChannelStatistics(tuple(facts["mean"]), tuple(facts["std"]))
            return cls(network, statistics, model.region_image_size, grid)
        name = str(model.region_network)
        shape, form = network_shape(name, zoo), input_form(name, zoo)
        if not form.get("channel_mean") or not form.get("channel_std"):
            raise ConfigError(
                "nothing says how pictures are normalised for model.region_network",
                received=name,
                accepted="a model whose zoo.json has channel_mean and channel_std in `input`",
            )
        network = start_network(name, shape, None, job.runtime.seed, weights="pretrained", zoo=zoo)
        statistics = ChannelStatistics(tuple(form["channel_mean"]), tuple(form["channel_std"]))
        found = cls(network, statistics, model.region_image_size, grid)
        found.source = resolve(name, zoo).folder
        return found

    @functools.cached_property
    def digest(self) -> str:
        """See the class."""
        digest = hashlib.sha256(json.dumps(self._facts(), sort_keys=True).encode())
        for name, value in sorted(self.network.export_weights().items()):
            digest.update(f"{name} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()

    def _facts(self) -> dict[str, Any]:
        mean, std = self.statistics.mean, self.statistics.std
        sizes = {"side": self.side, "grid": self.grid}
        return {"network": self.network.config.to_dict(), "mean": list(mean), "std": list(std), **sizes}

    def save(self, folder: Path) -> None:
        """Writes `FILES`."""
        write_json(folder / self.FILES[0], self._facts())
        write_safetensors(folder / self.FILES[1], self.network.export_weights())

    def cells(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the mean of the deepest feature map in each cell, row by row.

        Args:
            images: uint8 [batch, side, side, channels].

        Returns:
            float32 [batch, grid * grid, width].
        """
        found = self._map(images)
        size = found.shape[1] // self.grid
        parts = tf.reshape(found, [-1, self.grid, size, self.grid, size, self.width])
        return tf.reshape(tf.reduce_mean(parts, axis=[2, 4]), [-1, self.grid * self.grid, self.width])

    def in_boxes(self, images: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Returns the mean of the deepest feature map in each box, of 4 x 4 places between which it is interpolated.

        He et al. 2017, "Mask R-CNN", arXiv 1703.06870, section 3, RoIAlign with bins of one sample, and their mean.

        Args:
            images: uint8 [batch, side, side, channels].
            boxes: x1, y1, x2, y2 as shares of the picture, [batch, regions, 4]; a box of zeros has no meaning.

        Returns:
            float32 [batch, regions, width].
        """
        # With its border repeated once around, each place of the picture lies between centres of the map.
        found = tf.pad(self._map(images), [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
        height, width = float(found.shape[1] - 2), float(found.shape[2] - 2)
        x1, y1, x2, y2 = tf.unstack(tf.reshape(boxes, [-1, 4]), axis=-1)
        inner_x, inner_y = (x2 - x1) / (2 * _SAMPLES), (y2 - y1) / (2 * _SAMPLES)
        rows = [(y * height + 0.5) / (height + 1) for y in (y1 + inner_y, y2 - inner_y)]
        columns = [(x * width + 0.5) / (width + 1) for x in (x1 + inner_x, x2 - inner_x)]
        count = tf.shape(boxes)[1]
        of_image = tf.repeat(tf.range(tf.shape(boxes)[0]), count)
        corners = tf.stack([rows[0], columns[0], rows[1], columns[1]], axis=-1)
        sampled = tf.image.crop_and_resize(found, corners, of_image, [_SAMPLES, _SAMPLES])
        return tf.reshape(tf.reduce_mean(sampled, axis=[1, 2]), [-1, count, self.width])

    def _map(self, images: tf.Tensor) -> tf.Tensor:
        mean, std = (np.float32(values) for values in (self.statistics.mean, self.statistics.std))
        maps = self.network.feature_maps((unit_scale(images) - mean) / std)
        return tf.cast(maps[self.stride], tf.float32)


class PictureRegions(Regions):
    """Regions of pictures that a network computes: cells of a grid, or the boxes of a column.

    What was computed of a picture is kept in a folder where one is named, and looked up by its pixels: pictures with
    the same ones are computed once, whatever they are called.

    Args:
        column: Table column of the pictures, see `ImageInput`.
        network: Computes the regions.
        count: Most regions of a picture.
        box_column: Column of the boxes, 4 numbers for each region, as shares of the picture; None for cells.
        cache: Folder for what was computed; None keeps nothing.
        options: As `Regions` has them.
    """

    def __init__(
        self,
        column: str,
        network: RegionNetwork,
        count: int,
        *,
        box_column: str | None = None,
        cache: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(column, count, network.width, has_boxes=True, **options)
        self.network, self.box_column = network, None if network.grid else box_column
        self.channels = network.network.config.channels
        self._cache = None if cache is None else Path(cache)
        self.chunk_rows = max(1, CHUNK_BYTES // (network.side**2 * self.channels + 4 * count * (network.width + 4)))
        self.doc = "files of JPEG, PNG, WebP or BMP images" + (" and boxes in pixels" if self.box_column else "")
        self._compute = tf.function(self._features, reduce_retracing=True)

    @property
    def asset_files(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the files of the network."""
        return RegionNetwork.FILES

    def save_assets(self, folder: Path) -> None:
        """Writes the network."""
        self.network.save(folder)

    def read_files(self) -> list[str]:
        """Returns the folder of the network."""
        return [] if self.network.source is None else [str(self.network.source)]

    def table_columns(self) -> list[str]:
        """Returns the column of the pictures, and that of the boxes."""
        return [self.column, *([self.box_column] if self.box_column else [])]

    # A table ---------------------------------------------------------------------------------------------------

    def found(self, chunk: RowChunk) -> Iterator[Found]:
        """See `Regions`; pictures are told apart by their pixels."""
        pictures: list[np.ndarray | str] = load_images(
            chunk.columns[self.column],
            os.path.dirname(chunk.file),
            channels=self.channels,
            max_pixels=MOST_PIXELS,
            change=Resizer((self.network.side, self.network.side), "stretch", 0),
        )
        boxes = chunk.columns[self.box_column] if self.box_column else [None] * len(pictures)
        read = [self._with_boxes(*row) for row in zip(pictures, boxes, strict=True)]
        known = self._computed({key: row for key, *row in (each for each in read if not isinstance(each, str))})
        for each in read:
            if isinstance(each, str):
                yield each
            else:
                key, picture, shares = each
                name = hashlib.sha256(picture.data).hexdigest()[:16]
                yield name, ImageRegions(known[key][: len(shares)], shares)

    def _with_boxes(self, picture: np.ndarray | str, cell: Any) -> str | tuple[str, np.ndarray, np.ndarray]:
        """Returns key, pixels and boxes of a row, or why it cannot be used."""
        if isinstance(picture, str):
            return picture
        if self.box_column is None:
            shares = cells_of(self.network.grid)
        else:
            try:
                shares = region_numbers(cell, 4, WRONG_BOX)
                shares = checked(ImageRegions(np.zeros([len(shares), 1]), shares), 1, self.count).boxes
            except ValueError as error:
                return str(error)
        digest = hashlib.sha256(f"{self.network.digest} {self.count} {shares.tolist()}".encode())
        digest.update(np.ascontiguousarray(picture).data)
        return digest.hexdigest(), np.ascontiguousarray(picture), shares

    def _computed(self, rows: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
        """Returns features [count, width] by key, those that are kept nowhere computed."""
        found = {key: features for key in rows if (features := self._kept(key)) is not None}
        wanted = [key for key in rows if key not in found]
        for first in range(0, len(wanted), _BATCH):
            keys = wanted[first : first + _BATCH]
            images = np.stack([rows[key][0] for key in keys])
            boxes = np.zeros([len(keys), self.count, 4], np.float32)
            for place, key in enumerate(keys):
                boxes[place, : len(rows[key][1])] = rows[key][1]
            for key, features in zip(keys, self._compute(images, boxes).numpy(), strict=True):
                found[key] = features
                self._keep(key, features)
        return found

    def _features(self, images: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        rows = tf.shape(images)[0]
        # Convolutions refuse a batch without rows: it gets one, which is left out again.
        one = tf.maximum(1 - rows, 0)
        images, boxes = (tf.pad(x, [[0, one], *[[0, 0]] * (x.shape.rank - 1)]) for x in (images, boxes))
        found = self.network.cells(images) if self.network.grid else self.network.in_boxes(images, boxes)
        return found[:rows]

    def _path(self, key: str) -> Path:
        return self._cache / key[:2] / f"{key}.npy"

    def _kept(self, key: str) -> np.ndarray | None:
        if self._cache is None or not self._path(key).is_file():
            return None
        try:
            found = np.load(self._path(key), allow_pickle=False)
        # A damaged file is computed anew.
        except (OSError, ValueError, EOFError):
            return None
        return found if found.shape == (self.count, self.width) and found.dtype == np.float32 else None

    def _keep(self, key: str, features: np.ndarray) -> None:
        if self._cache is None:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as partial, open(partial, "wb") as file:
                np.save(file, features)
        except OSError as error:
            raise ConfigError(
                f"data.region_cache cannot be written: {error.strerror}", received=str(self._cache),
                fix="name a folder that can be written",
            ) from None  # fmt: skip

    # A request -------------------------------------------------------------------------------------------------

    def serving_module(self, folder: Path) -> tf.Module:
        """Returns the network."""
        return self.network

    def serving_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns `image_bytes`; with boxes also `boxes`, `image_size` and `num_regions` as `Regions` has them."""
        found = {"image_bytes": tf.TensorSpec([None], tf.string)}
        if self.box_column:
            found |= box_specs(self.count) | {"num_regions": tf.TensorSpec([None], tf.int32)}
        return {f"{self.raw_prefix}{name}": spec for name, spec in found.items()}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns encoded pictures of all forms, with boxes where they are read."""
        pictures = sample_images(self.network.side)
        found: dict[str, np.ndarray] = {"image_bytes": np.array(pictures, object)}
        if self.box_column:
            random = np.random.default_rng(len(self.suffix))
            found |= box_samples(len(pictures), self.count, random)
            found["num_regions"] = np.linspace(1, self.count, len(pictures)).round().astype(np.int32)
        return {f"{self.raw_prefix}{name}": value for name, value in found.items()}

    def from_request(self, tensors: Tensors) -> Tensors:
        """Decodes the pictures and computes their regions as `encode` does."""
        raw = {name.removeprefix(self.raw_prefix): value for name, value in tensors.items()}
        side = (self.network.side, self.network.side)
        images = decode_batch(raw["image_bytes"], side, self.channels, "stretch", MOST_PIXELS)
        rows = tf.shape(images)[0]
        if self.box_column:
            mask = real_regions(raw["num_regions"], self.count)
            boxes = boxes_of_request(raw["boxes"], raw["image_size"], mask)
            further = {f"image_size{self.suffix}": raw["image_size"]}
        else:
            mask = tf.ones([rows, self.count], tf.int32)
            boxes, further = tf.tile(cells_of(self.network.grid)[None], [rows, 1, 1]), {}
        features = tf.where(mask[..., None] == 1, self._features(images, boxes), 0.0)
        return self.served(features, boxes, mask) | further


def cells_of(grid: int) -> np.ndarray:
    """Returns the boxes of the cells of a grid, row by row: x1, y1, x2, y2 as shares, float32 [grid * grid, 4]."""
    row, column = np.divmod(np.arange(grid * grid), grid)
    return (np.stack([column, row, column + 1, row + 1], axis=-1) / grid).astype(np.float32)
