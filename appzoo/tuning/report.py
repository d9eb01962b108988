"""What a study has found: lines while it runs, a table, pictures, a page, and the best configuration as a file."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from appzoo.tuning.space import Choices, Space, with_values
from easytransfer.config.files import dump
from easytransfer.config.job import JobConfig
from easytransfer.metrics.names import higher_is_better
from easytransfer.run.atomic import write_json, write_text
from easytransfer.run.card import table
from easytransfer.run.commands import command_line
from easytransfer.run.folder import REPORT_FILE, RunFolder
from easytransfer.run.log import say
from easytransfer.run.page import html_page
from easytransfer.run.pictures import draw_each
from easytransfer.run.report import say_where

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

BEST_CONFIG, PAGE = "best.json", "study.html"
HISTORY, PARAMETERS, IMPORTANCES = "history.png", "parameters.png", "importances.png"
PICTURES = (HISTORY, PARAMETERS, IMPORTANCES)
_BLUE, _ORANGE, _GREY = "C0", "C1", "0.5"
# Complete trials before importances say anything.
_LEAST_FOR_IMPORTANCES = 4
_WORDS = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


def shown_values(values: Mapping[str, Any]) -> str:
    """Returns settings in few characters, such as `train.learning_rate=3.1e-05`."""
    return ", ".join(
        f"{path}={value:.4g}" if isinstance(value, float) else f"{path}={value}" for path, value in values.items()
    )


def say_trial(study: optuna.Study, number: int, metric: str) -> None:
    """Says how a trial ended."""
    trials = study.get_trials(deepcopy=False)
    trial = trials[number]
    if trial.state.name == "COMPLETE":
        best = " (best so far)" if _best(trials, metric) is trial else ""
        text = f"{metric} {trial.value:.6g}{best}"
    elif trial.state.name == "PRUNED":
        at = trial.user_attrs["pruned"]
        text = f"pruned after evaluation {at}, {metric} {trial.intermediate_values[at]:.6g}"
    else:
        text = f"failed: {trial.user_attrs.get('error', 'no message')}"
    say(f"trial {number}: {text}", trial=number, state=_WORDS[trial.state.name], value=trial.value)


def write_report(
    study: optuna.Study, folder: Path, config: JobConfig, space: Space, metric: str, pictures: bool = True
) -> dict[str, Any]:
    """Writes the best configuration, pictures and the page, and says the table of the trials.

    Args:
        study: The study.
        folder: Its folder.
        config: Configuration of all trials, but for what is searched.
        space: What is searched.
        metric: What is made best.
        pictures: False for the best configuration alone.

    Returns:
        What `tune` prints; without `best` where no trial is complete.
    """
    trials = study.get_trials(deepcopy=False)
    states = Counter(_WORDS[trial.state.name] for trial in trials)
    result: dict[str, Any] = {"mode": "tune", "study": str(folder), "trials": dict(states), "metric": metric}
    best = _best(trials, metric)
    if best is not None:
        found = with_values(config, best.params, f"trial {best.number}")
        path = folder / BEST_CONFIG
        found = found.model_copy(update={"checkpoint_dir": str(folder / "best")})
        write_json(path, dump(found, "train"))
        facts = {"trial": best.number, "value": best.value, "params": dict(best.params)}
        run = folder / "trials" / f"{best.number:04d}"
        result |= {"best": {**facts, "run": str(run), "config": str(path)}}
    if not pictures or not trials:
        return result
    header, rows = _table(trials, space, metric)
    weights = _importances(study, trials)
    drawn = draw_each(
        folder,
        [
            (HISTORY, lambda: history_picture(trials, metric)),
            (PARAMETERS, lambda: parameters_picture(trials, space, metric)),
            (IMPORTANCES, lambda: importances_picture(weights, metric)),
        ],
    )
    text = _page_text(folder, metric, space, states, result, (header, rows), drawn)
    page, title = folder / PAGE, f"Study {folder.resolve().name}"
    write_text(page, html_page(title, text, {name: folder / name for name in drawn}))
    for line in _aligned(header, rows):
        say(line)
    places, commands = {"report of the study": page}, {}
    if best is not None:
        run = Path(result["best"]["run"])
        places |= {"best configuration": folder / BEST_CONFIG, "best trial": run}
        commands["train the best configuration again"] = command_line("train", config=folder / BEST_CONFIG)
        commands |= RunFolder(run).read_json(REPORT_FILE, default={}).get("commands", {})
    say_where(places, commands)
    return {**result, "report": str(page)}


def _best(trials: Sequence[FrozenTrial], metric: str) -> FrozenTrial | None:
    """Returns the best complete trial, of equal ones the first."""
    sign = 1 if higher_is_better(metric) else -1
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    return max(complete, key=lambda trial: (sign * trial.value, -trial.number), default=None)


def _table(trials: Sequence[FrozenTrial], space: Space, metric: str) -> tuple[list[str], list[list[str]]]:
    """Returns all trials, complete ones from the best to the worst, then the others by number."""
    sign = -1 if higher_is_better(metric) else 1
    order = sorted(trials, key=lambda t: (t.state.name != "COMPLETE", sign * (t.value or 0), t.number))
    rows = []
    for trial in order:
        value = trial.value if trial.state.name == "COMPLETE" else _last(trial)
        seconds = "" if trial.duration is None else f"{trial.duration.total_seconds():.0f}"
        settings = [_short(trial.params.get(path)) for path in space]
        shown = "" if value is None else f"{value:.6g}"
        rows.append([str(trial.number), _WORDS[trial.state.name], shown, *settings, seconds])
    return ["trial", "state", metric, *space, "seconds"], rows


def _last(trial: FrozenTrial) -> float | None:
    values = trial.intermediate_values
    return values[max(values)] if values else None


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]


def _importances(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Returns how much each setting matters, by PED-ANOVA (Watanabe et al., IJCAI 2023); empty for too few trials."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if len(complete) < _LEAST_FOR_IMPORTANCES or len({trial.value for trial in complete}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[str, float] = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return found


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def history_picture(trials: Sequence[FrozenTrial], metric: str) -> Figure | None:
    """Draws the metric of every trial, and the best so far; None before the first is complete."""
    complete = [(trial.number, trial.value) for trial in trials if trial.state.name == "COMPLETE"]
    if not complete:
        return None
    numbers, values = np.array(complete, np.float64).T
    best = np.maximum.accumulate(values) if higher_is_better(metric) else np.minimum.accumulate(values)
    figure = _figure(7.0, 4.2)
    axes = figure.subplots()
    axes.plot(numbers, values, "o", color=_BLUE, label="complete")
    axes.step(numbers, best, where="post", color=_ORANGE, linewidth=1.2, label="best so far")
    pruned = [(t.number, _last(t)) for t in trials if t.state.name == "PRUNED" and _last(t) is not None]
    if pruned:
        axes.plot(*np.array(pruned, np.float64).T, "x", color=_GREY, label="pruned (last evaluation)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="trial", ylabel=metric, title="Trials")
    axes.legend(frameon=False)
    return figure


def parameters_picture(trials: Sequence[FrozenTrial], space: Space, metric: str) -> Figure | None:
    """Draws the metric of complete trials over each setting."""
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if not complete:
        return None
    columns = min(3, len(space))
    lines = -(-len(space) // columns)
    figure = _figure(3.2 * columns + 0.8, 2.8 * lines + 0.4)
    panels = np.ravel(figure.subplots(lines, columns, squeeze=False, sharey=True))
    values = [trial.value for trial in complete]
    for panel, (path, dimension) in zip(panels, space.items(), strict=False):
        found = [trial.params[path] for trial in complete]
        if isinstance(dimension, Choices):
            places = [dimension.values.index(value) for value in found]
            panel.plot(places, values, "o", color=_BLUE)
            panel.set_xticks(range(len(dimension.values)), [str(value) for value in dimension.values])
        else:
            panel.plot(found, values, "o", color=_BLUE)
            if dimension.log:
                middle = (dimension.low * dimension.high) ** 0.5
                panel.set_xscale("log")
                panel.set_xticks([dimension.low, middle, dimension.high], minor=False)
                panel.set_xticklabels([f"{tick:.2g}" for tick in (dimension.low, middle, dimension.high)])
                panel.set_xticks([], minor=True)
        panel.set(xlabel=path)
    for panel in panels[len(space) :]:
        panel.set_axis_off()
    for panel in panels[::columns]:
        panel.set(ylabel=metric)
    return figure


def importances_picture(weights: Mapping[str, float], metric: str) -> Figure | None:
    """Draws how much each setting matters; None where that is not known."""
    if not weights:
        return None
    names = sorted(weights, key=lambda name: weights[name])
    figure = _figure(7.0, 1.4 + 0.4 * len(names))
    axes = figure.subplots()
    axes.barh(names, [weights[name] for name in names], color=_BLUE, height=0.6)
    axes.set(xlabel="importance (PED-ANOVA)", title=f"What decides {metric}")
    return figure


def _page_text(
    folder: Path,
    metric: str,
    space: Space,
    states: Mapping[str, int],
    result: Mapping[str, Any],
    trials: tuple[list[str], list[list[str]]],
    pictures: Sequence[str],
) -> str:
    best = result.get("best")
    lines = [f"# Study {folder.resolve().name}", ""]
    aim = "highest" if higher_is_better(metric) else "lowest"
    lines += [f"{sum(states.values())} trials: " + ", ".join(f"{n} {word}" for word, n in states.items()) + "."]
    lines += [f"Wanted: the {aim} `{metric}` of the evaluation of the exported checkpoint.", ""]
    if best:
        run = f"run folder `{best['run']}`"
        lines += [f"**Best: trial {best['trial']}, {metric} {best['value']:.6g}**, {run}", ""]
        lines += [
            *table(("setting", "best", "searched"), [(f"`{p}`", _short(best["params"][p]), space[p]) for p in space])
        ]
        lines += ["", "```bash", command_line("train", config=best["config"]), "```", ""]
    if pictures:
        lines += ["## Pictures", "", *(f"![{name.partition('.')[0]}]({name})\n" for name in pictures)]
    lines += ["## All trials", "", *table(*trials), ""]
    lines += ["The value of a trial that is not complete is that of its last evaluation.", ""]
    return "\n".join(lines)
