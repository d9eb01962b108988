"""Predictor and optimum against planted polynomials, least squares and a search over a grid."""

import numpy as np
import pytest

from appzoo.dimension_pruning import optimum, predictor
from easytransfer.errors import ConfigError

LEVELS = {0: [8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9], 1: [0.81, 0.66, 0.5, 0.375], 2: [0.875, 0.75, 0.625, 0.5]}
AXES = np.array([[1, 1, 1], *([*(1,) * axis, level, *(1,) * (2 - axis)] for axis in LEVELS for level in LEVELS[axis])])
LEAST = np.array([min(LEVELS[axis]) for axis in range(3)])
MIXED = np.random.default_rng(5).uniform(LEAST, 1, [4, 3])


def saturating(random):
    """Accuracy as a product of three rising, flattening curves with a small part that is no product."""
    rates, drops = random.uniform(1.5, 5, 3), random.uniform(0.1, 0.5, 3)
    top, mixed = random.uniform(0.7, 0.95), random.uniform(-0.02, 0.02)

    def accuracy(points):
        curves = 1 - drops * (np.exp(-rates * (points - LEAST)) - np.exp(-rates * (1 - LEAST)))
        return top * curves.prod(axis=1) + mixed * (1 - points).prod(axis=1)

    return accuracy


def test_values_and_gradient_equal_the_sum_of_products():
    random = np.random.default_rng(0)
    model = predictor.Predictor(random.normal(size=[2, 3, 4]))
    d, w, r = point = np.array([0.7, 0.4, 0.9])
    expected = sum(
        np.polyval(s[::-1], d) * np.polyval(u[::-1], w) * np.polyval(v[::-1], r) for s, u, v in model.coefficients
    )
    assert model(point[None])[0] == pytest.approx(expected, rel=1e-12)
    steps = 1e-6 * np.eye(3)
    numeric = [(model((point + s)[None])[0] - model((point - s)[None])[0]) / 2e-6 for s in steps]
    np.testing.assert_allclose(model.gradient(point), numeric, rtol=1e-6)


@pytest.mark.parametrize("rank", [1, 2])
def test_a_planted_polynomial_is_found_again(rank):
    random = np.random.default_rng(1)
    planted = predictor.Predictor(np.abs(random.normal(1, 0.3, [rank, 3, 3])))
    points = random.uniform(0.3, 1, [60, 3])
    found = predictor.fit(points, planted(points), 2, rank)
    fresh = random.uniform(0.3, 1, [200, 3])
    np.testing.assert_allclose(found(fresh), planted(fresh), rtol=2e-3 if rank == 2 else 1e-5)


def test_one_dimension_alone_is_least_squares():
    """Samples on one axis: the other factors are 1, and the fit is numpy's polynomial."""
    random = np.random.default_rng(2)
    x = np.linspace(0.3, 1, 12)
    accuracy = 0.5 + 0.4 * x - 0.1 * x**2 + random.normal(0, 0.003, 12)
    weights = random.uniform(0.5, 2, 12)
    points = np.stack([x, np.ones(12), np.ones(12)], axis=1)
    found = predictor.fit(points, accuracy, 2, weights=weights, monotone=False)
    expected = np.polynomial.polynomial.polyfit(x, accuracy, 2, w=np.sqrt(weights))
    np.testing.assert_allclose(found(points), np.polynomial.polynomial.polyval(x, expected), atol=1e-5)


def test_noise_cannot_make_a_larger_network_worse():
    accuracy = np.where(AXES[:, 1] < 1, 0.9 - 0.2 * AXES[:, 1], 0.7 + 0.2 * AXES.prod(axis=1))
    free, bound = (predictor.fit(AXES, accuracy, 3, monotone=monotone) for monotone in (False, True))
    grid = np.stack([np.ones(50), np.linspace(0.375, 1, 50), np.ones(50)], axis=1)
    assert np.diff(free(grid)).min() < -1e-3
    for axis in range(3):
        line = np.ones([50, 3])
        line[:, axis] = np.linspace(LEAST[axis], 1, 50)
        assert np.diff(bound(line)).min() > -1e-4


def test_low_rank_needs_fewer_samples_than_the_full_polynomial():
    """Claim of the paper, on 20 synthetic surfaces: 19 samples, 64 unknowns against 10."""
    errors = {"rank 1": [], "full": []}
    points = np.concatenate([AXES, MIXED])
    for seed in range(20):
        random = np.random.default_rng(seed)
        surface = saturating(random)
        seen = surface(points) + random.normal(0, 0.002, len(points))
        fresh = random.uniform(LEAST, 1, [500, 3])
        errors["rank 1"].append(np.abs(predictor.fit(points, seen, 3)(fresh) - surface(fresh)).mean())
        powers = [
            np.einsum("ni,nj,nk->nijk", *(p[:, a : a + 1] ** np.arange(4) for a in range(3))).reshape(len(p), -1)
            for p in (points, fresh)
        ]
        square = powers[0].T @ powers[0] + 1e-6 * np.eye(64)
        full = powers[1] @ np.linalg.solve(square, powers[0].T @ seen)
        errors["full"].append(np.abs(full - surface(fresh)).mean())
    assert np.mean(errors["rank 1"]) < 0.005 and np.mean(errors["rank 1"]) < np.mean(errors["full"]) / 3, errors


def test_choice_of_degree_and_refusal():
    surface = saturating(np.random.default_rng(3))
    chosen = predictor.choose(AXES, surface(AXES), 5000, 0.02)
    assert chosen.rank == 1 and chosen.error < 0.02
    noise = np.random.default_rng(4).uniform(0.2, 0.9, len(AXES))
    with pytest.raises(ConfigError, match="max_predictor_error"):
        predictor.choose(AXES, noise, 5000, 0.02)


def test_leave_one_out_is_that_of_fits_without_each_sample():
    surface = saturating(np.random.default_rng(6))
    seen = surface(AXES)
    errors = []
    for left in range(len(AXES)):
        rest = [i for i in range(len(AXES)) if i != left]
        errors.append(abs(predictor.fit(AXES[rest], seen[rest], 2)(AXES[left : left + 1])[0] - seen[left]))
    assert predictor.leave_one_out(AXES, seen, 2) == pytest.approx(np.mean(errors), rel=1e-12)


def grid_best(model, budget, least, size=400):
    """Best accuracy over a grid of width and resolution, depth from the budget."""
    w, r = np.meshgrid(np.linspace(least[1], 1, size), np.linspace(least[2], 1, size))
    d = budget / (w * r) ** 2
    points = np.stack([d, w, r], axis=-1).reshape(-1, 3)
    inside = points[(points[:, 0] >= least[0]) & (points[:, 0] <= 1)]
    return model(inside).max() if len(inside) else -np.inf


def violation(found):
    """By how much the Karush-Kuhn-Tucker conditions are missed, relative to the largest gain."""
    if np.isnan(found.multiplier):
        return 0.0
    signs = {"free": lambda x: abs(x), "whole": lambda x: max(-x, 0.0), "least": lambda x: max(x, 0.0)}
    missed = [signs[bound](gain - found.multiplier) for gain, bound in zip(found.gains, found.bounds, strict=True)]
    return float(max(missed) / max(np.abs(found.gains).max(), 1e-12))


@pytest.mark.parametrize("seed", range(30))
def test_no_point_of_a_grid_beats_the_optimum_and_the_conditions_hold(seed):
    random = np.random.default_rng(seed)
    model = predictor.fit(AXES, saturating(random)(AXES) + random.normal(0, 0.002, len(AXES)), 3)
    lowest = float(np.prod(LEAST**optimum.EXPONENTS))
    for budget in (random.uniform(lowest * 1.05, 0.95), 0.3):
        found = optimum.solve(model, budget, LEAST)
        assert found.point[0] * found.point[1] ** 2 * found.point[2] ** 2 == pytest.approx(budget, rel=1e-6)
        assert (found.point >= LEAST - 1e-9).all() and (found.point <= 1 + 1e-9).all()
        assert found.accuracy >= grid_best(model, budget, LEAST) - 1e-4
        assert violation(found) < 1e-2, found


def test_one_dimension_has_a_closed_form():
    model = predictor.fit(AXES, saturating(np.random.default_rng(0))(AXES), 3)
    for axis in range(3):
        least, whole = np.ones(3), np.ones(3)
        least[axis] = LEAST[axis]
        found = optimum.solve(model, 0.5, least, whole)
        assert found.point[axis] == pytest.approx(0.5 ** (1 / optimum.EXPONENTS[axis]), rel=1e-9)
        assert [b for i, b in enumerate(found.bounds) if i != axis] == ["whole", "whole"]


def test_a_budget_below_the_samples_is_refused():
    model = predictor.fit(AXES, saturating(np.random.default_rng(0))(AXES), 3)
    with pytest.raises(ConfigError, match="0.0117 to 1"):
        optimum.solve(model, 0.01, LEAST)
