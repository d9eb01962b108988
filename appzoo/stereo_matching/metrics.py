"""What is measured of disparities against true ones, by the rules of the KITTI stereo benchmarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from easytransfer.metrics.evaluator import Evaluator

Arrays = dict[str, np.ndarray]
# An outlier of D1 is off by more than both: pixels, and a share of the true disparity.
_D1_PIXELS, _D1_SHARE = 3.0, 0.05
# Errors in pixels above which pixels are counted as bad.
BAD = (1, 2, 3)


def d1_outliers(found: np.ndarray, true: np.ndarray, *, inclusive: bool = False) -> np.ndarray:
    """Returns which pixels are outliers of D1: off by more than 3 pixels and by more than 5 % of the true disparity.

    Args:
        found: Disparities.
        true: True ones, above 0.
        inclusive: Whether errors equal to these limits count too, as in some papers; KITTI's program does not.
    """
    error = np.abs(found.astype(np.float64) - true)
    limits = (_D1_PIXELS, _D1_SHARE * true.astype(np.float64))
    return np.logical_and(*(error >= limit if inclusive else error > limit for limit in limits))


def background_interpolated(disparity: np.ndarray) -> np.ndarray:
    """Returns a map with values for missing pixels, 0 or less, as KITTI's program makes them before it measures.

    Each missing run in a row takes the smaller one of the values beside it, the only one at the border. Rows without
    any value take those of the nearest row that has some.

    Args:
        disparity: [height, width].
    """
    filled = disparity.copy()
    with_values = np.flatnonzero((disparity > 0).any(axis=1))
    for row in with_values:
        known = np.flatnonzero(disparity[row] > 0)
        place = np.searchsorted(known, np.arange(disparity.shape[1]))
        left = disparity[row, known[np.maximum(place - 1, 0)]]
        right = disparity[row, known[np.minimum(place, len(known) - 1)]]
        missing = disparity[row] <= 0
        filled[row, missing] = np.minimum(left, right)[missing]
    if 0 < len(with_values) < len(disparity):
        empty = np.setdiff1d(np.arange(len(disparity)), with_values)
        nearest = with_values[np.abs(empty[:, None] - with_values[None, :]).argmin(axis=1)]
        filled[empty] = filled[nearest]
    return filled


class StereoEvaluator(Evaluator):
    """Errors of disparities over all pixels, over those the right eye sees (`noc`), and over the others (`occ`).

    `epe` is the mean absolute error in pixels; `bad1_error` the share of pixels off by more than 1 pixel; `d1_*_error`
    that of `d1_outliers` of all pixels, the background and objects; `density` the share of pixels with a prediction.
    `mask_*` compares the predicted mask with what the true maps say. Pixels of all images are counted together. A table
    without true disparities has `photometric_error` alone.

    Args:
        has_truth: Whether batches hold true disparities.
        has_visible: Whether they say which pixels the right eye sees.
        has_objects: Whether they say which pixels are of objects.
        per_image: Average D1 over images and count errors equal to its limits, as some papers do.
    """

    higher_is_better = False

    def __init__(self, has_truth: bool, has_visible: bool, has_objects: bool, per_image: bool = False) -> None:
        self.main_metric = "epe" if has_truth else "photometric_error"
        self._has = (has_truth, has_visible, has_objects)
        self._per_image = per_image
        self._sums: Counter[str] = Counter()

    def update(self, batch: Arrays, outputs: Arrays) -> None:
        """Adds pairs: `size` and `truth...` of the batch, `disparity`, `occlusion` and `photometric` of the outputs."""
        self._sums["rows"] += len(outputs["photometric"])
        self._sums["photometric"] += float(np.sum(outputs["photometric"], dtype=np.float64))
        if self._has[0]:
            for row in range(len(outputs["disparity"])):
                self._add({name: value[row] for name, value in {**batch, **outputs}.items()})

    def _add(self, row: Mapping[str, np.ndarray]) -> None:
        true, found = row["truth"], row["disparity"]
        known = true > 0
        if not known.any():
            return
        self._sums["pixels"] += int(known.sum())
        self._sums["predicted"] += int((known & (found > 0)).sum())
        # Outside of its pair a prediction has no meaning, and nothing to be filled from.
        height, width = row["size"]
        part = np.s_[len(found) - height :, :width]
        whole = np.zeros_like(found)
        whole[part] = background_interpolated(found[part])
        for name, region in self._regions(row, known).items():
            self._count(name, whole[region], true[region])
        if self._has[1]:
            self._count_mask(row["occlusion"][known] > 0, row["truth_visible"][known] == 0)

    def _regions(self, row: Mapping[str, np.ndarray], known: np.ndarray) -> dict[str, np.ndarray]:
        """Returns which pixels belong to each group that is measured."""
        found = {"all": known}
        if self._has[1]:
            visible = row["truth_visible"] > 0
            found |= {"noc": known & visible, "occ": known & ~visible}
        if self._has[2]:
            objects = row["truth_object"] > 0
            kinds = {"bg": ~objects, "fg": objects}
            found |= {
                kind if group == "all" else f"{group}_{kind}": pixels & chosen
                for group, pixels in list(found.items())
                if group != "occ"
                for kind, chosen in kinds.items()
            }
        return found

    def _count(self, name: str, found: np.ndarray, true: np.ndarray) -> None:
        if not len(true):
            return
        error = np.abs(found.astype(np.float64) - true)
        outliers = d1_outliers(found, true, inclusive=self._per_image)
        self._sums[f"{name}/pixels"] += len(true)
        self._sums[f"{name}/images"] += 1
        self._sums[f"{name}/error"] += float(error.sum())
        self._sums[f"{name}/d1"] += float(outliers.mean()) if self._per_image else int(outliers.sum())
        for limit in BAD:
            self._sums[f"{name}/bad{limit}"] += int((error > limit).sum())

    def _count_mask(self, found: np.ndarray, true: np.ndarray) -> None:
        for name, pixels in (("found", found), ("true", true), ("both", found & true), ("either", found | true)):
            self._sums[f"mask/{name}"] += int(pixels.sum())

    def state(self) -> dict[str, float]:
        """Returns the sums."""
        return dict(self._sums)

    def merge(self, state: Mapping[str, float]) -> None:
        """Adds the sums of another evaluator."""
        self._sums.update(state)

    def result(self) -> dict[str, float]:
        """Returns the metrics; NaN where there was nothing to measure."""
        found = {"photometric_error": self._share("photometric", "rows")}
        if not self._has[0]:
            return found
        has_visible, has_objects = self._has[1:]
        for group in ("all", "noc", "occ") if has_visible else ("all",):
            before = "" if group == "all" else f"{group}_"
            found[f"{before}epe"] = self._share(f"{group}/error", f"{group}/pixels")
            for limit in BAD:
                found[f"{before}bad{limit}_error"] = self._share(f"{group}/bad{limit}", f"{group}/pixels")
            found |= self._d1(group, before, has_objects and group != "occ")
        found["density"] = self._share("predicted", "pixels")
        if has_visible:
            pairs = {"precision": "found", "recall": "true", "iou": "either"}
            found |= {f"mask_{name}": self._share("mask/both", f"mask/{of}") for name, of in pairs.items()}
        return found

    def _d1(self, group: str, before: str, has_objects: bool) -> dict[str, float]:
        names: Sequence[tuple[str, str]] = [("all", group)]
        if has_objects:
            names = [*names, *((kind, kind if group == "all" else f"{group}_{kind}") for kind in ("bg", "fg"))]
        divisor = "images" if self._per_image else "pixels"
        return {f"{before}d1_{kind}_error": self._share(f"{of}/d1", f"{of}/{divisor}") for kind, of in names}

    def _share(self, above: str, below: str) -> float:
        return self._sums[above] / self._sums[below] if self._sums[below] else float("nan")

    def report(self) -> dict[str, Any]:
        """Returns the number of pairs."""
        return {"rows": self._sums["rows"]}
