"""What is measured of lanes: the metric of a benchmark, overlap of pixels, which lanes exist."""

from __future__ import annotations

import abc
from collections import Counter
from typing import Any

import numpy as np

from appzoo.lane_detection import culane, tusimple
from appzoo.lane_detection.config import LaneSettings
from appzoo.lane_detection.decoding import lanes_of, submitted
from easytransfer.image.size import height_width
from easytransfer.metrics.evaluator import Evaluator

# A kind of images without lanes: only what was invented there is told.
CROSSROAD = "cross"
_EXISTS = 0.5


class LaneEvaluator(Evaluator):
    """`pixel_iou`, the mean over slots of intersection over union of all pixels, `exist_accuracy`, and a benchmark's.

    It reads `exist`, `category` and `true_lanes` of batches and `exist`, `lane_x` and `pixel_counts` of outputs.

    Args:
        settings: Sizes and rows.
    """

    def __init__(self, settings: LaneSettings) -> None:
        self.settings = settings
        self.pixels = np.zeros([settings.slots, 2], np.int64)
        self.slots = Counter(right=0, all=0)

    @abc.abstractmethod
    def add_image(self, lane_x: np.ndarray, true: np.ndarray, category: int) -> None:
        """Adds the lanes of one image.

        Args:
            lane_x: Predicted ones [slots, rows], see `decoding.read_off`.
            true: See `target.LaneTarget`.
            category: Number of the kind of image, -1 where there is none.
        """

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        self.pixels += outputs["pixel_counts"].sum(axis=0)
        right = (outputs["exist"] > _EXISTS) == (batch["exist"] > _EXISTS)
        self.slots.update(right=int(right.sum()), all=right.size)
        for row in zip(outputs["lane_x"], batch["true_lanes"], batch["category"], strict=True):
            self.add_image(*row)

    def result(self) -> dict[str, float]:
        """Returns the metrics that both benchmarks have; slots without a pixel are left out of the overlap."""
        common, union = self.pixels[self.pixels[:, 1] > 0].T
        return {
            "pixel_iou": float((common / union).mean()) if len(union) else 0.0,
            "exist_accuracy": self.slots["right"] / self.slots["all"] if self.slots["all"] else float("nan"),
        }

    def state(self) -> dict[str, Any]:
        """Returns sums and counts."""
        return {"pixels": self.pixels, "slots": self.slots}

    def merge(self, state: dict[str, Any]) -> None:
        """Adds those of another evaluator."""
        self.pixels = self.pixels + state["pixels"]
        self.slots.update(state["slots"])

    def report(self) -> dict[str, Any]:
        """Returns the number of images."""
        return {"rows": self.slots["all"] // self.settings.slots}


class TusimpleEvaluator(LaneEvaluator):
    """`lane_accuracy`, `fp`, `fn` (means over images) and `f1` of the two, by the official script."""

    main_metric = "lane_accuracy"

    def __init__(self, settings: LaneSettings) -> None:
        super().__init__(settings)
        self.sums, self.images = np.zeros(3), 0

    def add_image(self, lane_x: np.ndarray, true: np.ndarray, category: int) -> None:
        """Adds the lanes of one image, in the rows that its label asks for."""
        score = image_score(lane_x, true, self.settings)
        self.sums += (score.accuracy, score.fp, score.fn)
        self.images += 1

    def result(self) -> dict[str, float]:
        """Returns all metrics; NaN without an image."""
        accuracy, fp, fn = map(float, self.sums / self.images if self.images else np.full(3, np.nan))
        return {"lane_accuracy": accuracy, "f1": tusimple.f1(fp, fn), "fp": fp, "fn": fn, **super().result()}

    def state(self) -> dict[str, Any]:
        """Returns sums and counts."""
        return {**super().state(), "sums": self.sums, "images": self.images}

    def merge(self, state: dict[str, Any]) -> None:
        """Adds those of another evaluator."""
        super().merge(state)
        self.sums, self.images = self.sums + state["sums"], self.images + state["images"]


class CulaneEvaluator(LaneEvaluator):
    """`f1`, `precision` and `recall` of all images, and `f1_<kind>` of each kind, `fp_cross` of crossroads."""

    main_metric = "f1"

    def __init__(self, settings: LaneSettings) -> None:
        super().__init__(settings)
        self.counts: dict[int, culane.Counts] = {}

    def add_image(self, lane_x: np.ndarray, true: np.ndarray, category: int) -> None:
        """Adds the lanes of one image."""
        found = image_counts(lane_x, true, self.settings)
        self.counts[int(category)] = self.counts.get(int(category), culane.Counts()) + found

    def result(self) -> dict[str, float]:
        """Returns all metrics."""
        total = sum(self.counts.values(), culane.Counts())
        found = {"f1": total.f1, "precision": total.precision, "recall": total.recall}
        for number, name in enumerate(self.settings.categories):
            counts = self.counts.get(number)
            if counts is not None:
                cross = name == CROSSROAD
                found["fp_cross" if cross else f"f1_{name}"] = float(counts.fp) if cross else counts.f1
        return {**found, **super().result()}

    def state(self) -> dict[str, Any]:
        """Returns sums and counts."""
        return {**super().state(), "counts": self.counts}

    def merge(self, state: dict[str, Any]) -> None:
        """Adds those of another evaluator."""
        super().merge(state)
        for category, counts in state["counts"].items():
            self.counts[category] = self.counts.get(category, culane.Counts()) + counts


def lane_evaluator(settings: LaneSettings) -> LaneEvaluator:
    """Returns a fresh evaluator of the benchmark that is set."""
    return (CulaneEvaluator if settings.benchmark == "culane" else TusimpleEvaluator)(settings)


def true_lanes_of(true: np.ndarray) -> list[np.ndarray]:
    """Returns the points of true lanes that are seen, x and y [points, 2] of each; see `target.LaneTarget`."""
    lanes = [lane[~np.isnan(lane[:, 1])].astype(np.float64) for lane in true]
    return [lane[lane[:, 0] >= 0] for lane in lanes if len(lane)]


def image_score(lane_x: np.ndarray, true: np.ndarray, settings: LaneSettings) -> tusimple.ImageScore:
    """Returns the score of one image by TuSimple; arguments as in `LaneEvaluator.add_image`."""
    asked = ~np.isnan(true[..., 1]).all(axis=0)
    lanes = true[~np.isnan(true[..., 1]).all(axis=1)]
    # An image without lanes does not say which rows it asks for.
    asked = asked if asked.any() else np.ones_like(asked)
    predicted = submitted(lane_x)
    rows = [row for row, wanted in zip(settings.rows, asked, strict=True) if wanted]
    return tusimple.score_image([lane[asked] for lane in predicted], [lane[asked, 0] for lane in lanes], rows)


def image_counts(lane_x: np.ndarray, true: np.ndarray, settings: LaneSettings) -> culane.Counts:
    """Returns the counts of one image by CULane; arguments as in `LaneEvaluator.add_image`."""
    size = height_width(settings.original_size)
    predicted = lanes_of(lane_x, settings.rows)
    return culane.count_image(predicted, true_lanes_of(true), size, settings.compared_width)
