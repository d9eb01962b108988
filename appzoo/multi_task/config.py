"""Configuration of several tasks on one encoder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import ValidationError, field_validator, model_validator

from appzoo.settings import EncoderSettings, LoraSettings
from easytransfer.config.encoding import encoding_name
from easytransfer.config.job import NO_CLASSES, DataConfig, JobConfig
from easytransfer.config.json_text import parse_json
from easytransfer.config.schema import ConfigModel, setting
from easytransfer.errors import ConfigError, DataError, did_you_mean

# What a task says of its tables, or `data` for all tasks.
COLUMNS = ("first_sequence", "second_sequence", "label_name")
SHARED = ("input_schema", *COLUMNS, "label_enumerate_values", "delimiter", "header", "encoding")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
# Signatures of an export, and what metrics of all tasks begin with.
_TAKEN = ("serving_default", "predict_ids", "mean")


class TaskSettings(ConfigModel):
    """One task: its tables, its columns, its labels."""

    train_table: str | None = setting(None, "Training table.", path="list")
    eval_table: str | None = setting(None, "Table that is evaluated during training.", path="list")
    input_schema: str | None = setting(None, "Column declaration `name:type:length,...`.")
    first_sequence: str | None = setting(None, "Column with the text.")
    second_sequence: str | None = setting(None, "Column with the second text of a pair.")
    label_name: str | None = setting(None, "Label column.")
    label_enumerate_values: str | None = setting(
        None, "Class names: comma list, or a file with one per line; `none` predicts numbers.", path="one"
    )
    delimiter: str | None = setting(None, "Field separator of text tables.")
    header: Literal["none", "skip", "names"] | None = setting(None, "What the first line is.")
    encoding: str | None = setting(None, "Encoding of text tables.")
    weight: float = setting(1.0, "What the loss of the task is multiplied by.", gt=0)

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        return None if value is None else encoding_name(value)


class TaskDataConfig(DataConfig, optional=["input_schema", "first_sequence", "label_name"]):
    """The tasks, with their tables, columns and labels."""

    tasks: dict[str, TaskSettings] | None = setting(
        None,
        "The tasks by name, each with train_table, eval_table, and what is not the same for all: input_schema, "
        "first_sequence, second_sequence, label_name, label_enumerate_values, delimiter, header, encoding, weight.",
        required="T",
    )
    task: str | None = setting(
        None, "Task that inputTable is for; default: tables are those that data.tasks has.", modes="EP"
    )
    train_table: str | None = setting(None, "Taken from data.tasks.", modes="T", path="list")
    eval_table: str | None = setting(None, "Taken from data.tasks.", modes="T", path="list")
    input_table: str | None = setting(
        None,
        "Input table; in evaluate by default the evaluation tables of the tasks; in export labelled ones of them, to "
        "compare weights on.",
        aliases=("tables",),
        modes="EPXS",
        required="PS",
        path="list",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_tasks(cls, values: Any) -> Any:
        """Fills in the tables of the tasks, and what the task that is named says of its columns."""
        if not isinstance(values, Mapping) or not values.get("tasks"):
            return values
        tasks = _read_tasks(values["tasks"])
        found = {**values, "tasks": tasks}
        for name in ("train_table", "eval_table"):
            every = ",".join(getattr(task, name) for task in tasks.values())
            if values.get(name) not in (None, "", every):
                raise ValueError(f"data.{name} has no meaning beside data.tasks, where every task has its own")
            found[name] = every
        chosen = values.get("task")
        if chosen and chosen not in tasks:
            near = did_you_mean(str(chosen), tasks)
            raise ValueError(f"data.task is none of the tasks; got {chosen!r}; accepted: {', '.join(tasks)}; {near}")
        for name in SHARED:
            given = values.get(name) not in (None, "", DataConfig.model_fields[name].default)
            saying = [task for task, each in tasks.items() if getattr(each, name) is not None]
            if chosen:
                own = getattr(tasks[chosen], name)
                found |= {name: own} if own is not None and not given else {}
            elif given and saying:
                raise ValueError(f"{name} is given for all tasks and for the task {saying[0]}; give one of them")
        for name, task in tasks.items():
            of_all = {key: values.get(key) for key in SHARED}
            for key in ("first_sequence", "label_name", "label_enumerate_values"):
                if not getattr(task, key) and not of_all[key]:
                    raise ValueError(f"the task {name} has no {key}; give it in data.tasks, or in data for all tasks")
            if (task.label_enumerate_values or of_all["label_enumerate_values"]) == "auto":
                raise ValueError(f"the task {name}: label_enumerate_values takes names, a file or none; got 'auto'")
        return found

    def settings_of(self, task: str) -> DataConfig:
        """Returns how the tables of a task are read."""
        own = (self.tasks or {})[task]
        said = {name: getattr(own, name) for name in SHARED if getattr(own, name) is not None}
        return DataConfig(**{name: getattr(self, name) for name in (*SHARED, "escape")} | said)

    def task_of(self, file: str) -> str:
        """Returns the task that a file of a table is of.

        Raises:
            ConfigError: It is in the tables of none, or of several.
        """
        if self.task:
            return self.task
        place = os.path.realpath(file)
        found = [name for name, task in (self.tasks or {}).items() if place in _places(task)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(
                f"{file} is a table of the tasks {' and '.join(found)}",
                fix="give each task files of its own, such as a copy with another name",
            )
        raise ConfigError(
            f"{file} is no table of a task", accepted=list(self.tasks or ()), fix="name its task with --task=NAME"
        )

    def by_file(self, files: Iterable[str]) -> Mapping[str, DataConfig]:
        """Returns how each file is read, by its task; empty where one task is named."""
        return {} if self.task or not self.tasks else {file: self.settings_of(self.task_of(file)) for file in files}


def _places(task: TaskSettings) -> set[str]:
    """Returns the files of the tables of a task that are there."""
    from easytransfer.data.files import expand

    found: set[str] = set()
    for table in (task.train_table, task.eval_table):
        try:
            found |= {os.path.realpath(file) for file in expand(str(table))}
        except DataError:
            continue  # told where it is read
    return found


def _read_tasks(values: Any) -> dict[str, TaskSettings]:
    """Returns the tasks in the order of their names.

    Raises:
        ValueError: They cannot be told apart, or one has no table; the message says which.
    """
    if isinstance(values, str):
        values = parse_json(values)
    if not isinstance(values, Mapping) or len(values) < 2:
        raise ValueError("data.tasks takes two tasks or more, by their names; one alone is text_classify_bert's")
    names = sorted(map(str, values))
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"a task has a name of a-z, 0-9 and _ that begins with a letter; got {name!r}")
        begins = [other for other in (*_TAKEN, *names) if name.startswith(f"{other}_")]
        if clash := next(iter(begins), name if name in _TAKEN else ""):
            raise ValueError(f"the name of the task {name!r} cannot be told from {clash!r} in metrics; take another")
    tasks = {}
    for name in names:
        try:
            tasks[name] = TaskSettings.model_validate(values[name])
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            near = did_you_mean(key, TaskSettings.model_fields) if first["type"] == "extra_forbidden" else ""
            what = f"data.tasks.{name}.{key}".rstrip(".")
            raise ValueError(f"{what}: {first['msg']}; got {first['input']!r}{near and '; ' + near}") from None
        for table in ("train_table", "eval_table"):
            if not getattr(tasks[name], table):
                raise ValueError(f"the task {name} has no {table}")
    return tasks


class SamplingSettings(ConfigModel):
    """How often each task comes (Raffel et al. 2020, arXiv 1910.10683, section 3.5.2)."""

    temperature: float = setting(
        1.0,
        "Rates are the shares of the rows to the power 1/T: 1 is proportional, larger ones are more equal.",
        advanced=True,
        modes="T",
        gt=0,
    )
    limit: int | None = setting(
        None, "Rows of a task that count at most, K of the paper; default all.", advanced=True, modes="T", ge=1
    )


class MultiTaskSettings(EncoderSettings, LoraSettings):
    """Encoder and heads."""


class MultiTaskConfig(JobConfig):
    """Learn several tasks on texts or pairs of texts with one encoder and a head for each."""

    data: TaskDataConfig = TaskDataConfig()
    model: MultiTaskSettings = MultiTaskSettings()
    sampling: SamplingSettings = SamplingSettings()

    def evaluated_tables(self) -> str | None:
        """Returns the input table, or the evaluation tables of the tasks, of the one that is named alone."""
        data = self.data
        if data.input_table or not data.tasks:
            return data.input_table
        return data.tasks[data.task].eval_table if data.task else data.eval_table

    @model_validator(mode="after")
    def _check_labels(self) -> MultiTaskConfig:
        if self.train.class_weights is not None:
            raise ValueError("train.class_weights is for one task; remove it, data.tasks.NAME.weight weighs a task")
        if self.data.tasks and self.train.label_smoothing:
            kinds = {self.data.settings_of(name).label_enumerate_values for name in self.data.tasks}
            if kinds == {NO_CLASSES}:
                raise ValueError("train.label_smoothing is for tasks with classes, and there are none; remove it")
        return self


VARIANTS = {"": MultiTaskConfig}
