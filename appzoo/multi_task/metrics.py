"""Metrics of several tasks, and their mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from appzoo.multi_task.network import logits_of
from easytransfer.app.targets.labels import LabelTarget
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.row_results import RowResults

# What the mean over tasks is of, by the kind of labels.
_SCORES = {"classification": "accuracy", "regression": "pearson"}


class TasksEvaluator(Evaluator):
    """`<task>_<metric>` of every task, and `mean_score`: the mean of their accuracies and Pearson correlations.

    Where all tasks have classes, `mean_macro_f1` is that of their macro F1. Means are over the tasks that have rows.

    Args:
        numbers: Value of `task_id` by task.
        targets: What the labels of each task are.
    """

    main_metric = "mean_score"

    def __init__(self, numbers: Mapping[str, int], targets: Mapping[str, LabelTarget]) -> None:
        self._numbers = dict(numbers)
        self._kinds = {name: targets[name].kind for name in numbers}
        self._evaluators = {name: targets[name].evaluator() for name in numbers}
        self._rows = dict.fromkeys(numbers, 0)
        # Of every row the place of its task among those that are measured.
        self._places: list[np.ndarray] = []

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        places = np.zeros(len(batch["task_id"]), np.int32)
        for place, (name, evaluator) in enumerate(self._evaluators.items()):
            rows = np.flatnonzero(np.asarray(batch["task_id"]) == self._numbers[name])
            if len(rows):
                evaluator.update({"label_id": batch["label_id"][rows]}, {"logits": outputs[logits_of(name)][rows]})
                self._rows[name] += len(rows)
                places[rows] = place
        self._places.append(places)

    def state(self) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns the places of the rows' tasks, and what the tasks that have rows have collected."""
        found = {name: (rows, self._evaluators[name].state()) for name, rows in self._rows.items() if rows}
        return self._all_places(), found

    def _all_places(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int32), *self._places])

    def merge(self, state: tuple[np.ndarray, dict[str, Any]]) -> None:
        """Adds what another evaluator has collected."""
        self._places.append(state[0])
        for name, (rows, found) in state[1].items():
            self._evaluators[name].merge(found)
            self._rows[name] += rows

    def result(self) -> dict[str, float]:
        """Returns the means, then the metrics of each task; NaN for a task without rows."""
        found = {name: evaluator.result() for name, evaluator in self._evaluators.items()}
        seen = [name for name, rows in self._rows.items() if rows]
        means = {"mean_score": [found[name][_SCORES[self._kinds[name]]] for name in seen]}
        if set(self._kinds.values()) == {"classification"}:
            means["mean_macro_f1"] = [found[name]["macro_f1"] for name in seen]
        result = {name: float(np.mean(values)) if values else float("nan") for name, values in means.items()}
        return result | {f"{name}_{metric}": value for name in found for metric, value in found[name].items()}

    def row_parts(self) -> tuple[np.ndarray, dict[str, RowResults]]:
        """Returns the results of the rows of each task; those of very many classes have none."""
        results = {name: evaluator.row_results() for name, evaluator in self._evaluators.items()}
        known = [found is not None for found in results.values()]
        numbers = np.where(known, np.cumsum(known) - 1, -1)
        return numbers[self._all_places()], {name: found for name, found in results.items() if found is not None}

    def report(self) -> dict[str, Any]:
        """Returns the number of rows, and what the evaluator of each task reports."""
        tasks = {name: each.report() for name, each in self._evaluators.items() if self._rows[name]}
        return {"rows": sum(self._rows.values()), "tasks": tasks}
