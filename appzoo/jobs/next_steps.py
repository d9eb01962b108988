"""What to do with a finished run: command lines with its own table and columns, and where its pages are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from appzoo.jobs.held_out import evaluation_table
from appzoo.jobs.tables import open_input
from easytransfer.app.contract import App
from easytransfer.config.job import JobConfig
from easytransfer.data.id_tables import is_id_table
from easytransfer.data.picture_folders import has_image_name
from easytransfer.data.table import BadRows
from easytransfer.run.card import page_files, picture_files, title_of
from easytransfer.run.commands import next_commands, without_labels
from easytransfer.run.log import say
from easytransfer.run.report import say_where


def commands_of(app: App, run: Path, export: str) -> dict[str, str]:
    """Returns the command lines that use a run, by what they do.

    Args:
        app: The trained application.
        run: Its run folder.
        export: Version folder of its SavedModel.
    """
    data = app.config.data
    table = evaluation_table(app.config)
    return next_commands(run, table, export, row_names(app, table), data.model_dump())


def row_names(app: App, spec: str) -> list[str]:
    """Returns the columns that tell the rows of a table apart in the predictions: ids and what else is not read.

    Where everything is read, these are the texts themselves, or the paths of pictures; none for token ids and arrays.
    """
    table = open_input(app, spec, [], BadRows("skip"))
    ids = is_id_table(table.schema)
    known = {*app.output_columns(), *app.label_columns, *([] if ids else app.label_inputs())}
    # A comma list cannot name a column whose name has a comma.
    usable = [c.name for c in table.schema if not c.is_list and c.name not in known and "," not in c.name]
    if ids:
        return usable
    read = app.input_columns()
    # The column of a folder of pictures holds their paths; others hold the pictures themselves.
    paths = all(os.path.isdir(file) or has_image_name(file) for file in table.files)
    whole = set() if paths else {column.name for column in table.schema if column.type in ("image", "base64")}
    usable = [name for name in usable if name not in whole]
    return [name for name in usable if name not in read] or usable


def say_end(config: JobConfig, cards: dict[str, Path], report: dict[str, Any]) -> None:
    """Prints where the files of a finished training are and what to type next.

    Args:
        config: Configuration of the training.
        cards: The model card and the report, by what they are.
        report: Content of `report.json`.
    """
    run = Path(str(config.checkpoint_dir))
    further = [*page_files(report), *(name for name in picture_files(report) if name not in report["pictures"])]
    pages = {title_of(name).lower(): run / name for name in further}
    results = {"best checkpoint": report["checkpoint"], "export": report["export"]}
    say_where({"run folder": run, **cards, **pages, **results}, report["commands"])
    if flag := without_labels(config.data.model_dump()):
        say(f"  to predict a table without the label column, add {flag}")
