"""What an experiment has found: means and spreads over seeds, differences of the arms, as JSON and as pictures."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from appzoo.experiment.cost import SIZES
from appzoo.experiment.run import ArmResult
from easytransfer.metrics.paired import Difference, seeds_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COST_PICTURE = "cost.png"
_MB = 1e6


def metric_of(results: Sequence[ArmResult]) -> str:
    """Returns the metric that picks the best checkpoint of the trainings."""
    return next(each.metric for each in results if each.metric is not None)


def metric_names(results: Sequence[ArmResult]) -> list[str]:
    """Returns all metrics, the main one first."""
    names = (name for each in results for metrics in each.metrics.values() for name in metrics)
    return list(dict.fromkeys([metric_of(results), *names]))


def mean_and_spread(result: ArmResult, metric: str) -> tuple[float, float | None] | None:
    """Returns mean and sample standard deviation of a metric over seeds.

    Returns:
        The deviation is None for one value; all is None where a run does not have the metric.
    """
    values = [metrics.get(metric) for metrics in result.metrics.values()]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


def differences(results: Sequence[ArmResult]) -> dict[str, Difference]:
    """Returns the differences of the trained arms from the first of them in the main metric, over seeds in pairs."""
    metric = metric_of(results)
    first, *others = [each for each in results if each.runs]
    before = _by_seed(first, metric)
    found = {each.name: seeds_difference(metric, before, _by_seed(each, metric)) for each in others}
    return {name: difference for name, difference in found.items() if difference is not None}


def _by_seed(result: ArmResult, metric: str) -> dict[int, float]:
    values = {seed: metrics.get(metric) for seed, metrics in result.metrics.items()}
    return {seed: value for seed, value in values.items() if seed is not None and value is not None}


def as_json(results: Sequence[ArmResult]) -> dict[str, Any]:
    """Returns all of it, for `experiment.json`."""
    names = metric_names(results)
    arms: dict[str, Any] = {}
    for each in results:
        shown = {name: mean_and_spread(each, name) for name in names}
        arms[each.name] = {
            "what": each.what,
            "metrics": {
                name: None if pair is None else {"mean": pair[0], "spread": pair[1]} for name, pair in shown.items()
            },
            "runs": {str(seed): {"run": str(run), "metrics": each.metrics[seed]} for seed, run in each.runs.items()},
            "cost": each.cost,
        }
    return {
        "metric": metric_of(results),
        "arms": arms,
        "tests": {name: vars(difference) for name, difference in differences(results).items()},
    }


def cost_picture(results: Sequence[ArmResult]) -> Figure | None:
    """Draws the main metric over size and over time; None where fewer than two arms were measured."""
    from matplotlib.figure import Figure

    metric = metric_of(results)
    points = [
        (each.name, each.cost, *pair)
        for each in results
        if each.cost is not None and (pair := mean_and_spread(each, metric)) is not None
    ]
    if len(points) < 2:
        return None
    axes_of = {"MB of the export": lambda cost: cost["bytes"] / _MB}
    axes_of |= {f"ms of {size} rows": lambda cost, size=size: cost[f"ms_{size}"] for size in SIZES}
    figure = Figure(figsize=(3.4 * len(axes_of) + 0.6, 4.0), layout="constrained")
    for panel, (label, value) in zip(figure.subplots(1, len(axes_of), sharey=True), axes_of.items(), strict=True):
        for number, (name, cost, mean, spread) in enumerate(points):
            panel.errorbar(value(cost), mean, yerr=spread, fmt="o", color=f"C{number % 10}", capsize=3, label=name)
        panel.set(xlabel=label.replace("1 rows", "1 row"))
        panel.set_xlim(left=0)
    figure.axes[0].set(ylabel=metric)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure
