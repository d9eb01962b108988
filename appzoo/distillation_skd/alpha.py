"""The weight of the distillation loss over a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

# The published code trains for 100 epochs, so its epochs are percent of a run.
PUBLISHED = "0:0.9,60:0.5,80:0.1"
_CONSTANT = "constant:"
_FORM = (
    "`constant:ALPHA`, or `0:ALPHA,PERCENT:ALPHA,...` with rising percents of the run below 100 and alphas from 0 to 1"
)


@dataclass(frozen=True)
class AlphaSchedule:
    """Alpha in alpha * distillation loss + (1 - alpha) * cross entropy, constant in pieces.

    Attributes:
        pieces: Where each piece begins, in percent of the run from 0, and its alpha.

    Example:
        >>> AlphaSchedule.parse("0:0.9,60:0.5,80:0.1").at(step=70, total=100)
        0.5
    """

    pieces: tuple[tuple[float, float], ...]

    @classmethod
    def parse(cls, text: str) -> AlphaSchedule:
        """Reads `constant:ALPHA` or `0:ALPHA,PERCENT:ALPHA,...`.

        Raises:
            ValueError: The text is of another form.
        """
        parts = text.strip().replace(_CONSTANT, "0:", 1) if text.strip().startswith(_CONSTANT) else text.strip()
        try:
            pieces = tuple((float(start), float(alpha)) for start, alpha in (p.split(":") for p in parts.split(",")))
        except ValueError:
            pieces = ()
        starts = [start for start, _ in pieces]
        rising = all(a < b for a, b in zip(starts, starts[1:], strict=False))
        if not starts or starts[0] != 0 or not rising or starts[-1] >= 100 or not all(0 <= a <= 1 for _, a in pieces):
            raise ValueError(f"{text!r} is no schedule of alpha; accepted: {_FORM}")
        return cls(pieces)

    @property
    def last(self) -> float:
        """Alpha at the end of a run."""
        return self.pieces[-1][1]

    def at(self, step: int, total: int) -> float:
        """Returns alpha of the update that follows `step` of `total` updates."""
        return next(alpha for start, alpha in reversed(self.pieces) if 100 * step >= start * total)

    def in_graph(self, step: tf.Tensor, total: int) -> tf.Tensor:
        """Returns the same as `at`, a float32 scalar."""
        import tensorflow as tf

        found = tf.constant(self.pieces[0][1])
        for start, alpha in self.pieces[1:]:
            found = tf.where(100 * tf.cast(step, tf.float64) >= start * total, alpha, found)
        return found
