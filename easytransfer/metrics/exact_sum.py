"""A sum of numbers that come in parts, without rounding."""

from __future__ import annotations

import math

import numpy as np

# Bits of the whole number that makes a float64 with a power of two, and the smallest such power `frexp` knows.
_BITS, _LOWEST = 53, -1073
_HALF = 32


class ExactSum:
    """The exact sum of float64 numbers: no order or grouping changes it, and it does not grow with their number.

    A finite number is a multiple of 2**-1126, and the sum is kept as a whole number of these.

    Attributes:
        count: How many numbers were added.

    Example:
        >>> total = ExactSum()
        >>> total.add(np.array([1e100, 1.0, -1e100]))
        >>> total.mean()
        0.3333333333333333
    """

    def __init__(self) -> None:
        self.count, self._units, self._not_finite = 0, 0, 0.0

    def add(self, values: np.ndarray) -> None:
        """Adds numbers, of any shape."""
        values = np.asarray(values, np.float64).reshape(-1)
        finite = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            self._not_finite += float(values[~finite].sum())
        self.count += len(values)
        fractions, exponents = np.frexp(values[finite])
        whole = np.ldexp(fractions, _BITS).astype(np.int64)
        for exponent in np.unique(exponents).tolist():
            chosen = whole[exponents == exponent]
            # The sum of up to 2**31 halves of 32 bits is an int64; that of the numbers is not.
            total = (int((chosen >> _HALF).sum()) << _HALF) + int((chosen & (2**_HALF - 1)).sum())
            self._units += total << (exponent - _LOWEST)

    def merge(self, other: ExactSum) -> None:
        """Adds the numbers of another sum."""
        self.count += other.count
        self._units += other._units
        self._not_finite += other._not_finite

    def mean(self) -> float:
        """Returns the rounded sum by the count, as `scores.exact_mean` of all numbers does; NaN for none."""
        if not math.isfinite(self._not_finite):
            return self._not_finite
        return self._units / (1 << (_BITS - _LOWEST)) / self.count if self.count else math.nan
