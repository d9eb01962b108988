"""How far two evaluations of one model may lie apart: what rounding explains, and no more.

Other batch sizes, lengths, graphs and machines add up the same products in another order. What that changes comes out
of a network in proportion to the largest numbers of the output, not to each one: a logit of 0 beside logits of 10 has
their error. Differences are therefore counted in units of `epsilon * scale`, of which a number is allowed:

    |found - expected| / (epsilon * scale) <= allowed

epsilon is the distance from 1 to the next number of the coarsest type the graph computes in, scale the largest
magnitude of the output over all rows known. Allowed are the units of `ALLOWED`, or as many as the output of the model
in memory changes by when its weights are moved by 64 units in the last place (`samples.sensitivity`): hundreds of
layers amplify what happens in the first ones. `benchmarks/export_rounding.py` measures both sides of the bound;
`benchmarks/results/export_rounding.txt` has what it found.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
# Units allowed. Half precision rounds every activation, and adds up in float32.
ALLOWED = {"float64": 256, "float32": 256, "float16": 32, "bfloat16": 8}
# Numbers from here on are fills, such as -1e9 for padding: they are no measure for the others, only for themselves.
FILL = 1e6
# An output whose numbers are all smaller has this scale.
SMALLEST_SCALE = 2.0**-7


def coarsest(float_types: Iterable[str]) -> str:
    """Returns the type with the fewest bits among names of floating-point types; float32 for none that is known."""
    return max((name for name in float_types if name in EPSILON), key=EPSILON.__getitem__, default="float32")


def scale_of(arrays: Iterable[np.ndarray]) -> float:
    """Returns the largest magnitude of an output, fills left out."""
    largest = SMALLEST_SCALE
    for array in arrays:
        sizes = np.abs(array, dtype=np.float64)
        largest = max(largest, float(np.max(sizes, initial=0.0, where=sizes < FILL)))
    return largest


def units(found: np.ndarray, expected: np.ndarray, scale: float, float_type: str) -> np.ndarray:
    """Returns the difference of two arrays of one shape in units of `epsilon * scale`, float64 of that shape."""
    expected = np.asarray(expected, np.float64)
    sizes = np.abs(expected)
    return np.abs(found - expected) / (EPSILON[float_type] * np.where(sizes < FILL, scale, sizes))


def within_rounding(found: np.ndarray, expected: np.ndarray, float_type: str = "float32") -> bool:
    """Says whether two outputs of one model differ by no more than rounding explains."""
    scale = scale_of([expected])
    return bool(np.all(units(found, expected, scale, float_type) <= ALLOWED[float_type]))
