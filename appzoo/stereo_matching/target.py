"""What the answer of stereo matching is: maps of disparities and hidden pixels, measured, written, drawn and served."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from appzoo.stereo_matching.colour import coloured
from appzoo.stereo_matching.config import StereoMatchingConfig
from appzoo.stereo_matching.inputs import filled_up
from appzoo.stereo_matching.metrics import StereoEvaluator
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.image.contact_sheet import write_contact_sheet
from easytransfer.image.files import data_text
from easytransfer.image.maps import encode_png, from_fixed_point, load_maps, to_fixed_point
from easytransfer.image.size import height_width
from easytransfer.train.step import Losses, Step
from easytransfer.train.task import Batch, Outputs

# Of KITTI, in PNG files of 16 bits.
PNG_SCALE = 256.0
# Depths of disparities below that would be of no use.
LEAST_DISPARITY = 1 / PNG_SCALE
PICTURE, MOST_SHOWN = "disparities.png", 12
WRONG_SIZE, NO_TRUTH = "map of another size than its pair", "map without a disparity"
NEGATIVE, NO_SCALE = "negative disparity", "map of 8 bits a value"


class StereoTarget(Target):
    """Disparities of left images; true ones, where there are any, are only measured with.

    Args:
        config: Of the job.
    """

    def __init__(self, config: StereoMatchingConfig) -> None:
        self.config = config
        data = config.data
        self._size = height_width(config.model.image_size)
        columns = {"truth": data.label_name, "truth_visible": data.visible_name, "truth_object": data.object_name}
        self._columns = {name: column for name, column in columns.items() if column is not None}

    @property
    def encoded_columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """The true maps, which the network does not read."""
        return tuple(self._columns)

    def table_columns(self) -> list[str]:
        """Returns the columns of the true maps that there are."""
        return list(self._columns.values())

    # Rows --------------------------------------------------------------------------------------------------

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Reads true maps: `truth` in pixels, 0 where unknown, `truth_visible` and `truth_object` as 0 and 1."""
        sizes, found = inputs[0].columns["size"], {}
        for name, column in self._columns.items():
            cells, is_truth = chunk.columns[column], name == "truth"
            maps = np.zeros((len(cells), *self._size), np.float32 if is_truth else np.uint8)
            for row, values in self._maps(chunk, column, name):
                if isinstance(values, str):
                    chunk.reject(row, column, values)
                elif values.shape != tuple(sizes[row]) and chunk.accepted[row]:
                    chunk.reject(row, column, f"{WRONG_SIZE}: {list(values.shape)} and {sizes[row].tolist()}")
                elif chunk.accepted[row]:
                    filled_up(maps[row], values if is_truth else values > 0)
            found[name] = maps
        return Encoded(found)

    def _maps(self, chunk: RowChunk, column: str, name: str) -> list[tuple[int, np.ndarray | str]]:
        """Returns the maps of a column, or why there is none, with their rows; of empty cells only the latter."""
        cells = chunk.columns[column]
        given = [row for row, cell in enumerate(cells) if _is_given(cell)]
        change = self._objects if name == "truth_object" else self._disparities
        options = {"max_pixels": self.config.model.max_pixels, "change": change}
        loaded = load_maps([cells[row] for row in given], os.path.dirname(chunk.file), **options)
        found: list[tuple[int, np.ndarray | str]] = list(zip(given, loaded, strict=True))
        if name != "truth":
            truth = chunk.columns[self._columns["truth"]]
            reason = f"{NO_TRUTH}: a row has both maps or none"
            found += [(row, reason) for row, cell in enumerate(cells) if _is_given(cell) != _is_given(truth[row])]
        return found

    def _disparities(self, stored: np.ndarray) -> np.ndarray:
        scale = self.config.data.disparity_scale
        if stored.dtype == np.uint8 and scale is None:
            raise ValueError(f"{NO_SCALE}: say with disparity_scale what a disparity of 1 is, or write 16 bits or PFM")
        if stored.dtype != np.float32:
            return from_fixed_point(stored, scale or PNG_SCALE)
        found = np.where(np.isfinite(stored), stored, 0)
        if found.min() < 0:
            raise ValueError(f"{NEGATIVE}: {found.min():g}; left x minus right x is 0 or more")
        return found

    @staticmethod
    def _objects(stored: np.ndarray) -> np.ndarray:
        if stored.dtype == np.float32:
            raise ValueError("map of objects: its values are float32, a PNG file is read")
        return stored

    # Measuring ---------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Is not asked: those of the application need the teacher."""
        raise NotImplementedError

    def evaluator(self) -> StereoEvaluator:
        """Returns the metrics that the true maps allow."""
        has = [name in self._columns for name in ("truth", "truth_visible", "truth_object")]
        return StereoEvaluator(*has, per_image=self.config.model.d1_per_image)

    # Results -----------------------------------------------------------------------------------------------

    @property
    def _has_depth(self) -> bool:
        return self.config.model.focal_px is not None

    def output_columns(self) -> tuple[str, ...]:
        """Returns names and pictures first, then numbers."""
        pictures = ("disparity_png", "colour_png", "occlusion_png", *(("depth_png",) if self._has_depth else ()))
        return ("name", *pictures, "mean_disparity", "occluded_share", "photometric")

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns, as `data:` texts, maps of 16 bits as KITTI has them and pictures, each of the size of its pair."""
        found: dict[str, list[Any]] = {name: [] for name in self.output_columns()}
        sizes = encoded.columns["size"]
        for row, (height, width) in enumerate(sizes):
            part = np.s_[self._size[0] - height :, :width]
            disparity, hidden = outputs["disparity"][row][part], outputs["occlusion"][row][part]
            found["disparity_png"].append(data_text(encode_png(fixed_point(disparity))))
            found["colour_png"].append(data_text(_picture(coloured(disparity, self._largest).numpy())))
            found["occlusion_png"].append(data_text(encode_png(hidden * np.uint8(255))))
            if self._has_depth:
                depth = depth_of(disparity, self.config.model.focal_px, self.config.model.baseline_m)
                found["depth_png"].append(data_text(encode_png(fixed_point(depth))))
            found["mean_disparity"].append(float(disparity.mean(dtype=np.float64)))
            found["occluded_share"].append(float(hidden.mean(dtype=np.float64)))
            found["photometric"].append(float(outputs["photometric"][row]))
        return {**found, "name": [encoded.columns["name"][row] for row in range(len(sizes))]}

    @property
    def _largest(self) -> float:
        """The disparity that pictures show as the nearest."""
        return float(self.config.model.max_disparity)

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns PNG files: disparities of 16 bits as KITTI has them, a colour picture, and the hidden pixels."""
        spec = {f"{name}_bytes": tf.TensorSpec([], tf.string) for name in ("disparity", "colour", "occlusion")}

        def one(row: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
            disparity, hidden, size = row
            part = [x[self._size[0] - size[0] :, : size[1]] for x in (disparity, hidden)]
            whole = tf.maximum(tf.floor(part[0] * PNG_SCALE), 1.0)
            files = (tf.cast(tf.minimum(whole, 65535.0), tf.uint16)[..., None], coloured(part[0], self._largest))
            encoded = [tf.io.encode_png(x) for x in (*files, part[1][..., None] * tf.constant(255, tf.uint8))]
            return dict(zip(spec, encoded, strict=True))

        rows = (outputs["disparity"], outputs["occlusion"], outputs["request_size"])
        with tf.device("/device:CPU:0"):
            return tf.map_fn(one, rows, fn_output_signature=spec)

    def report(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Draws the worst pairs: left image, disparities, hidden pixels and, below them, the true disparities."""
        error = self._errors(encoded, outputs)
        chosen = np.argsort(-error, kind="stable")[:MOST_SHOWN]
        tiles = [self._tile(encoded.columns, outputs, int(row)) for row in chosen]
        names = [encoded.columns["name"][row] for row in chosen]
        unit = "px" if "truth" in self._columns else "photometric"
        captions = [(name, f"error {error[row]:.3f} {unit}") for name, row in zip(names, chosen, strict=True)]
        write_contact_sheet(folder / PICTURE, np.stack(tiles), captions, columns=4)
        return [PICTURE]

    def _errors(self, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> np.ndarray:
        if "truth" not in self._columns:
            return outputs["photometric"]
        found = []
        for true, disparity in zip(encoded.columns["truth"], outputs["disparity"], strict=True):
            known = true > 0
            found.append(float(np.abs(disparity - true)[known].mean()) if known.any() else 0.0)
        return np.array(found)

    def _tile(self, columns: dict[str, Any], outputs: dict[str, np.ndarray], row: int) -> np.ndarray:
        hidden = np.repeat(outputs["occlusion"][row][..., None] * np.uint8(255), 3, axis=-1)
        maps = [outputs["disparity"][row], *([columns["truth"][row]] if "truth" in self._columns else [])]
        first, *true = (coloured(each, self._largest).numpy() for each in maps)
        return np.concatenate([columns["left"][row], first, hidden, *true])


def _is_given(cell: Any) -> bool:
    return not (cell is None or (isinstance(cell, (str, bytes)) and not cell))


def fixed_point(values: np.ndarray) -> np.ndarray:
    """Returns values as KITTI's PNG files of 16 bits hold them: 1 is 256, and at least 1 since 0 is unknown."""
    known = np.clip(values, LEAST_DISPARITY, np.iinfo(np.uint16).max / PNG_SCALE)
    return to_fixed_point(known, PNG_SCALE)


def depth_of(disparity: Any, focal_px: Any, baseline_m: Any) -> Any:
    """Returns the distance in metres along the optical axis: focal length times baseline, divided by the disparity.

    Args:
        disparity: In pixels; below 1/256 it counts as that.
        focal_px: Focal length in pixels.
        baseline_m: Distance of the cameras in metres.
    """
    larger = tf.maximum if tf.is_tensor(disparity) else np.maximum
    return focal_px * baseline_m / larger(disparity, LEAST_DISPARITY)


def _picture(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
