"""The lanes of a row: masks and existence to learn, points to measure by, answers and output columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.lane_detection.cells import BAD_LANE, BAD_RECORD, Labels, read_cell
from appzoo.lane_detection.config import LaneSettings
from appzoo.lane_detection.decoding import without_gaps
from appzoo.lane_detection.inputs import EncodedCamera
from appzoo.lane_detection.lanes import ABSENT, Lane, assigned, centre_line, sampled, slot_mask
from appzoo.lane_detection.losses import IGNORED
from appzoo.lane_detection.metrics import LaneEvaluator, lane_evaluator
from appzoo.lane_detection.pictures import WORST_FILE, draw_worst
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.image.files import load_each
from easytransfer.image.size import height_width
from easytransfer.run.log import say
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

# Rows of the original image from one point to the next of a lane that is only given by a mask.
_MASK_STEP = 10


class LaneTarget(Target):
    """Lanes from the label column, see `cells`.

    Arrays: `mask` uint8 [batch, height, width], slots from 1 at the size of the network; `exist` float32
    [batch, slots]; `category` int32 [batch], -1 where there is none; `true_lanes` float32
    [batch, lanes, points, 2], x and y in pixels of the original image. By the rules of TuSimple the points are the rows
    of `settings.rows`, with x = `ABSENT` where the lane is not seen; by those of CULane they are those of the table.
    What is left over is NaN: lanes that there are not, points, rows that a record does not ask for.

    Args:
        column: Table column.
        settings: Sizes and rules.
    """

    encoded_columns: ClassVar[tuple[str, ...]] = ("mask", "exist", "category", "true_lanes")

    def __init__(self, column: str, settings: LaneSettings) -> None:
        self.column, self.settings = column, settings
        # Lanes that masks do not show, since they lie beyond the outermost slots.
        self.beyond = 0
        self.size, self.original = height_width(settings.image_size), height_width(settings.original_size)

    @property
    def points(self) -> int:
        """Points that are kept of a true lane."""
        culane = self.settings.benchmark == "culane"
        return self.settings.max_points if culane else self.settings.row_count

    # Tables ----------------------------------------------------------------------------------------------------

    def table_columns(self) -> list[str]:
        """Returns the label column."""
        return [self.column]

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Reads cells and the files they name; what cannot be used is a bad row with its reason."""
        (camera,) = inputs
        assert isinstance(camera, EncodedCamera)
        cells, folder = chunk.columns[self.column], os.path.dirname(chunk.file)
        rows = [row for row in range(len(cells)) if chunk.accepted[row]]
        found = load_each(rows, lambda row: self.arrays(str(cells[row]), folder, camera.sizes[row]))
        columns = self._blank(len(cells))
        for row, arrays in zip(rows, found, strict=True):
            if isinstance(arrays, str):
                chunk.reject(row, self.column, arrays)
                continue
            for name, values in arrays.items():
                columns[name][row] = values
        return Encoded(columns)

    def _blank(self, rows: int) -> dict[str, np.ndarray]:
        return {
            "mask": np.zeros([rows, *self.size], np.uint8),
            "exist": np.zeros([rows, self.settings.slots], np.float32),
            "category": np.full([rows], -1, np.int32),
            "true_lanes": np.full([rows, self.settings.max_lanes, self.points, 2], np.nan, np.float32),
        }

    def arrays(self, cell: str, folder: str, size: tuple[int, int]) -> dict[str, Any]:
        """Returns the arrays of one row.

        Args:
            cell: Its cell.
            folder: What paths in it are relative to.
            size: Height and width of its picture as it came, in whose pixels lanes are given.

        Raises:
            ValueError: The cell cannot be used; the message is the reason shown to the user.
        """
        labels = read_cell(cell, folder, self.settings.max_pixels)
        self._to_original(labels, size)
        if labels.given:
            # Before anything is drawn: lanes of too many points are refused here.
            true = self._truth(labels, labels.lanes)
            mask = self._drawn(labels) if labels.mask is None else self._of_mask(labels.mask)[0]
        else:
            mask, lanes = self._of_mask(labels.mask)
            true = self._truth(labels, lanes)
        exist = self._exist(labels, mask)
        return {
            "mask": self._small(mask),
            "exist": exist,
            "category": self._category(labels.category),
            "true_lanes": true,
        }

    def _exist(self, labels: Labels, mask: np.ndarray) -> np.ndarray:
        slots = self.settings.slots
        if labels.exist is None:
            return np.isin(np.arange(1, slots + 1), mask).astype(np.float32)
        if len(labels.exist) != slots:
            raise ValueError(f"{BAD_RECORD}: exist has {len(labels.exist)} flags, model.slots is {slots}")
        return labels.exist

    def _to_original(self, labels: Labels, size: tuple[int, int]) -> None:
        """Brings lanes of a picture of another size to that of the camera."""
        if size == self.original:
            return
        if labels.h_samples is not None:
            raise ValueError(
                f"{BAD_RECORD}: h_samples of an image of {list(size)}, model.original_size is {list(self.original)}"
            )
        scale = np.array([self.original[1] / size[1], self.original[0] / size[0]])
        # Numbers of pixels are half a pixel less than their centres.
        labels.lanes = [(lane + 0.5) * scale - 0.5 for lane in labels.lanes]

    def _drawn(self, labels: Labels) -> np.ndarray:
        lanes, drawable = labels.lanes, labels.drawable
        if labels.slots is None:
            # One point has no angle.
            drawable = [shown for lane, shown in zip(lanes, drawable, strict=True) if len(lane) > 1]
            lanes = [lane for lane in lanes if len(lane) > 1]
        elif max(labels.slots, default=0) > self.settings.slots:
            raise ValueError(f"{BAD_RECORD}: slot {max(labels.slots)}, model.slots is {self.settings.slots}")
        slots = labels.slots or self._slots(lanes)
        shown = [slot if draw else 0 for slot, draw in zip(slots, drawable, strict=True)]
        return slot_mask(lanes, shown, self.settings.line_width, self.original)

    def _slots(self, lanes: list[Lane]) -> list[int]:
        slots = assigned(lanes, self.settings.slots) if lanes else []
        self.beyond += slots.count(0)
        return slots

    def on_train_table(self, train: EncodedTable) -> None:
        """Says how many lanes of the tables have no slot."""
        if self.beyond:
            say(f"{self.beyond:,} lanes lie beyond the {self.settings.slots} slots and are background in masks")

    def _of_mask(self, mask: np.ndarray) -> tuple[np.ndarray, list[Lane]]:
        """Returns the mask with slots as values, uint8 of any size, and the lanes seen in it."""
        values = [int(value) for value in np.unique(mask) if value]
        step = max(_MASK_STEP * mask.shape[0] // self.original[0], 1)
        scale = (self.original[0] / mask.shape[0], self.original[1] / mask.shape[1])
        if self.settings.mask_values == "slots":
            wrong = [value for value in values if value > self.settings.slots and value != IGNORED]
            if wrong:
                raise ValueError(
                    f"unknown slot: {wrong[0]} in the mask; known: 1 to {self.settings.slots} and {IGNORED}; "
                    "where numbers only tell lanes apart, set model.mask_values=instances"
                )
            lanes = {value: centre_line(mask == value, step, scale) for value in values if value != IGNORED}
            return mask.astype(np.uint8), list(lanes.values())
        if len(values) > self.settings.max_lanes:
            raise ValueError(f"{BAD_LANE}: {len(values)} lanes, model.max_lanes is {self.settings.max_lanes}")
        lanes = {value: centre_line(mask == value, step, scale) for value in values}
        lanes = {value: lane for value, lane in lanes.items() if len(lane) > 1}
        slots = dict(zip(lanes, self._slots(list(lanes.values())), strict=True))
        found = np.zeros(mask.shape, np.uint8)
        for value, slot in slots.items():
            found[mask == value] = slot
        return found, list(lanes.values())

    def _small(self, mask: np.ndarray) -> np.ndarray:
        """Returns a mask at the size of the network: the value that the centre of each pixel falls into."""
        cut, kept = self.settings.cut_height, self.settings.kept_height
        rows, columns = mask.shape
        y = (cut + (np.arange(self.size[0]) + 0.5) * kept / self.size[0]) * rows / self.original[0]
        x = (np.arange(self.size[1]) + 0.5) * columns / self.size[1]
        return mask[np.ix_(y.astype(np.int64), x.astype(np.int64))]

    def _category(self, name: str) -> int:
        if not name:
            return -1
        if name not in self.settings.categories:
            known = ", ".join(self.settings.categories) or "none"
            raise ValueError(f"{BAD_RECORD}: unknown category {name!r}; model.categories: {known}")
        return self.settings.categories.index(name)

    def _truth(self, labels: Labels, lanes: list[Lane]) -> np.ndarray:
        found = np.full([self.settings.max_lanes, self.points, 2], np.nan, np.float32)
        count = len(labels.sampled) if labels.sampled is not None else len(lanes)
        if count > self.settings.max_lanes:
            raise ValueError(f"{BAD_LANE}: {count} lanes, model.max_lanes is {self.settings.max_lanes}")
        longest, most = max(map(len, lanes), default=0), self.settings.max_points
        if longest > most:
            raise ValueError(f"{BAD_LANE}: it has {longest} points, model.max_points is {most}")
        if self.settings.benchmark == "culane":
            for number, lane in enumerate(lanes):
                found[number, : len(lane)] = lane
            return found
        rows = self.settings.rows
        if labels.sampled is not None:
            return self._sampled_truth(labels.sampled, labels.h_samples, found)
        for number, lane in enumerate(lanes):
            found[number, :, 0], found[number, :, 1] = sampled(lane, rows), rows
        return found

    def _sampled_truth(self, x: np.ndarray, h_samples: np.ndarray | None, found: np.ndarray) -> np.ndarray:
        """Puts lanes with one x for each of `h_samples` into the rows that are read off."""
        rows = {row: place for place, row in enumerate(self.settings.rows)}
        unknown = [int(row) for row in h_samples if row not in rows]
        if unknown:
            raise ValueError(
                f"{BAD_RECORD}: row {unknown[0]} of h_samples is none of those that are read off, {min(rows)} to "
                f"{max(rows)} in steps of {self.settings.row_step}"
            )
        places = [rows[row] for row in h_samples]
        for number, lane in enumerate(x):
            found[number, places, 0] = np.where(lane >= 0, lane, ABSENT)
            found[number, places, 1] = h_samples
        return found

    # Training and answers --------------------------------------------------------------------------------------

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the loss of the maps and that of existence, each with its own divisor.

        Args:
            batch: Rows with their weights.
            outputs: With `seg_sum`, `seg_weight` and `exist_sum` of each row, see `losses.row_losses`.
            step: Not looked at.
        """
        rows = batch["example_weight"]
        maps = self.settings.seg_loss_weight * tf.reduce_sum(rows * outputs["seg_sum"])
        exist = self.settings.exist_loss_weight * tf.reduce_sum(rows * outputs["exist_sum"])
        return {
            "maps": Loss(maps, tf.reduce_sum(rows * outputs["seg_weight"])),
            "existence": Loss(exist, tf.reduce_sum(rows)),
        }

    def evaluator(self) -> LaneEvaluator:
        """Returns the metrics of the benchmark."""
        return lane_evaluator(self.settings)

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns what a server answers.

        `lane_x` float32 [batch, slots, rows], x in pixels of `image_size`, -2 where there is no lane; `rows` int32
        [batch, rows], their y; `row_score` [batch, slots, rows]; `exist` [batch, slots]; `image_size` int32 [batch, 2],
        height and width of the camera's images.
        """
        count = tf.shape(outputs["exist"])[0]
        fixed = {"rows": self.settings.rows, "image_size": list(self.original)}
        tiled = {name: tf.tile(tf.constant([values], tf.int32), [count, 1]) for name, values in fixed.items()}
        return {**{name: outputs[name] for name in ("lane_x", "row_score", "exist")}, **tiled}

    def output_columns(self) -> tuple[str, ...]:
        """Returns the output columns in their default order."""
        return ("lane_x", "rows", "exist", "lane_score")

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns the output columns.

        `lane_x`: whole x of each slot in each row, -2 where there is no lane, gaps filled by the rule of TuSimple;
        `rows`: y of the rows; `exist`: probability of each slot; `lane_score`: mean probability of the rows of each
        lane, 0 where there is none.
        """
        x, score = outputs["lane_x"], outputs["row_score"]
        seen = x >= 0
        count = np.maximum(seen.sum(axis=-1), 1)
        lane_score = (np.where(seen, score, 0).sum(axis=-1) / count).astype(np.float32)
        filled = without_gaps(x) if self.settings.benchmark == "tusimple" else x
        rows = np.array(self.settings.rows, np.int32)
        return {
            "lane_x": list(filled.astype(np.int32)),
            "rows": [rows] * len(x),
            "exist": list(outputs["exist"]),
            "lane_score": list(lane_score),
        }

    def report(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Draws the worst frames: their lanes, true and predicted."""
        draw_worst(folder / WORST_FILE, encoded, outputs, self.settings)
        return [WORST_FILE]
