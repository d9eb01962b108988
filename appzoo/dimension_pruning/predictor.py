"""The model accuracy predictor: a low-rank polynomial of depth, width and resolution, fitted from few samples.

Wang et al. 2021, arXiv 2010.04879. F(d, w, r) = sum over q of H(d; s_q) H(w; u_q) H(r; v_q), H(x; c) = sum c_i x^i; all
three are shares of the whole network's, in (0, 1]. Rank 1 says that each dimension costs the same share of the
accuracy whatever the others are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from easytransfer.errors import ConfigError

DEGREES, RANKS = (1, 2, 3), (1, 2)
# Rank 2 needs that many samples.
SAMPLES_FOR_RANK_2 = 20
_SWEEPS, _CONVERGED, _RESTARTS, _GRID = 200, 1e-10, 5, 21
_RIDGE = {1: 1e-6, 2: 1e-4}


@dataclass(frozen=True)
class Predictor:
    """A fitted polynomial.

    Attributes:
        coefficients: float64 [rank, 3, degree + 1]: of depth, width and resolution, lowest power first.
        error: Mean absolute error over samples that were left out of the fit one at a time; NaN when not computed.
    """

    coefficients: np.ndarray
    error: float = float("nan")

    @property
    def rank(self) -> int:
        """Number of products."""
        return self.coefficients.shape[0]

    @property
    def degree(self) -> int:
        """Highest power of each dimension."""
        return self.coefficients.shape[2] - 1

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Returns predicted accuracies [n] at `points` [n, 3]."""
        return self._factors(np.asarray(points, float)).prod(axis=2).sum(axis=1)

    def gradient(self, point: np.ndarray) -> np.ndarray:
        """Returns the derivatives [3] with respect to depth, width and resolution at one point [3]."""
        factors = self._factors(np.asarray(point, float)[None])[0]
        slopes = np.array(
            [[np.polynomial.polynomial.polyval(x, _derivative(c)) for x, c in zip(point, row, strict=True)]
             for row in self.coefficients]
        )  # fmt: skip
        others = np.array([[np.prod(np.delete(row, axis)) for axis in range(3)] for row in factors])
        return (slopes * others).sum(axis=0)

    def _factors(self, points: np.ndarray) -> np.ndarray:
        """Values [n, rank, 3] of the polynomials of one variable."""
        powers = points[:, :, None] ** np.arange(self.degree + 1)
        return np.einsum("nai,qai->nqa", powers, self.coefficients)


def _derivative(coefficients: np.ndarray) -> np.ndarray:
    return coefficients[1:] * np.arange(1, len(coefficients))


def fit(
    points: np.ndarray,
    accuracies: np.ndarray,
    degree: int,
    rank: int = 1,
    *,
    weights: np.ndarray | None = None,
    monotone: bool = True,
) -> Predictor:
    """Fits the polynomial by alternating least squares: two dimensions held, the third is linear.

    Args:
        points: Samples [n, 3]: depth, width, resolution.
        accuracies: [n].
        degree: Highest power of each dimension.
        rank: Number of products.
        weights: Weight [n] of each sample's squared error, such as one over its variance.
        monotone: With rank 1, no dimension may lower the accuracy as it grows, between its least sample and 1.
    """
    points, wanted = np.asarray(points, float), np.asarray(accuracies, float)
    root = np.sqrt(np.ones(len(wanted)) if weights is None else np.asarray(weights, float) / np.mean(weights))
    random = np.random.default_rng(0)
    best, least = None, np.inf
    for _ in range(1 if rank == 1 else _RESTARTS):
        start = np.zeros([rank, 3, degree + 1])
        start[:, :, 0] = 1.0
        if rank > 1:
            start += random.normal(0, 0.3, start.shape)
        found = _alternate(points, wanted, root, start, monotone and rank == 1)
        loss = float(np.square(root * (Predictor(found)(points) - wanted)).sum())
        if loss < least:
            best, least = found, loss
    return Predictor(best)


def _alternate(
    points: np.ndarray, wanted: np.ndarray, root: np.ndarray, coefficients: np.ndarray, monotone: bool
) -> np.ndarray:
    rank, _, columns = coefficients.shape
    powers = points[:, :, None] ** np.arange(columns)
    before = np.inf
    for _ in range(_SWEEPS):
        for axis in range(3):
            factors = np.einsum("nai,qai->nqa", powers, coefficients)
            others = np.delete(factors, axis, axis=2).prod(axis=2)
            design = (others[:, :, None] * powers[:, axis][:, None]).reshape(len(wanted), -1)
            slopes = _slopes(points[:, axis], columns) if monotone else None
            solved = _solve(root[:, None] * design, root * wanted, _RIDGE[rank], slopes)
            coefficients[:, axis] = solved.reshape(rank, columns)
        # Width and resolution are 1 at the whole network; depth carries the scale.
        for axis in (1, 2):
            scale = coefficients[:, axis].sum(axis=1)
            usable = np.abs(scale) > 1e-9
            coefficients[usable, axis] /= scale[usable, None]
            coefficients[usable, 0] *= scale[usable, None]
        loss = float(np.square(root * (Predictor(coefficients)(points) - wanted)).sum())
        if before < np.inf and before - loss <= _CONVERGED * max(before, 1e-12):
            break
        before = loss
    return coefficients


def _slopes(values: np.ndarray, columns: int) -> np.ndarray:
    """Rows that give the derivative on a grid between the least sample and 1."""
    grid = np.linspace(values.min(), 1.0, _GRID)
    powers = np.arange(1, columns)
    return np.concatenate([np.zeros([_GRID, 1]), powers * grid[:, None] ** (powers - 1)], axis=1)


def _solve(design: np.ndarray, wanted: np.ndarray, ridge: float, slopes: np.ndarray | None) -> np.ndarray:
    """Returns the regularised least-squares solution, with `slopes @ solution >= 0` where these are given."""
    square = design.T @ design + ridge * np.eye(design.shape[1])
    target = design.T @ wanted
    solution = np.linalg.solve(square, target)
    if slopes is None or (slopes @ solution).min() >= 0:
        return solution
    constrained = minimize(
        lambda c: 0.5 * c @ square @ c - target @ c,
        # The mean, which is constant, is always allowed.
        np.eye(len(solution))[0] * target[0] / square[0, 0],
        jac=lambda c: square @ c - target,
        constraints={"type": "ineq", "fun": lambda c: slopes @ c, "jac": lambda c: slopes},
        method="SLSQP",
        options={"maxiter": 200, "ftol": 1e-12},
    )
    return constrained.x


def leave_one_out(points: np.ndarray, accuracies: np.ndarray, degree: int, rank: int = 1, **options) -> float:
    """Returns the mean absolute error of samples that are left out of the fit, one at a time."""
    weights = options.pop("weights", None)
    errors = []
    for left in range(len(accuracies)):
        rest = np.delete(np.arange(len(accuracies)), left)
        part = None if weights is None else weights[rest]
        found = fit(points[rest], accuracies[rest], degree, rank, weights=part, **options)
        errors.append(abs(float(found(points[left : left + 1])[0]) - accuracies[left]))
    return float(np.mean(errors))


def choose(points: np.ndarray, accuracies: np.ndarray, rows: int, largest_error: float) -> Predictor:
    """Fits the degree and rank of least leave-one-out error, the smaller ones where several are equal.

    Args:
        points: Samples [n, 3].
        accuracies: [n], each over the same `rows` rows; the variance a (1 - a) / rows decides its weight.
        rows: Rows each accuracy was measured on.
        largest_error: Error from which on the fit is not used.

    Raises:
        ConfigError: Even the best fit errs by more.
    """
    # A sample that is right everywhere, or nowhere, still has half a row of doubt.
    safe = np.clip(accuracies, 0.5 / rows, 1 - 0.5 / rows)
    weights = rows / (safe * (1 - safe))
    errors = {
        (rank, degree): leave_one_out(points, accuracies, degree, rank, weights=weights)
        for rank in (RANKS if len(accuracies) >= SAMPLES_FOR_RANK_2 else RANKS[:1])
        for degree in DEGREES
    }
    rank, degree = min(errors, key=lambda key: (round(errors[key], 9), key))
    if errors[rank, degree] > largest_error:
        raise ConfigError(
            "the samples do not tell how accuracy depends on depth, width and resolution: left out of the fit, they "
            f"are missed by {100 * errors[rank, degree]:.1f} points of accuracy",
            accepted=f"up to {100 * largest_error:.1f} (model.max_predictor_error)",
            fix="raise model.sample_epochs, model.base_epochs or model.select_share",
        )
    return Predictor(fit(points, accuracies, degree, rank, weights=weights).coefficients, errors[rank, degree])
