"""Pictures of a run: learning curve, confusion matrix, F1 per class, predicted against true values, match scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easytransfer.installing import install_line
from easytransfer.run import log
from easytransfer.run.atomic import atomic_path
from easytransfer.run.history import read_history

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEARNING_CURVE = "learning_curve.png"
CONFUSION_MATRIX = "confusion_matrix.png"
CLASS_SCORES = "class_scores.png"
PREDICTED_TRUE = "predicted_true.png"
SCORES = "scores.png"
ROBUSTNESS = "robustness.png"
PICTURES = (LEARNING_CURVE, CONFUSION_MATRIX, CLASS_SCORES, PREDICTED_TRUE, SCORES, ROBUSTNESS)
_DPI = 120
_MOST_CELLS_WITH_NUMBERS = 20  # classes; above, numbers would be too small to read
_MOST_TICKS = 40
_LONGEST_LABEL = 24
# Tried in this order for labels the default font cannot draw.
_CJK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "Arial Unicode MS"),
)
_BLUE, _ORANGE, _GREY = "#2563a8", "#d9730d", "#8a8a8a"


def draw_pictures(folder: str | os.PathLike[str], report: Mapping[str, Any], metric: str) -> list[str]:
    """Draws what the run has data for into its folder.

    Args:
        folder: Run folder with `metrics.jsonl`.
        report: An evaluator's `report()`: `labels` with `confusion` (of `confusion_of`, default rows) or
            `per_class`, `pairs`, `scores`; an application's `robustness`.
        metric: The metric that picks the best checkpoint.

    Returns:
        File names, the learning curve first; empty (and one log line) without matplotlib.
    """
    folder = Path(folder)
    wanted: list[tuple[str, Callable[[], Figure | None]]] = [
        (LEARNING_CURVE, lambda: learning_curve(read_history(folder), metric)),
    ]
    if "confusion" in report:
        counts, unit = np.array(report["confusion"]), report.get("confusion_of", "rows")
        wanted.append((CONFUSION_MATRIX, lambda: confusion_picture(counts, report["labels"], unit)))
    # Where the matrix counts something else, such as words, the scores are not to be read from it.
    if "per_class" in report and ("confusion" not in report or "confusion_of" in report):
        wanted.append((CLASS_SCORES, lambda: class_scores(report["per_class"])))
    if "pairs" in report:
        wanted.append((PREDICTED_TRUE, lambda: predicted_against_true(**report["pairs"])))
    if "scores" in report:
        wanted.append((SCORES, lambda: score_picture(report["scores"])))
    return draw_each(folder, wanted) + draw_further(folder, report)


def draw_further(folder: str | os.PathLike[str], report: Mapping[str, Any], suffix: str = "") -> list[str]:
    """Draws what an application measured beside its metrics; returns the file names, `suffix` before their ending."""
    if "robustness" not in report:
        return []
    name = ROBUSTNESS.replace(".", f"{suffix}.")
    return draw_each(Path(folder), [(name, lambda: robustness_picture(report["robustness"]))])


def draw_each(folder: Path, wanted: Sequence[tuple[str, Callable[[], Figure | None]]]) -> list[str]:
    """Draws pictures into their files and returns the names of those there was something to draw for."""
    if not wanted:
        return []
    try:
        import matplotlib
    except ImportError:
        log.say(f"no pictures drawn: matplotlib is missing; install it with: {install_line('plot')}")
        return []
    drawn = []
    with matplotlib.rc_context({"font.family": _families()}):
        for name, draw in wanted:
            figure = draw()
            if figure is not None:
                with atomic_path(folder / name) as temporary:
                    figure.savefig(temporary, format="png", dpi=_DPI)
                drawn.append(name)
    return drawn


def learning_curve(history: Sequence[Mapping[str, Any]], metric: str) -> Figure | None:
    """Draws training loss, evaluation loss and the main metric by step; None where no curve has two points.

    Args:
        history: Records of `metrics.jsonl`.
        metric: Evaluation metric of the lower plot.
    """
    train, evaluation = _curve(history, "step", "loss"), _curve(history, "evaluation", "loss")
    score = _curve(history, "evaluation", metric)
    if max(len(train), len(evaluation), len(score)) < 2:
        return None
    scored = len(score) > 1
    figure = _figure(7.0, 5.5 if scored else 3.2)
    panels = np.ravel(figure.subplots(1 + scored, 1, sharex=True))
    upper, lower = panels[0], panels[-1]
    upper.plot(*train.T, color=_BLUE, linewidth=1.2, label="training (mean since the last point)")
    if len(evaluation):
        upper.plot(*evaluation.T, color=_ORANGE, marker="o", label="evaluation")
    upper.set(ylabel="loss")
    upper.legend(frameon=False)
    lower.set(xlabel="optimizer step")
    if not scored:
        return figure
    lower.plot(*score.T, color=_ORANGE, marker="o")
    for step, value in score:
        lower.annotate(
            f"{value:.4g}", (step, value), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8
        )
    lower.margins(y=0.2)
    lower.set(ylabel=f"evaluation {metric}")
    return figure


def confusion_picture(counts: np.ndarray, labels: Sequence[str], unit: str = "rows") -> Figure:
    """Draws a confusion matrix: colour = share of the true class, number = rows.

    Args:
        counts: Rows by [true class, predicted class].
        labels: Class names.
        unit: What is counted.
    """
    size = float(np.clip(2.8 + 0.45 * len(labels), 4.2, 14))
    figure = _figure(size + 1.2, size)
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
    if len(labels) <= _MOST_CELLS_WITH_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=color, fontsize=9)
    names, by_index = tick_labels(labels)
    shown = np.arange(0, len(labels), -(-len(labels) // _MOST_TICKS))
    short = sum(len(names[i]) for i in shown) <= 16 + 2 * len(shown)
    axes.set_xticks(shown, [names[i] for i in shown], rotation=0 if short else 45, ha="center" if short else "right")
    axes.set_yticks(shown, [names[i] for i in shown])
    note = " (class id, see label_mapping.json)" if by_index else ""
    title = f"Confusion matrix, {counts.sum():,} {unit}, {np.trace(counts) / max(counts.sum(), 1):.2%} right"
    axes.set(xlabel=f"predicted{note}", ylabel=f"true{note}", title=title)
    return figure


def class_scores(per_class: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws precision, recall and F1 of every class (the most frequent ones if there are many)."""
    chosen = sorted(per_class, key=lambda row: -row["support"])[:_MOST_TICKS]
    names, by_index = tick_labels([row["label"] for row in chosen])
    if by_index:
        position = {row["label"]: str(number) for number, row in enumerate(per_class)}
        names = [position[row["label"]] for row in chosen]
    figure = _figure(7.0, 1.8 + 0.32 * len(chosen))
    axes = figure.subplots()
    places = np.arange(len(chosen))
    axes.barh(places, [row["f1"] for row in chosen], color="#b7cde6", height=0.6, label="F1")
    axes.plot([row["precision"] for row in chosen], places, "o", color=_ORANGE, label="precision")
    axes.plot([row["recall"] for row in chosen], places, "x", color="black", label="recall")
    rows = [f"{name} ({row['support']})" for name, row in zip(names, chosen, strict=True)]
    axes.set_yticks(places, rows)
    axes.invert_yaxis()
    note = ", class id (see label_mapping.json)" if by_index else ""
    axes.set(xlim=(0, 1), xlabel="score", ylabel=f"class{note} (true rows)", title="Scores per class")
    figure.legend(frameon=False, loc="outside lower center", ncols=3)
    return figure


def predicted_against_true(true: Sequence[float], predicted: Sequence[float]) -> Figure:
    """Draws predicted against true values, and how both are distributed."""
    figure = _figure(9.0, 4.2)
    left, right = figure.subplots(1, 2)
    low, high = min(*true, *predicted), max(*true, *predicted)
    left.plot([low, high], [low, high], color=_GREY, linewidth=1, label="perfect")
    left.plot(true, predicted, ".", color=_BLUE, alpha=0.5, label="rows")
    left.set(xlabel="true value", ylabel="predicted value", title="Predicted against true")
    left.legend(frameon=False)
    bins = np.linspace(low, high, 31) if high > low else 1
    right.hist([true, predicted], bins=bins, color=[_GREY, _ORANGE], label=["true", "predicted"])
    right.set(xlabel="value", ylabel="rows", title="Distribution")
    right.legend(frameon=False)
    return figure


def score_picture(scores: Mapping[str, Any]) -> Figure:
    """Draws how the scores of both classes of pairs are distributed, and the threshold between them.

    Args:
        scores: As `appzoo.text_match.metrics.score_histogram` returns them.
    """
    edges = np.array(scores["edges"])
    names, by_index = tick_labels(list(scores["counts"]))
    figure = _figure(7.0, 4.2)
    axes = figure.subplots()
    for name, counts, color in zip(names, scores["counts"].values(), (_GREY, _ORANGE), strict=True):
        label = f"{'class id ' if by_index else ''}{name} ({sum(counts)} rows)"
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=color, alpha=0.6, label=label)
    axes.axvline(scores["threshold"], color="black", linewidth=1, linestyle="--", label="threshold")
    axes.set(xlim=(edges[0], edges[-1]), xlabel=scores["name"], ylabel="rows", title="Scores by true class")
    axes.legend(frameon=False)
    return figure


def robustness_picture(robustness: Mapping[str, Any]) -> Figure:
    """Draws accuracy over the radius of an attack, and accuracy under other attacks at one radius.

    Args:
        robustness: As `attacks.report` measures it.
    """
    figure = _figure(7.0, 4.2)
    axes = figure.subplots()
    radii, accuracy = ([point[name] for point in robustness["curve"]] for name in ("epsilon", "accuracy"))
    axes.plot(radii, accuracy, color=_BLUE, marker="o", label=robustness["curve_attack"])
    epsilon = robustness["epsilon"]
    axes.axvline(epsilon, color=_GREY, linewidth=1, linestyle="--")
    for (name, value), marker in zip(robustness["attacks"].items(), cycle("sxD^v<>"), strict=False):
        if name != robustness["curve_attack"]:
            axes.plot([epsilon], [value], color=_ORANGE, marker=marker, linestyle="", label=f"{name} at {epsilon:.4g}")
    # Radii go from the invisible to a ball of all images.
    axes.set_xscale("symlog", linthresh=min(radius for radius in radii if radius > 0))
    axes.set(ylim=(0, 1), xlabel=f"radius ({robustness['norm']})", ylabel=f"accuracy, {robustness['rows']} rows")
    axes.set_title("Accuracy under attack")
    axes.legend(frameon=False)
    return figure


def tick_labels(labels: Sequence[str]) -> tuple[list[str], bool]:
    """Returns names to write on an axis, and whether they are class ids because no font has the characters.

    Long names are shortened in the middle. A `$` is escaped, as it would start a formula.
    """
    characters = {character for label in labels for character in str(label)}
    if not characters <= _drawable():
        return [str(number) for number in range(len(labels))], True
    return [_shortened(str(label)).replace("$", r"\$") for label in labels], False


def _shortened(label: str) -> str:
    half = _LONGEST_LABEL // 2
    return label if len(label) <= _LONGEST_LABEL else f"{label[: half - 1]}…{label[-half:]}"


@lru_cache
def _families() -> list[str]:
    """Returns the installed fonts to draw with: the default and, where there is one, a font with CJK characters."""
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *[name for name in _CJK_FONTS if name in installed][:1]]


@lru_cache
def _drawable() -> frozenset[str]:
    """Returns the characters these fonts have a glyph for."""
    from matplotlib import font_manager

    paths = [font_manager.findfont(family) for family in _families()]
    return frozenset(chr(code) for path in paths for code in font_manager.get_font(path).get_charmap())


def _figure(width: float, height: float) -> Figure:
    """Returns a figure that belongs to no window system and no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _curve(history: Sequence[Mapping[str, Any]], event: str, name: str) -> np.ndarray:
    points = [(line["step"], line[name]) for line in history if line["event"] == event and line.get(name) is not None]
    return np.array(points, np.float64).reshape(-1, 2)
