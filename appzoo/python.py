"""Training and using models in a few lines of Python, with the names of the command line.

What is behind `easytransfer.load` and `easytransfer.train`. Frames of pandas go in where tables and rows do, and
come out again; nothing here imports pandas.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from appzoo.cli.checks import check_job
from appzoo.cli.reader import JobReader
from appzoo.jobs import evaluate as evaluate_job
from appzoo.jobs import train as train_job
from appzoo.jobs.inference import outputs_in_order
from appzoo.jobs.trained import Trained, open_trained
from easytransfer.app.inputs.images import ImageInput
from easytransfer.config.fields import camel
from easytransfer.config.job import JobConfig
from easytransfer.data.row_format import MemoryFormat
from easytransfer.data.schema import Column, Schema, parse_schema
from easytransfer.data.table import BadRows, Table
from easytransfer.data.text_formats import guess_column
from easytransfer.data.writers import open_writer
from easytransfer.errors import ConfigError
from easytransfer.run.log import warn

Row = Mapping[str, Any]
# Folder of a run with the frames it was trained on.
FRAMES = "frames"
_TABLES = ("inputTable", "trainTable", "evalTable")


class Model:
    """A trained model: called with rows, measured on tables.

    Args:
        config: Configuration of its run, with what the caller changes.
        trained: The application with its weights.

    Attributes:
        columns: The columns it reads.
        labels: Class names in the order of the probabilities, None where there are none.
        result: What the training returned, None of a model that was loaded.
    """

    def __init__(self, config: JobConfig, trained: Trained) -> None:
        self._config, self._trained = config, trained
        self.columns: list[str] = trained.app.input_columns()
        self.labels: list[str] | None = trained.app.labels
        self.result: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Model({str(self._trained.source)!r}, {self._config.model_name}, reads {', '.join(self.columns)})"

    def __call__(self, rows: Any) -> Any:
        """Predicts.

        Args:
            rows: Texts, where one column is read; tuples, where several are; mappings from columns to values; or a
                frame of pandas with these columns.

        Returns:
            For each row, in order, a mapping from the columns that `predict` writes to values; of a frame a frame with
            the same index.

        Raises:
            ConfigError: A row is of another form.
            DataError: A row cannot be used, such as an image that cannot be read; its number, from 1, is named.
        """
        if isinstance(rows, (str, bytes, Mapping)):
            what = type(rows).__name__
            raise ConfigError("a model is called with several rows", received=what, fix="put it into a list")
        if not is_frame(rows):
            return self._predicted([self._row(row) for row in rows])
        found = self._predicted(rows.to_dict("records"))
        return type(rows)(found, index=rows.index) if len(found) == len(rows) else type(rows)(found)

    def evaluate(self, table: Any) -> dict[str, float]:
        """Returns the metrics of a labelled table; the run folder also gets them as a file, as of `evaluate`.

        Args:
            table: Its path, or a frame of pandas.
        """
        with tempfile.TemporaryDirectory(prefix="easytransfer-frame-") as folder:
            spec = str(_written(table, Path(folder) / "frame.jsonl"))
            data = self._config.data.model_copy(update={"input_table": spec})
            config = self._config.model_copy(update={"data": data})
            metrics: dict[str, float] = evaluate_job(config, self._trained)["metrics"]
        return metrics

    def _row(self, row: Any) -> Row:
        if isinstance(row, Mapping):
            return row
        values = row if isinstance(row, tuple) else (row,)
        if len(values) != len(self.columns):
            raise ConfigError(
                "a row has a value for each column that the model reads",
                received=f"{len(values)} of them",
                accepted=self.columns,
                fix="give tuples in this order, or mappings from columns to values",
            )
        return dict(zip(self.columns, values, strict=True))

    def _predicted(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        app, found = self._trained.app, []
        if not rows:
            return []
        table = Table(MemoryFormat(rows, self._schema(rows[0])), ["rows"], BadRows("fail"))
        table.take_text(app.text_columns())
        table.explode = app.explode
        multiple = self._trained.pad_multiple
        for chunk in table.chunks(size=app.chunk_rows):
            encoded = app.encode(chunk, False)
            outputs = outputs_in_order(encoded, self._trained.call, self._config.train.batch_size, multiple)
            columns = {name: list(values) for name, values in app.postprocess(outputs, encoded).items()}
            found += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return found

    def _schema(self, row: Row) -> Schema:
        """Returns the columns that are read: as the training declared them, else as the first row has them."""
        data = self._config.data
        declared = parse_schema(data.input_schema) if data.input_schema else Schema(())
        pictures = {part.column for part in self._trained.app.inputs if isinstance(part, ImageInput)}
        Schema(tuple(Column(name, "str") for name in row)).require(self.columns, where="the rows")

        def column(name: str) -> Column:
            if name in declared:
                return declared[name]
            return Column(name, "image") if name in pictures else guess_column(name, row[name])

        return Schema(tuple(map(column, self.columns)))


def load(path: str | os.PathLike[str], **settings: Any) -> Model:
    """Opens a trained model.

    Args:
        path: A run folder, one of its checkpoints, or an export.
        **settings: Flags of `predict`, such as `batchSize=64`.

    Raises:
        ConfigError: A setting is unknown or wrong.
        ModelError: There is no model.
    """
    config = _job("predict", {"checkpointPath": path, **settings}).config
    return Model(config, open_trained(config))


def train(**settings: Any) -> Model:
    """Trains as `easy_transfer_app train` does, and opens the model.

    Args:
        **settings: Its flags, such as `modelName="text_classify_bert"`; `set` and `advancedParameters` are mappings.
            Tables are paths, lists of them, or frames of pandas, which are kept in `frames` of the run folder.

    Raises:
        EasyTransferError: What the command ends with.
    """
    run = settings.get("checkpointDir", settings.get("checkpoint_dir"))
    tables = {name: settings[name] for name in settings if camel(name) in _TABLES}
    for name, table in tables.items():
        parts = list(table) if isinstance(table, (list, tuple)) else [table]
        if run is None and any(map(is_frame, parts)):
            raise ConfigError("frames are kept in the run folder", fix="give checkpointDir")
        paths = [_written(part, Path(str(run)) / FRAMES / f"{camel(name)}-{i}.jsonl") for i, part in enumerate(parts)]
        settings[name] = ",".join(map(str, paths))
    job = _job("train", settings)
    check_job(job)
    result = train_job(job.config)
    model = load(str(job.config.checkpoint_dir))
    model.result = result
    return model


def is_frame(value: Any) -> bool:
    """Returns whether a value is a frame of pandas, or what has the same methods."""
    return all(hasattr(value, name) for name in ("to_dict", "columns", "index"))


def _written(table: Any, path: Path) -> str | os.PathLike[str]:
    """Returns the path of a table: its own, or where a frame was written."""
    if not is_frame(table):
        return table  # type: ignore[no-any-return]
    names = [str(name) for name in table.columns]
    with open_writer(path, names, overwrite=True) as writer:
        writer.write({name: table[column].tolist() for name, column in zip(names, table.columns, strict=True)})
    return path


def _job(mode: str, settings: Mapping[str, Any]) -> Any:
    """Reads settings as the command line does."""
    notes: list[str] = []
    try:
        return JobReader(mode, [word for name, value in settings.items() for word in _words(name, value)], notes).read()
    finally:
        for note in notes:
            warn(note)


def _words(name: str, value: Any) -> Iterator[str]:
    """Yields a setting as flags."""
    if value is None:
        return
    if name == "set":
        yield from (f"--set={path}={_text(each)}" for path, each in value.items())
    elif isinstance(value, Mapping):
        yield f"--{name}={json.dumps(value)}"
    else:
        yield f"--{name}={_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    return ",".join(map(_text, value)) if isinstance(value, (list, tuple)) else str(value)
