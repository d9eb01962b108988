"""Published parameter and FLOPs figures beside ours: the table of the README and what its test compares."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from modelzoo.cnn.names import named
from modelzoo.cnn.profile import Profile, profile

QUANTITIES = {
    "parameters": "parameters",
    "parameters_with_statistics": "parameters and moving statistics",
    "macs": "MACs",
    "macs_with_norms": "MACs + 2 x normalised outputs",
}
# A float of JSON times its unit is not exact; this is far below every allowed difference.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Row:
    """One published figure.

    Attributes:
        source: Where it is from.
        name: Configuration.
        members: Networks it counts together.
        classes: Number of classes.
        what: One of `QUANTITIES`.
        value: The figure, in `unit`.
        unit: 1, 1e6 or 1e9.
        allowed: Greatest difference that counts as equal, in `unit`.
        note: Why a difference is allowed.
    """

    source: str
    name: str
    members: int
    classes: int
    what: str
    value: float
    unit: int
    allowed: float
    note: str

    @property
    def ours(self) -> int:
        """Our figure, in ones."""
        found = _profile(self.name, self.classes)
        if self.what == "parameters_with_statistics":
            return self.members * (found.parameters + found.statistics)
        return self.members * getattr(found, self.what)

    @property
    def difference(self) -> float:
        """Ours less the published one, in `unit`."""
        return self.ours / self.unit - self.value

    @property
    def agrees(self) -> bool:
        """Whether the difference is allowed."""
        return abs(self.difference) <= self.allowed + _ROUNDING * abs(self.value)


def rows() -> list[Row]:
    """Returns the published figures."""
    path = Path(__file__).with_name("published.json")
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def markdown() -> str:
    """Returns the table of all figures: ours, published, difference, and why it may differ."""
    lines = [
        "| configuration | networks | classes | figure | ours | published | difference | allowed | from | note |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows():
        difference = round(row.difference, 6)
        cells = [row.name, row.members, row.classes, QUANTITIES[row.what], f"{row.ours:,}", _shown(row.value, row.unit)]
        cells += [f"{difference:+g}" if difference else "0", f"{row.allowed:g}", row.source, row.note]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _shown(value: float, unit: int) -> str:
    return f"{value:,}" if unit == 1 else f"{value:g} {'M' if unit == 10**6 else 'G'}"


@cache
def _profile(name: str, classes: int) -> Profile:
    return profile(named(name), classes)
