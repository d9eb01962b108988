"""Rows collected batch by batch, so that metrics are computed once over the whole table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class RowCollector:
    """Keeps named arrays whose first axis is the row. Metrics from it cannot depend on the batch size.

    It grows with the rows: what a metric needs of all of them should be in its smallest form.
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {}

    def add(self, **rows: np.ndarray) -> None:
        """Adds arrays of equal length.

        Raises:
            ValueError: The lengths differ.
        """
        if len({len(part) for part in rows.values()}) > 1:
            raise ValueError("lengths differ: " + ", ".join(f"{name} {len(part)}" for name, part in rows.items()))
        for name, part in rows.items():
            parts = self._parts.setdefault(name, [])
            # A copy: a view would keep the whole batch it was cut from in memory.
            parts.append(np.array(part))
            # Few arrays, each longer than the next: thousands of small ones would take more than what is in them.
            while len(parts) > 1 and len(parts[-2]) <= len(parts[-1]):
                parts[-2:] = [np.concatenate(parts[-2:])]

    def rows(self, name: str) -> np.ndarray:
        """Returns all rows of one array.

        Raises:
            ValueError: Nothing was added yet.
        """
        if name not in self._parts:
            raise ValueError("no rows were evaluated")
        if len(self._parts[name]) > 1:
            self._parts[name] = [np.concatenate(self._parts[name])]
        return self._parts[name][0]

    def state(self) -> dict[str, np.ndarray]:
        """Returns all rows, for `merge` of another collector."""
        return {name: self.rows(name) for name in self._parts}

    def merge(self, state: Mapping[str, np.ndarray]) -> None:
        """Adds the rows of another collector's `state`, such as another worker's."""
        for name, rows in state.items():
            self._parts.setdefault(name, []).append(rows)

    def __len__(self) -> int:
        return sum(len(part) for part in next(iter(self._parts.values()), []))
