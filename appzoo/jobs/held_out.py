"""The evaluation table of a training that was given none: rows of its training table, recorded and written down."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.jobs.tables import input_columns, open_input
from easytransfer.app.contract import App
from easytransfer.app.inputs.images import ImageInput
from easytransfer.app.targets.labels import LabelTarget
from easytransfer.config.job import JobConfig
from easytransfer.data.files import stamps
from easytransfer.data.formats import form_of
from easytransfer.data.held_out import HeldOut, Row, TablePart, hold_out
from easytransfer.data.label_names import class_name
from easytransfer.data.schema import parse_schema
from easytransfer.data.squad_format import write_questions
from easytransfer.data.table import BadRows, RowChunk, Table, open_table
from easytransfer.data.writers import open_writer
from easytransfer.errors import ConfigError
from easytransfer.image.files import data_text
from easytransfer.run.atomic import write_json
from easytransfer.run.log import say, warn

# Folder of a run with the two tables, and the file there that says how they were made.
FOLDER, RECORD = "held_out", "held_out.json"
_ROW = "table_row"


def evaluation_table(config: JobConfig) -> str:
    """Returns the evaluation table of a training, or where its rows are written."""
    data = config.data
    return data.eval_table or str(_file(config, "eval"))


def held_out_rows(config: JobConfig) -> HeldOut | None:
    """Returns which rows of the training table are held out; None where there is an evaluation table.

    Rows that cannot be read are not held out: they are told of, or stop the job, where the training table is read.

    Raises:
        DataError: There are too few rows.
    """
    data = config.data
    if data.eval_table is not None:
        return None
    schema = parse_schema(data.input_schema) if data.input_schema else None
    found = hold_out(lambda: _cells(config, schema), data.eval_share, config.runtime.seed)
    every, held = (sum(counts[i] for counts in found.counts.values()) for i in (0, 1))
    classes = len(found.counts) if list(found.counts) != [""] else 0
    how = f"by {data.label_name} ({classes} classes)" if classes else "at random"
    say(f"no evalTable: {held:,} of {every:,} rows are held out for evaluation, {how}; evalShare={data.eval_share:g}")
    if missing := [label for label, (_, count) in found.counts.items() if not count]:
        warn(f"classes with too few rows for one to be held out: {', '.join(sorted(missing)[:10])}")
    return found


def _cells(config: JobConfig, schema: Any) -> Iterator[Row]:
    """Yields the number, label and first text of every row that has them."""
    data = config.data
    table = open_table(str(data.train_table), schema=schema, data=data, bad_rows=BadRows("skip"))
    # What is no text, such as pictures and vectors, has nothing in common; columns that are not there are told later.
    usable = {column.name for column in table.schema if column.type not in ("image", "base64")}
    label, first = (name if name in usable else None for name in (data.label_name or "label_id", data.first_sequence))
    label = label if config.held_out_by_label else None
    names = [name for name in (label, first) if name]
    if schema is None and names:
        table.narrow(names)
    table.take_text(dict.fromkeys(names, "json"))
    for chunk in table.chunks():
        chunk = chunk.compact()
        blank = [""] * len(chunk.index)
        labels, texts = (chunk.columns[name] if name else blank for name in (label, first))
        yield from zip(chunk.index.tolist(), map(class_name, labels), texts, strict=True)


def write_parts(app: App, found: HeldOut) -> dict[str, Any]:
    """Writes both parts of the training table into the run folder, unless an earlier start has, and returns the record.

    The tables have the columns that the application reads and the number of each row in the training table, from 1;
    paths of pictures are absolute, and pictures that are bytes are `data:` text.

    Raises:
        ConfigError: An earlier start held out other rows, or the table cannot be written in rows.
    """
    config = app.config
    data = config.data
    record = {
        "table": data.train_table,
        "files": stamps(_open(app, None).files),
        "share": data.eval_share,
        "seed": config.runtime.seed,
        "by": data.label_name if list(found.counts) != [""] else None,
        "rows": {label: {"all": every, "held_out": held} for label, (every, held) in found.counts.items()},
        "train": str(_file(config, "train")),
        "eval": str(_file(config, "eval")),
    }
    place = Path(str(config.checkpoint_dir)) / FOLDER / RECORD
    if before := held_out_record(config):
        for name in ("share", "seed", "rows"):
            if before[name] != json.loads(json.dumps(record[name])):
                raise ConfigError(
                    f"the run has held out rows with another {name}: these would now be trained on",
                    received=str(record[name]),
                    accepted=str(before[name]),
                    fix="set it back, or start a new run: --overwrite or another checkpointDir",
                )
        return before
    place.parent.mkdir(parents=True, exist_ok=True)
    for name, evaluation in (("train", False), ("eval", True)):
        _write(app, found.part(evaluation), _file(config, name))
    write_json(place, record)
    say(f"rows held out: {record['eval']}; the others: {record['train']}")
    return record


def held_out_record(config: JobConfig) -> dict[str, Any] | None:
    """Returns what `write_parts` has written of a run, None where nothing was held out."""
    place = Path(str(config.checkpoint_dir)) / FOLDER / RECORD
    if config.data.eval_table is not None or not place.is_file():
        return None
    record: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return record


def _file(config: JobConfig, name: str) -> Path:
    suffix = ".json" if form_of(str(config.data.train_table)) == "squad" else ".jsonl"
    return Path(str(config.checkpoint_dir)) / FOLDER / f"{name}{suffix}"


def _open(app: App, part: TablePart | None) -> Table:
    spec = str(app.config.data.train_table)
    table = open_input(app, spec, input_columns(app, spec, True), BadRows("skip"))
    table.part, table.explode = part, None
    return table


def check_divisible(app: App) -> None:
    """Refuses a table whose rows could not be written down: columns that are files of other kinds than pictures.

    Raises:
        ConfigError: The application reads such columns.
    """
    table = _open(app, None)
    pictures = _picture_columns(app)
    known = {*app.text_columns(), *pictures}
    labels = app.label_inputs()
    # Beside pictures a label may be the path of a map, or an identity that must not be in both parts.
    if isinstance(app.target, LabelTarget) or not pictures:
        known |= {*labels}
    strange = [name for name in (*app.input_columns(), *labels) if name not in known and name in table.schema]
    arrays = [file for file in table.files if file.endswith(".npz") or "ubyte" in file or ".npz#" in file]
    if strange or arrays:
        raise ConfigError(
            f"{app.config.model_name} needs a table for evaluation: "
            f"rows with {'arrays' if arrays else 'the column ' + repr(strange[0])} are not divided",
            received=app.config.data.train_table,
            fix="give --evalTable=TABLE",
        )


def _picture_columns(app: App) -> set[str]:
    return {part.column for part in app.inputs if type(part) is ImageInput}


def _write(app: App, part: TablePart, path: Path) -> None:
    table = _open(app, part)
    if path.suffix == ".json":
        write_questions(path, (row for chunk in table.chunks() for row in _rows(chunk.compact())))
        return
    names, pictures = list(table.schema.names), _picture_columns(app)
    number = _ROW
    while number in names:
        number += "_"
    with open_writer(path, [number, *names], overwrite=True) as writer:
        for chunk in table.chunks():
            chunk = chunk.compact()
            columns: dict[str, Any] = {name: chunk.columns[name] for name in names}
            for name in pictures & columns.keys():
                columns[name] = [_picture(cell, os.path.dirname(chunk.file)) for cell in columns[name]]
            writer.write({**columns, number: chunk.index + 1})


def _rows(chunk: RowChunk) -> Iterator[dict[str, Any]]:
    for values in zip(*chunk.columns.values(), strict=True):
        yield dict(zip(chunk.columns, values, strict=True))


def _picture(cell: Any, folder: str) -> Any:
    if isinstance(cell, bytes):
        return data_text(cell)
    if isinstance(cell, np.ndarray) or cell.startswith(("data:", "~")):
        return cell
    return os.path.abspath(os.path.join(folder, cell))
