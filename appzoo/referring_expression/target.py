"""Which region an expression means: the one that lies on the box the annotator has drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow as tf

from appzoo.referring_expression.metrics import ENOUGH, ReferringEvaluator, area_overlaps, overlaps
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.data.encoded import EncodedTable, HostColumn
from easytransfer.data.table import RowChunk
from easytransfer.metrics.scores import softmax
from easytransfer.run.log import warn
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

BoxForm = Literal["xywh", "shares"]
WRONG_BOX = "wrong box"
NO_SIZE = "unknown image size"
# Added to the logits of what is no region.
_NEVER = -1e9
# Pixels are rounded to so many digits: boxes come as shares of the image in float32.
_DIGITS = 3


class RegionTarget(Target):
    """The region that overlaps the right box most: `target_region` int32 [batch], -1 where none does by one half.

    Outputs are `region_logits` float32 [batch, regions] and `box` float32 [batch, 4], shares of the image. On the host
    are `region_overlaps`, the intersections over union of all regions of a row.

    Args:
        column: Table column with the box.
        form: `xywh`: x, y, width and height in pixels, as the data sets have them; `shares`: x1, y1, x2, y2 divided by
            the size of the image.
    """

    encoded_columns: ClassVar[tuple[str, ...]] = ("target_region", "region_overlaps")

    def __init__(self, column: str, form: BoxForm) -> None:
        self.column, self.form = column, form

    def table_columns(self) -> list[str]:
        """Returns the column of the boxes."""
        return [self.column]

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns the regions; what is no box of the image is a bad row."""
        found = {name: column for each in inputs for name, column in each.columns.items()}
        targets, every = np.full(len(chunk.index), -1, np.int32), []
        for row, cell in enumerate(chunk.columns[self.column]):
            # A row that an input has rejected has no regions.
            count = int(found["region_mask"][row].sum()) if chunk.accepted[row] else 0
            every.append([0.0])
            if not count:
                continue
            try:
                shares = found["boxes"][row][:count].astype(np.float64)
                each = self._overlaps(shares, cell, found["image_size"][row])
            except ValueError as error:
                chunk.reject(row, self.column, str(error))
                continue
            every[row] = each.tolist()
            if each.max() > ENOUGH:
                targets[row] = each.argmax()
        return Encoded({"target_region": targets, "region_overlaps": HostColumn.of(every)})

    def _overlaps(self, shares: np.ndarray, cell: Any, size: Sequence[int] | None) -> np.ndarray:
        """Returns the intersection over union of each region with the box of a cell.

        Args:
            shares: Boxes of the regions, [regions, 4].
            cell: The right box.
            size: Height and width of the image.

        Raises:
            ValueError: The cell is no box, or it is in pixels and the size is not known.
        """
        try:
            box = np.asarray(cell, np.float64).reshape(4)
        except (TypeError, ValueError):
            raise ValueError(f"{WRONG_BOX}: {str(cell)[:40]} are not 4 numbers") from None
        if self.form == "shares":
            if not (np.isfinite(box).all() and 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
                raise ValueError(f"{WRONG_BOX}: {_shown(box)} is not x1 y1 x2 y2 from 0 to 1 with x1 < x2, y1 < y2")
            return area_overlaps(shares, box)
        if size is None:
            raise ValueError(f"{NO_SIZE}: the box is in pixels; model.target_box_form=shares takes shares")
        if not (np.isfinite(box).all() and box[2] >= 1 and box[3] >= 1):
            raise ValueError(f"{WRONG_BOX}: {_shown(box)} is not x y width height in pixels")
        height, width = size
        pixels = np.round(shares * [width, height, width, height], _DIGITS)
        return overlaps(np.concatenate([pixels[:, :2], pixels[:, 2:] - pixels[:, :2]], axis=1), box)

    def on_train_table(self, train: EncodedTable) -> None:
        """Tells how many rows have no region to learn."""
        without = int((train.columns["target_region"] < 0).sum())
        if without:
            warn(
                f"{without:,} of {len(train):,} expressions of the training table have no region that overlaps the "
                f"right box by more than {ENOUGH:g}: nothing is learnt of them"
            )

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the cross entropy over the regions of a row, by rows that have a target."""
        target = batch["target_region"]
        weight = batch["example_weight"] * tf.cast(target >= 0, tf.float32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(target, 0), outputs["region_logits"])
        return {"loss": Loss(tf.reduce_sum(losses * weight), tf.reduce_sum(weight))}

    def evaluator(self) -> ReferringEvaluator:
        """Returns the share of expressions whose region is found."""
        return ReferringEvaluator()

    def output_columns(self) -> tuple[str, ...]:
        """Returns number, box and score of the region, and the scores of all."""
        return ("region", "box", "score", "region_scores")

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns the columns; `box` is x1, y1, x2, y2 in pixels, or of an image of unknown size in shares of it."""
        counts = encoded.columns["region_mask"].sum(axis=1)
        sizes = encoded.columns["image_size"]
        rows: dict[str, list[Any]] = {name: [] for name in self.output_columns()}
        for row, (logits, box) in enumerate(zip(outputs["region_logits"], outputs["box"], strict=True)):
            scores = softmax(logits[: int(counts[row])]).astype(np.float32)
            height, width = sizes[row] or (1, 1)
            region = int(scores.argmax())
            values = (region, np.float32(box * [width, height, width, height]), float(scores[region]), scores)
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
        return rows

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns `region` int32 [batch], `box` [batch, 4] (x1, y1, x2, y2 in pixels), `region_score` [batch, regions].

        Args:
            outputs: What was predicted, and `image_size` of the request.
        """
        size = tf.cast(tf.reverse(outputs["image_size"], [-1]), tf.float32)
        logits = outputs["region_logits"]
        return {
            "region": tf.argmax(logits, axis=-1, output_type=tf.int32),
            "box": outputs["box"] * tf.concat([size, size], axis=-1),
            "region_score": tf.nn.softmax(logits),
        }


def masked(logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns logits [batch, regions] of which those of no region cannot win and take no share of a softmax."""
    return tf.where(mask > 0, logits, _NEVER)


def _shown(box: np.ndarray) -> str:
    return " ".join(f"{value:g}" for value in box)
