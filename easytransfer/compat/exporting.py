"""Export of a user-defined application: `build_predictions(build_logits(...))` as the signature of a SavedModel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.compat.config import ModeKeys
from easytransfer.compat.hook_task import HookTask
from easytransfer.compat.hooks import Hooks
from easytransfer.compat.preprocessors import Settings, TextPreprocessor
from easytransfer.data.schema import Column, parse_schema
from easytransfer.data.table import BadRows, RowChunk, RowCount
from easytransfer.errors import ConfigError
from easytransfer.export.saved_model import export_saved_model
from easytransfer.savedmodel.signature import Signature

# Rows an export is checked on: plain, empty, non-ASCII, longer than any limit.
_TEXTS = ("as promised", "", "Überraschend gut, 质量不错", "very " * 600 + "long")
# Length of the token lists that declare none in sample rows.
_LENGTH = 8


def export_application(app: Hooks, settings: Settings, restore: Callable[[HookTask], str]) -> Path:
    """Exports the model of a checkpoint and returns the version folder.

    Args:
        app: The application, in mode `export`.
        settings: What its preprocessors take from the configuration.
        restore: Loads the weights of the checkpoint.

    Raises:
        ConfigError: `export_dir_base` is missing, or no input is known.
        ModelError: The checkpoint does not fit, or the export fails its checks.
    """
    base = app.job.export.export_dir_base
    if not base:
        raise ConfigError("export_config.export_dir_base is missing", fix="name the folder for the export")
    columns = _columns(app, "input_tensors_schema") or _columns(app, "input_schema")
    received = _columns(app, "receiver_tensors_schema")
    if not columns:
        raise ConfigError("the inputs of the model are unknown", fix="set export_config.input_tensors_schema")
    settings = replace(settings, columns=tuple(columns), encoded=settings.encoded or bool(received))
    task = HookTask(app, (ModeKeys.PREDICT,), settings)
    task.build(_sample(columns))
    source = restore(task)
    if settings.encoded or task.preprocessor is None:
        label = app.job.data.label_name
        signature = _columns_signature(task, received or [c for c in columns if c.name != label])
    else:
        signature = _text_signature(task, task.preprocessor, columns)
    report = export_saved_model(
        {"serving_default": signature},
        module=task.model,
        base=Path(base),
        name=type(app).__name__,
        assets={},
        manifest={
            "config": {**app.job.model_dump(mode="json"), "model": app.config.model_config},
            "checkpoint": source,
            "max_length": app.job.data.sequence_length,
            **({"labels": settings.labels.names} if settings.labels else {}),
        },
        max_batch_size=app.job.export.max_batch_size,
        flat=True,
    )
    return report.path


def _columns(app: Hooks, key: str) -> list[Column]:
    schema = getattr(app, key, None)
    return list(parse_schema(schema)) if schema else []


def _sample(columns: list[Column]) -> RowChunk:
    """Returns rows with plausible cells: texts, ones for numbers (a position that is there, a known token)."""
    rows = len(_TEXTS)
    cells = {c.name: list(_TEXTS) if c.type == "str" else [_number(c, row) for row in range(rows)] for c in columns}
    index = np.arange(rows)
    return RowChunk(
        cells,
        file="<sample>",
        lines=index,
        index=index,
        texts=[""] * rows,
        count=RowCount(),
        bad_rows=BadRows("skip"),
    )


def _number(column: Column, row: int) -> Any:
    value = 1 if column.type == "int" else 0.25 * row
    return [value] * (column.length or _LENGTH) if column.is_list or column.length is None else value


def _columns_signature(task: HookTask, received: list[Column]) -> Signature:
    """Returns a signature on the columns themselves; lists may have any length."""
    kinds = {"int": (tf.int32, np.int32), "float": (tf.float32, np.float32), "base64": (tf.float32, np.float32)}
    specs, samples, cells = {}, {}, _sample(received).columns
    for column in received:
        kind, array = kinds.get(column.type, (tf.string, object))
        shape = (
            [None, None if column.type == "int" else column.length]
            if isinstance(cells[column.name][0], list)
            else [None]
        )
        specs[column.name] = tf.TensorSpec(shape, kind)
        samples[column.name] = np.array(cells[column.name], array)
    return Signature(lambda **inputs: task.predictions(inputs), specs, samples, "columns as declared")


def _text_signature(task: HookTask, preprocessor: TextPreprocessor, columns: list[Column]) -> Signature:
    """Returns a signature on raw texts, by the names of their columns, and the appended columns."""
    graph, data = preprocessor.graph(), task.settings.data
    texts = [name for name in (data.first_sequence, data.second_sequence) if name]
    appended = [column for column in columns if column.name in task.settings.append]
    rest = _columns_signature(task, appended)

    def serve(**inputs: tf.Tensor) -> dict[str, Any]:
        tokens = preprocessor.serve(graph, {name: inputs[name] for name in texts})
        return task.predictions({**tokens, **{column.name: inputs[column.name] for column in appended}})

    specs = {**{name: tf.TensorSpec([None], tf.string) for name in texts}, **rest.inputs}
    samples = {name: np.array(_TEXTS[::turn], object) for name, turn in zip(texts, (1, -1), strict=False)}
    return Signature(serve, specs, {**samples, **rest.samples}, "raw text", graph)
