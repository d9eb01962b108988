"""`base_model.run`: the job of a mode with the tables that the configuration names, and the end of a script."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from easytransfer.compat.datasets import CSVWriter, TableReader
from easytransfer.data.table import BadRows
from easytransfer.errors import ConfigError, EasyTransferError


def run_mode(app: Any) -> dict[str, Any]:
    """Runs an application in its mode and returns what to print.

    Raises:
        ConfigError: A table, or what to write, is not named.
    """
    kind = app.config.kind
    if kind == "evaluate":
        return {"metrics": app.run_evaluate(_reader(app, "eval"))}
    if kind == "export":
        return {"export": app.export_model()}
    if kind in ("predict", "preprocess"):
        return _run_rows(app, app.run_predict if kind == "predict" else app.run_preprocess)
    held_out = _reader(app, "eval") if kind == "train_and_evaluate" else None
    metrics = app.run_train_and_evaluate(_reader(app, "train"), held_out)
    return {"run": app.job.checkpoint_dir, "metrics": metrics}


def _reader(app: Any, part: str) -> TableReader:
    data, train = app.job.data, app.job.train
    table = {"train": data.train_table, "eval": data.eval_table}.get(part) or data.input_table
    if not table:
        raise ConfigError(f"there is no table to {app.config.kind.replace('_and_', ' and ')}", fix="give --tables")
    size = train.eval_batch_size if part == "eval" and data.eval_table else train.batch_size
    folder = Path(app.job.checkpoint_dir) if app.job.checkpoint_dir else Path(data.output_table or ".").parent
    bad_rows = BadRows(data.bad_rows, data.max_bad_rows, folder / f"bad_rows.{part}.tsv")
    return TableReader(table, is_training=part == "train", batch_size=size, bad_rows=bad_rows)


def _run_rows(app: Any, work: Callable[[TableReader, CSVWriter], Any]) -> dict[str, Any]:
    """Reads the input table, and writes what `work` makes of it."""
    output, columns = app.job.data.output_table, app.output_schema
    if not output or not columns:
        what = (
            "an output table; give --outputs" if not output else "columns to write; set preprocess_config.output_schema"
        )
        raise ConfigError(f"mode {app.config.kind} needs {what}")
    reader = _reader(app, app.config.kind)
    work(reader, CSVWriter(output, columns))
    count = reader.table.count
    return {"output": output, "read": count.read, "written": count.accepted, "rejected": count.rejected}


def report_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Ends a script as the command line ends: one line and the exit code of an expected error.

    It takes the place of `sys.excepthook`; a hook cannot change the exit code but by leaving at once.
    """
    known = isinstance(error, EasyTransferError)
    if not known or "--debug" in sys.argv:
        traceback.print_exception(kind, error, trace)
    if not known:
        return
    print("error: " + " ".join(str(error).splitlines()), file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(error.exit_code)
