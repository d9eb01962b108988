"""How sure a metric is, and the difference of two models on the same rows or of two trainings over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from easytransfer.metrics.row_results import RowResults

RESAMPLES = 1000
# Rows drawn in all: larger tables are drawn less often.
_MOST_DRAWN = 200_000_000
_FEWEST_RESAMPLES = 200
_TAILS = (2.5, 97.5)


@dataclass(frozen=True)
class Difference:
    """How much more of a metric the second of two models has.

    Attributes:
        metric: Its name.
        difference: Second minus first.
        low: Lower end of the 95% interval.
        high: Upper end.
        p: Probability of a difference at least as large where there is none, two-sided.
        test: `McNemar, exact`, `bootstrap` or `paired t`.
    """

    metric: str
    difference: float
    low: float
    high: float
    p: float
    test: str


def mcnemar_exact(first_right: np.ndarray, second_right: np.ndarray) -> tuple[int, int, float]:
    """Compares two models on the rows that one of them alone gets right.

    Args:
        first_right: Whether the first model is right, bool [rows].
        second_right: Whether the second one is.

    Returns:
        Rows that the first alone gets right, rows that the second alone gets right, and the exact two-sided p-value:
        were both equally good, each of these rows would be either's with probability 1/2 (McNemar 1947; the binomial
        distribution in place of its approximation).
    """
    from scipy.stats import binomtest

    first, second = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    return first, second, float(binomtest(first, first + second, 0.5).pvalue) if first + second else 1.0


def resamples_for(rows: int) -> int:
    """Returns how often tables of so many rows are drawn."""
    return max(_FEWEST_RESAMPLES, min(RESAMPLES, _MOST_DRAWN // max(rows, 1)))


def bootstrap(models: list[RowResults], seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Computes the metrics of models on the same rows, drawn with replacement (Efron 1979).

    Args:
        models: Results on the same rows in the same order.
        seed: Of the draws.

    Returns:
        For each model its metrics by name, [resamples]; number i of all of them is on the same draw.
    """
    random = np.random.default_rng(seed)
    rows = len(models[0])
    found: list[dict[str, list[float]]] = [{} for _ in models]
    for _ in range(resamples_for(rows)):
        drawn = random.integers(0, rows, rows)
        for metrics, model in zip(found, models, strict=True):
            for name, value in model.take(drawn).metrics().items():
                metrics.setdefault(name, []).append(value)
    return [{name: np.array(values) for name, values in metrics.items()} for metrics in found]


def interval(values: np.ndarray) -> tuple[float, float]:
    """Returns the 95% percentile interval of a bootstrap; draws on which a metric is not defined are left out."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, _TAILS)
    return float(low), float(high)


def differences(
    first: RowResults, second: RowResults, first_draws: dict[str, np.ndarray], second_draws: dict[str, np.ndarray]
) -> list[Difference]:
    """Tests every metric that both models have.

    The whole answers of rows, `accuracy` or `subset_accuracy`, by McNemar's exact test, all else by the share of draws
    in which the difference has the other sign, doubled (with one added to counts, so that it is never 0).

    Args:
        first: Results of the first model.
        second: Those of the second one, on the same rows.
        first_draws: What `bootstrap` returned for the first model.
        second_draws: What it returned for the second one.
    """
    found = []
    before, after = first.metrics(), second.metrics()
    for name in before.keys() & after.keys():
        drawn = second_draws[name] - first_draws[name]
        low, high = interval(drawn)
        if name in ("accuracy", "subset_accuracy"):
            _, _, p = mcnemar_exact(first.right, second.right)
            test = "McNemar, exact"
        else:
            p, test = _sign_p(drawn), "bootstrap"
        found.append(Difference(name, after[name] - before[name], low, high, p, test))
    return sorted(found, key=lambda each: list(before).index(each.metric))


def seeds_difference(metric: str, first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """Tests a metric of two trainings over the seeds that both have, by Student's t of the pairs (Biometrika 1908).

    Args:
        metric: Its name.
        first: Its values by seed for the first training.
        second: Those for the second one.

    Returns:
        None for fewer than two pairs; interval and p are NaN where all pairs differ alike, as the spread is unknown.
    """
    from scipy.stats import t as student

    pairs = np.array([second[seed] - first[seed] for seed in first if seed in second], np.float64)
    if len(pairs) < 2:
        return None
    mean, free = float(pairs.mean()), len(pairs) - 1
    error = float(pairs.std(ddof=1)) / len(pairs) ** 0.5
    # Of equal differences the rounding is left.
    if error <= 1e-12 * max(1.0, abs(mean)):
        return Difference(metric, mean, float("nan"), float("nan"), float("nan"), "paired t")
    half = float(student.ppf(_TAILS[1] / 100, free)) * error
    p = float(2 * student.sf(abs(mean) / error, free))
    return Difference(metric, mean, mean - half, mean + half, p, "paired t")


def _sign_p(drawn: np.ndarray) -> float:
    defined = drawn[np.isfinite(drawn)]
    fewer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(defined) + 1))
