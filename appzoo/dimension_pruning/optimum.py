"""The best depth, width and resolution under a budget, by the conditions of Karush, Kuhn and Tucker.

Wang et al. 2021, arXiv 2010.04879. Maximise F(d, w, r) subject to d w^2 r^2 = T inside the box of the samples. With
u = log x the constraint is linear, and where no bound holds, d F_d = w F_w / 2 = r F_r / 2 = mu: every dimension gains
the same accuracy per unit of log cost. At x = 1 the gain is at least mu, at the lower bound at most mu.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from appzoo.dimension_pruning.predictor import Predictor
from easytransfer.errors import ConfigError

# C(d, w, r) = d w^2 r^2, as a share of the whole network's operations.
EXPONENTS = np.array([1.0, 2.0, 2.0])
DIMENSIONS = ("depth", "width", "resolution")
_AT_BOUND, _RANDOM_STARTS = 1e-6, 6


@dataclass(frozen=True)
class Optimum:
    """The solution of the constrained problem.

    Attributes:
        point: Depth, width and resolution.
        accuracy: Predicted accuracy there.
        gains: d F_d, w F_w / 2, r F_r / 2.
        multiplier: mu, the mean gain of the dimensions that are not at a bound; NaN when all are.
        bounds: For each dimension `free`, `least` or `whole`.
    """

    point: np.ndarray
    accuracy: float
    gains: np.ndarray
    multiplier: float
    bounds: tuple[str, ...]


def solve(predictor: Predictor, budget: float, least: np.ndarray, whole: np.ndarray | None = None) -> Optimum:
    """Finds the best point of a budget.

    Args:
        predictor: Predicted accuracy, defined between `least` and 1.
        budget: T, the share of the operations that is left, in (0, 1].
        least: Lower bounds [3] of depth, width and resolution.
        whole: Upper bounds [3], 1 by default; equal bounds hold a dimension.

    Raises:
        ConfigError: No point between the bounds has this budget.
    """
    low, high = np.log(np.asarray(least, float)), np.log(np.ones(3) if whole is None else np.asarray(whole, float))
    check_reachable(budget, low, high)
    target = np.log(budget)
    candidates = [_climb(predictor, start, low, high, target) for start in _starts(low, high, target)]
    best = max(candidates, key=lambda u: predictor(np.exp(u)[None])[0])
    return _described(predictor, best, low, high)


def check_reachable(budget: float, low: np.ndarray, high: np.ndarray) -> None:
    """Checks that a point between the logarithms of the bounds has the budget.

    Raises:
        ConfigError: None has.
    """
    if not EXPONENTS @ low - 1e-12 <= np.log(budget) <= EXPONENTS @ high + 1e-12:
        share = float(np.exp(EXPONENTS @ low))
        raise ConfigError(
            "the samples do not reach so small a budget",
            received=f"model.budget={budget:g}",
            accepted=f"{share:.3g} to 1",
            fix="sample smaller levels (model.width_levels, model.resolution_levels), or raise model.budget",
        )


def _starts(low: np.ndarray, high: np.ndarray, target: float) -> list[np.ndarray]:
    """Returns points of the budget: where it meets the edges of the box, their mean, and random mixtures."""
    corners = []
    for axis in range(3):
        others = [i for i in range(3) if i != axis]
        for ends in itertools.product((0, 1), repeat=2):
            u = np.empty(3)
            u[others] = [(low, high)[end][i] for end, i in zip(ends, others, strict=True)]
            u[axis] = (target - EXPONENTS[others] @ u[others]) / EXPONENTS[axis]
            if low[axis] - 1e-12 <= u[axis] <= high[axis] + 1e-12:
                corners.append(np.clip(u, low, high))
    mixtures = np.random.default_rng(0).dirichlet(np.ones(len(corners)), _RANDOM_STARTS)
    return [*corners, np.mean(corners, axis=0), *(mixtures @ np.array(corners))]


def _climb(predictor: Predictor, start: np.ndarray, low: np.ndarray, high: np.ndarray, target: float) -> np.ndarray:
    found = minimize(
        lambda u: -predictor(np.exp(u)[None])[0],
        start,
        jac=lambda u: -predictor.gradient(np.exp(u)) * np.exp(u),
        bounds=list(zip(low, high, strict=True)),
        constraints={"type": "eq", "fun": lambda u: EXPONENTS @ u - target, "jac": lambda u: EXPONENTS},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    feasible = abs(EXPONENTS @ found.x - target) < 1e-8
    return np.clip(found.x, low, high) if feasible else start


def _described(predictor: Predictor, u: np.ndarray, low: np.ndarray, high: np.ndarray) -> Optimum:
    point = np.exp(u)
    gains = predictor.gradient(point) * point / EXPONENTS
    bounds = tuple(
        "whole" if x > top - _AT_BOUND else "least" if x < bottom + _AT_BOUND else "free"
        for x, bottom, top in zip(u, low, high, strict=True)
    )
    free = [gain for gain, bound in zip(gains, bounds, strict=True) if bound == "free"]
    return Optimum(
        point, float(predictor(point[None])[0]), gains, float(np.mean(free)) if free else float("nan"), bounds
    )
