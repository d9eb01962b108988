"""The picture of a pruning: samples with the fitted curves, and the predicted accuracy over the budget's surface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.dimension_pruning.optimum import DIMENSIONS
from appzoo.dimension_pruning.predictor import Predictor
from easytransfer.run.atomic import atomic_path


def draw(plan: Mapping[str, Any], path: Path) -> bool:
    """Draws a plan with a predictor as PNG; returns whether it was drawn.

    Args:
        plan: Content of `pruning.json`.
        path: Target.
    """
    if "predictor" not in plan:
        return False
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    predictor = Predictor(np.array(plan["predictor"]["coefficients"]))
    points = np.array([[sample[name] for name in DIMENSIONS] for sample in plan["samples"]])
    accuracies = np.array([sample["accuracy"] for sample in plan["samples"]])
    figure = Figure(figsize=(15, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 4)
    for axis, name in enumerate(DIMENSIONS):
        others = np.delete(points, axis, axis=1)
        mine = (others == 1).all(axis=1)
        line = np.ones([100, 3])
        line[:, axis] = np.linspace(points[:, axis].min(), 1, 100)
        axes[axis].plot(line[:, axis], predictor(line), label="fitted")
        axes[axis].plot(points[mine, axis], accuracies[mine], "o", label="sample")
        axes[axis].set(xlabel=f"share of the {name}", ylabel="accuracy", title=name)
        axes[axis].legend(frameon=False)
    _surface(axes[3], predictor, points.min(axis=0), plan)
    with atomic_path(path) as draft:
        figure.savefig(draft, format="png", dpi=100)
    return True


def _surface(axes: Any, predictor: Predictor, least: np.ndarray, plan: Mapping[str, Any]) -> None:
    """Predicted accuracy over width and resolution, with the depth that fills the budget."""
    width, resolution = np.meshgrid(np.linspace(least[1], 1, 200), np.linspace(least[2], 1, 200))
    depth = plan["budget"] / (width * resolution) ** 2
    accuracy = predictor(np.stack([depth, width, resolution], axis=-1).reshape(-1, 3)).reshape(width.shape)
    accuracy[(depth > 1) | (depth < least[0])] = np.nan
    if np.isfinite(accuracy).any():
        shown = axes.contourf(width, resolution, accuracy, levels=20, cmap="viridis")
        axes.figure.colorbar(shown, ax=axes, label="predicted accuracy")
    axes.plot(plan["optimum"]["width"], plan["optimum"]["resolution"], "r*", markersize=14, label="optimum")
    axes.plot(plan["pruned"]["width"], plan["pruned"]["resolution"], "wx", label="rounded")
    title = f"budget {plan['budget']:g}, depth fills it"
    axes.set(xlabel="share of the width", ylabel="share of the resolution", title=title)
    axes.legend(loc="lower left")
