"""How sure a result is: 95% intervals of shares and means, of parts of a table and of the one number of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NORMAL_95 = 1.96
# Metrics that are shares of rows, whose interval follows from the number of rows.
SHARES_OF_ROWS = ("accuracy", "subset_accuracy")


def wilson_interval(share: float, rows: int) -> tuple[float, float]:
    """Returns the 95% interval of a share observed on `rows` independent rows (Wilson 1927)."""
    square = _NORMAL_95**2
    centre = (share + square / (2 * rows)) / (1 + square / rows)
    half = _NORMAL_95 * math.sqrt(share * (1 - share) / rows + square / (4 * rows**2)) / (1 + square / rows)
    return max(0.0, centre - half), min(1.0, centre + half)


def share_interval(metric: str, value: float | None, report: Mapping[str, Any]) -> tuple[float, float] | None:
    """Returns the 95% interval of a result that is a share of rows; None for others, and for shares of words.

    Args:
        metric: Its name.
        value: The share.
        report: Content of `report.json`, with the number of evaluation rows.
    """
    if metric not in SHARES_OF_ROWS or value is None or not report.get("rows"):
        return None
    return None if report.get("confusion_of", "rows") != "rows" else wilson_interval(value, report["rows"])


def slice_row(
    by: str, name: str, rows: int, metric: str, value: float, deviation: float | None = None
) -> dict[str, Any]:
    """Returns the result of a part of the evaluation rows, for a report.

    Args:
        by: What the rows were divided by.
        name: What these have in common.
        rows: How many they are.
        metric: A share of them, or a mean where there is a deviation.
        value: The share or the mean.
        deviation: Standard deviation of what the mean is of.
    """
    low: float | None
    high: float | None
    if metric != "mae":
        low, high = wilson_interval(value, rows)
    elif deviation is None:
        low, high = None, None
    else:
        half = _NORMAL_95 * deviation / math.sqrt(rows)
        low, high = max(0.0, value - half), value + half
    return {"by": by, "name": name, "rows": rows, "metric": metric, "value": value, "low": low, "high": high}


@dataclass(frozen=True)
class Headline:
    """The one number of a run, with its 95% interval where it is known."""

    metric: str
    value: float
    low: float | None = None
    high: float | None = None


def headline(evaluation: Mapping[str, Any], report: Mapping[str, Any]) -> Headline | None:
    """Returns the metric that picked the best checkpoint, of the exported weights; None where there is none.

    Args:
        evaluation: Content of `evaluation.json`.
        report: Content of `report.json`.
    """
    metric = report.get("metric")
    value = {**evaluation.get("best", {}), **report.get("metrics", {})}.get(metric)
    if value is None or not math.isfinite(value):
        return None
    drawn = report.get("interval") or {}
    if drawn.get("metric") == metric:
        return Headline(metric, value, drawn["low"], drawn["high"])
    return Headline(metric, value, *(share_interval(metric, value, report) or ()))
