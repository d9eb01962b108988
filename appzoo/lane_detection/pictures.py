"""Pictures of lanes: predicted and true ones over the images, the worst frames first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from appzoo.lane_detection.config import LaneSettings
from appzoo.lane_detection.decoding import lanes_of
from appzoo.lane_detection.metrics import image_counts, image_score, true_lanes_of
from easytransfer.data.encoded import EncodedTable
from easytransfer.image.contact_sheet import write_contact_sheet
from easytransfer.image.size import height_width

WORST_FILE = "worst.png"
_MOST_FRAMES, _COLUMNS = 12, 3
# Frames whose metric is computed to find the worst.
_MOST_COMPARED = 500
_TRUE = (255, 255, 255)
# Of slots, from the left.
COLOURS = ((230, 70, 60), (250, 170, 40), (60, 200, 90), (60, 150, 250), (190, 100, 240), (0, 200, 200))
_LEAST_WIDTH = 320


def overlay(
    image: np.ndarray, lanes: Sequence[np.ndarray | None], true: Sequence[np.ndarray], settings: LaneSettings
) -> Image.Image:  # noqa: E501
    """Returns an image of the network's size with lanes over it: true ones white and thin, predicted ones in colours.

    Args:
        image: uint8 [height, width, 3].
        lanes: Points of the lane of each slot in pixels of the original image, None where there is none.
        true: Points of each true lane.
        settings: Sizes.
    """
    picture = Image.fromarray(image)
    factor = -(-_LEAST_WIDTH // picture.width)
    picture = picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.BILINEAR)
    draw, width = ImageDraw.Draw(picture), max(picture.width // 160, 2)
    for slot, lane in enumerate(lanes):
        if lane is not None:
            draw.line(_placed(lane, picture.size, settings), COLOURS[slot % len(COLOURS)], 2 * width, "curve")
    for lane in true:
        if len(lane) > 1:
            draw.line(_placed(lane, picture.size, settings), _TRUE, width, "curve")
    return picture


def _placed(lane: np.ndarray, size: tuple[int, int], settings: LaneSettings) -> list[tuple[float, float]]:
    """Returns points of the original image in pixels of a picture without the rows that are cut off."""
    width = height_width(settings.original_size)[1]
    x = (lane[:, 0] + 0.5) * size[0] / width
    y = (lane[:, 1] + 0.5 - settings.cut_height) * size[1] / settings.kept_height
    return list(zip(x.tolist(), y.tolist(), strict=True))


def by_slot(lane_x: np.ndarray, settings: LaneSettings) -> list[np.ndarray | None]:
    """Returns the points of the lane of each slot; arguments as in `decoding.lanes_of`."""
    found = [lanes_of(lane[None], settings.rows) for lane in lane_x]
    return [lane[0] if lane else None for lane in found]


def frame_scores(encoded: EncodedTable, outputs: dict[str, np.ndarray], settings: LaneSettings) -> list[float]:
    """Returns how good the first frames are, from 0 to 1: accuracy of TuSimple, or F1 of CULane."""
    true, x = encoded.columns["true_lanes"], outputs["lane_x"]
    frames = range(min(len(x), _MOST_COMPARED))
    if settings.benchmark == "tusimple":
        return [image_score(x[frame], true[frame], settings).accuracy for frame in frames]
    counts = [image_counts(x[frame], true[frame], settings) for frame in frames]
    return [found.f1 if found.fp + found.fn else 1.0 for found in counts]


def draw_worst(path: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray], settings: LaneSettings) -> None:
    """Draws the frames with the lowest scores, the worst first, as one picture.

    Args:
        path: PNG file.
        encoded: Labelled rows.
        outputs: What was predicted for them.
        settings: Sizes and rules.
    """
    scores = frame_scores(encoded, outputs, settings)
    chosen = np.argsort(scores, kind="stable")[:_MOST_FRAMES]
    images = [
        overlay(
            np.asarray(encoded.columns["image"][frame]),
            by_slot(outputs["lane_x"][frame], settings),
            true_lanes_of(encoded.columns["true_lanes"][frame]),
            settings,
        )
        for frame in chosen
    ]
    what = "accuracy" if settings.benchmark == "tusimple" else "F1"
    captions = [(f"row {frame + 1}", f"{what} {scores[frame]:.2f}") for frame in chosen]
    write_contact_sheet(path, np.stack([np.asarray(image) for image in images]), captions, columns=_COLUMNS)
