"""Where the parts of an application find what they need: a trained run, or the training table of a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The cells of one column of the training table, rows that cannot be parsed left out.
Values = Callable[[str], Iterable[Any]]


def no_values(column: str) -> Iterable[Any]:
    """Stands for the training table where there is none."""
    return ()


@dataclass(frozen=True)
class Assets:
    """What the parts of an application are made from.

    Attributes:
        folder: A run folder or the assets of an export; None for a new run, which takes pre-trained weights and the
            configuration.
        values: Reads a column of the training table, for labels or a vocabulary made from it.
    """

    folder: Path | None = None
    values: Values = no_values
