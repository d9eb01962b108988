"""What results show that nobody can have wanted, said in the log and in the report of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def upside_down(metrics: Mapping[str, float | None], labels: Sequence[str], name: str = "auc") -> str | None:
    """Returns a sentence where the scores of two classes order rows the wrong way round, None where they do not.

    Args:
        metrics: Results; `name` among them, or not.
        labels: Names of the classes; only two have an order.
        name: Metric that is an area under the ROC curve.
    """
    value = metrics.get(name)
    if len(labels) != 2 or value is None or math.isnan(value) or value >= 0.5:
        return None
    return (
        f"{name} is {value:.4f}, below 0.5: rows of {labels[0]} score higher than rows of {labels[1]}, the wrong way "
        "round. On few rows it can be chance; else check the label column, and which label is meant to be the second."
    )
