"""What tables and results show that nobody can have wanted, said in the log and in reports."""

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


# Share of the texts of a table that are cut without a word.
MANY_CUT = 0.05
_MOST_NAMES = 10


def shared_rows(later: str, earlier: str, shared: int, conflicting: int) -> str | None:
    """Returns a sentence where a table that is measured on has rows of the one that is trained on.

    Args:
        later: The table that is measured on.
        earlier: The one that is trained on.
        shared: Rows of `later` that `earlier` has, too.
        conflicting: Those of them that have another label there.
    """
    if not shared:
        return None
    other = f", with another label: {conflicting:,}" if conflicting else ""
    return f"rows of the {later} table that the {earlier} table has, too: {shared:,}{other}; metrics count them as new"


def conflicting_rows(table: str, rows: int) -> str | None:
    """Returns a sentence where rows of a table are the same but for their label."""
    return f"rows of the {table} table that are there with another label, too: {rows:,}" if rows else None


def unseen_labels(later: str, earlier: str, counts: Mapping[str, int]) -> str | None:
    """Returns a sentence on labels that only the table has that is measured on, with their rows."""
    if not counts:
        return None
    names = sorted(counts, key=lambda name: (-counts[name], name))
    shown = ", ".join(f"{name} ({counts[name]:,})" for name in names[:_MOST_NAMES])
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return f"labels of the {later} table that no row of the {earlier} table has: {shown}{more}"


def cut_texts(table: str, cut: int, rows: int, limit: int) -> str | None:
    """Returns a sentence where many texts are longer than what is read of them."""
    if cut <= MANY_CUT * rows:
        return None
    return f"{cut / rows:.1%} of the texts of the {table} table are longer than sequenceLength={limit} and are cut"


def near_empty_texts(table: str, rows: int) -> str | None:
    """Returns a sentence where texts have next to nothing in them."""
    return f"texts of the {table} table with fewer than two letters or digits: {rows:,}" if rows else None
