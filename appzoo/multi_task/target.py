"""Labels of all tasks: classes of one, a number of another."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.multi_task.config import MultiTaskConfig
from appzoo.multi_task.inputs import TASK
from appzoo.multi_task.metrics import TasksEvaluator
from appzoo.multi_task.network import logits_of
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.app.targets.labels import LabelTarget, Score, SingleLabel
from easytransfer.config.job import NO_CLASSES
from easytransfer.config.json_text import parse_json
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.labels import LabelMap
from easytransfer.data.table import RowChunk
from easytransfer.errors import ModelError
from easytransfer.run.atomic import write_text
from easytransfer.run.log import say
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

TASKS_FILE = "tasks.json"


class TaskLabels(Target):
    """A class or a number per row, `label_id` float32 [batch], and the number of its task, `task_id` int32 [batch].

    Args:
        config: Of the job.
        folder: Run folder or assets of an export; None takes the labels that the configuration names.

    Attributes:
        targets: What the labels of each task are, by its name; numbers of tasks are places in it.

    Raises:
        ModelError: The folder has no labels of the tasks.
    """

    encoded_columns: ClassVar[tuple[str, ...]] = ("label_id", "task_id")
    asset_files: ClassVar[tuple[str, ...]] = (TASKS_FILE,)

    def __init__(self, config: MultiTaskConfig, folder: Path | None) -> None:
        self._data = config.data
        tasks = self._data.tasks or {}
        names = _labels_of_run(folder) if folder is not None else {}
        self._weights = {name: task.weight for name, task in tasks.items()}
        self.targets: Mapping[str, LabelTarget] = {}
        for name in tasks:
            settings = self._data if self._data.task == name else self._data.settings_of(name)
            if folder is None:
                spec = str(settings.label_enumerate_values)
                # `auto` alone, which is refused, would look into the table.
                labels = None if spec == NO_CLASSES else LabelMap.parse(spec, Counter, numbers=True)
            else:
                labels = None if names[name] is None else LabelMap(names[name])
            target: LabelTarget = Score() if labels is None else SingleLabel(labels)
            target.column, target.label_smoothing = str(settings.label_name), config.train.label_smoothing
            self.targets[name] = target
        self._numbers = {name: number for number, name in enumerate(self.targets)}

    @property
    def _read(self) -> list[str]:
        """The tasks whose tables are read: all, or the one that is named."""
        return [self._data.task] if self._data.task else list(self.targets)

    def table_columns(self) -> list[str]:
        """Returns the label columns of the tasks."""
        return list(dict.fromkeys(self.targets[name].column for name in self._read))

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns `label_id` and `task_id` of a file, which is of one task."""
        task = self._data.task_of(chunk.file)
        labels = np.asarray(self.targets[task].read_column(chunk), np.float32)
        return Encoded({"label_id": labels, "task_id": np.full(len(labels), self._numbers[task], np.int32)})

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns `<task>_loss` of every task: weight times the sum over its rows, by the number of its rows."""
        found: Losses = {}
        for name, target in self.targets.items():
            mine = batch["task_id"] == self._numbers[name]
            rows = batch["example_weight"] * tf.cast(mine, tf.float32)
            # Labels of other tasks are no classes of this one.
            labels = tf.where(mine, batch["label_id"], 0.0)
            labels = labels if target.names is None else tf.cast(labels, tf.int32)
            total = target.loss_sum(labels, outputs[logits_of(name)], rows)
            found[f"{name}_loss"] = Loss(self._weights[name] * total, tf.reduce_sum(rows))
        return found

    def evaluator(self) -> TasksEvaluator:
        """Returns the metrics of the tasks that are read."""
        return TasksEvaluator({name: self._numbers[name] for name in self._read}, self.targets)

    def output_columns(self) -> tuple[str, ...]:
        """Returns the columns of the task that is named, or of all tasks with the task of each row."""
        if self._data.task:
            return self.targets[self._data.task].output_columns()
        return (TASK, "predictions", "probabilities", "logits")

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns what the head of its task answers for each row.

        Where rows are of several tasks, predictions are text, and rows with a number have no probability.
        """
        if self._data.task:
            return self.targets[self._data.task].columns(outputs[logits_of(self._data.task)])
        tasks = np.array([encoded.columns[TASK][row] for row in range(len(encoded))], object)
        found: dict[str, list[Any]] = {name: [[]] * len(tasks) for name in self.output_columns()}
        found[TASK] = tasks.tolist()
        for name, target in self.targets.items():
            rows = np.flatnonzero(tasks == name)
            for column, values in target.columns(outputs[logits_of(name)][rows]).items():
                for row, value in zip(rows, values, strict=True):
                    found[column][row] = str(value) if column == "predictions" else value
        return found

    def answer_of(self, task: str, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns, inside a graph, what a server answers for a task."""
        return self.targets[task].answer({"logits": outputs[logits_of(task)]})

    def on_train_table(self, train: EncodedTable) -> None:
        """Says how many rows each task has."""
        counts = np.bincount(np.asarray(train.columns["task_id"]), minlength=len(self.targets))
        shown = (f"{name} {count:,}" for name, count in zip(self.targets, counts, strict=True))
        say(f"training rows: {', '.join(shown)}")

    def save_assets(self, folder: Path) -> None:
        """Writes the labels of the tasks."""
        names = {name: target.names for name, target in self.targets.items()}
        write_text(folder / TASKS_FILE, json.dumps(names, ensure_ascii=False, indent=2) + "\n")


def _labels_of_run(folder: Path) -> dict[str, list[str] | None]:
    """Returns the class names of each task, None for a number."""
    try:
        found: dict[str, list[str] | None] = parse_json((folder / TASKS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} has no {TASKS_FILE}: {error}", fix="take a run of multi_task") from None
    return found
