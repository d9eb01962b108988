"""Strict loading: what a weight file held, what the model needed, and whether that is enough."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from easytransfer.errors import ModelError


@dataclass
class LoadReport:
    """What a file held and what the model needed.

    Attributes:
        source: The file.
        matched: (weight, name in the file, shape in the file).
        missing: Weights the file lacks.
        unexpected: Names in the file that the model has no place for.
        mismatched: (weight, name in the file, shape needed, shape found).
        ignored: Optimizer state, buffers and copies of tied weights.
        repeated: Further names in the file of weights that matched, with equal values.
        remedy: What a user can do about weights that do not fit.
        allowed: Missing or mismatched weights that were let through; they start from random values.
        optional: Regular expression of weights that may be missing whatever the caller says.
    """

    source: str
    matched: list[tuple[str, str, tuple[int, ...]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    remedy: str = "use the config.json that belongs to the weights"
    allowed: list[str] = field(default_factory=list)
    optional: str | None = None

    def summary(self) -> str:
        """Returns one line of counts."""
        counts = [f"{len(self.matched)} weights matched"]
        for what in ("missing", "mismatched", "unexpected", "ignored", "repeated"):
            if getattr(self, what):
                counts.append(f"{len(getattr(self, what))} {what}")
        return f"{self.source}: " + ", ".join(counts)

    def table(self, problems_only: bool = False) -> str:
        """Returns lines `status  variable  <- source  shape`."""
        rows = [] if problems_only else [("matched", a, b, str(list(s))) for a, b, s in self.matched]
        rows += [("missing", name, "-", "") for name in self.missing]
        rows += [("mismatch", a, b, f"need {list(n)}, found {list(f)}") for a, b, n, f in self.mismatched]
        rows += [("unexpected", "-", name, "") for name in self.unexpected]
        if not rows:
            return ""
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join(f"{s:{widths[0]}}  {a:{widths[1]}}  <- {b:{widths[2]}}  {t}".rstrip() for s, a, b, t in rows)

    def check(self, allow_missing: str | None = None) -> None:
        """Raises unless every weight was found with the right shape or its name matches `allow_missing`.

        Args:
            allow_missing: Regular expression searched in the weight name, such as `pooler`.

        Raises:
            ModelError: With the table of problems; the expression is not valid.
        """
        try:
            allowed = re.compile(allow_missing) if allow_missing else None
        except re.error as error:
            raise ModelError(f"allow_missing is not a regular expression: {error}", received=allow_missing) from None
        wrong = [*self.missing, *(row[0] for row in self.mismatched)]
        optional = [name for name in self.missing if self.optional and re.search(self.optional, name)]
        self.allowed = [name for name in wrong if name in optional or (allowed and allowed.search(name))]
        if len(self.allowed) == len(wrong):
            return
        raise ModelError(
            f"{self.source} does not fit the model: {len(self.missing)} weights missing, "
            f"{len(self.mismatched)} with another shape\n{self.table(problems_only=True)}\n",
            fix=self.remedy,
        )
