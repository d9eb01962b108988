"""What can be known to be wrong before TensorFlow is imported: flags, files, columns, outputs, devices."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appzoo.cli.reader import Job
from easytransfer.config.fields import MODE_LETTERS, settings_of
from easytransfer.config.job import NO_CLASSES, DataConfig, JobConfig
from easytransfer.config.schema import ConfigModel
from easytransfer.config.stored import require_checkpoint, run_settings
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.files import expand, part_path
from easytransfer.data.formats import names_columns
from easytransfer.data.id_tables import is_id_table
from easytransfer.data.labels import LabelMap
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.distributed.layout import Layout
from easytransfer.distributed.strategy import STARTS_WORKERS, backend, is_worker, require
from easytransfer.errors import ConfigError, ResourceError
from easytransfer.export.base_folder import check_base
from easytransfer.run.folder import RunFolder, check_space
from easytransfer.run.tracking import check_tracking
from modelzoo.hub import obtain


def check_job(job: Job) -> None:
    """Checks all that needs no model; a job that passes fails later only for what is inside its data or weights.

    Raises:
        ConfigError: A required flag is missing, a column is not declared, an output or run is in the way.
        DataError: An input table does not exist.
        ModelError: The pre-trained model is not on this machine.
        ResourceError: An output cannot be written.
    """
    if job.config.model_name or job.config.checkpoint_path:
        # Before columns are asked for, which a table that is there may have said itself.
        for spec in given_tables(job.mode, job.config):
            expand(spec)
    check_required(job.mode, job.config)
    check_distribution(job.mode, job.config)
    check_tables(job.mode, job.config)
    check_outputs(job.mode, job.config)
    check_tracking(job.config.tracking, job.config.runtime.offline)
    labels = job.config.data.label_enumerate_values
    if labels and labels not in ("auto", NO_CLASSES) and "data.label_enumerate_values" in job.given:
        LabelMap.parse(labels, Counter, warns=False)  # the job itself says what is strange about them
    start = job.config.train.init_checkpoint_path
    if job.mode == "train" and start:
        require_checkpoint(start)
    name = getattr(job.config.model, "pretrain_model_name_or_path", None)
    # The vocabulary of a run is in the run.
    from_run = job.mode == "preprocess" and job.config.checkpoint_path
    if name and job.mode in ("train", "preprocess") and not from_run:
        obtain(name, job.config.runtime.model_zoo_base_path, offline=job.config.runtime.offline)


def check_required(mode: str, config: JobConfig) -> None:
    """Checks that everything the mode requires is given."""
    missing = []
    for setting in settings_of(type(config)):
        if MODE_LETTERS[mode] not in setting.required or value_at(config, setting.path) is not None:
            continue
        if setting.path == "data.input_schema" and _has_column_names(config):
            continue
        if setting.path in ("data.first_sequence", "data.second_sequence", "data.label_name") and _has_ids(config):
            continue
        missing.append(setting)
    if not missing:
        return
    # In train both tables are one flag in the original's form.
    shown = [setting.shown for setting in missing if setting.path != "data.train_table"]
    if len(shown) < len(missing):
        shown.insert(0, "--inputTable=train,eval")
    raise ConfigError(f"mode {mode} needs {', '.join(shown)}", fix=f"see easy_transfer_app {mode} --help")


def value_at(config: ConfigModel, path: str) -> object:
    """Returns the value at a dotted path."""
    value: object = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _has_column_names(config: JobConfig) -> bool:
    """Returns whether all given tables name their columns themselves."""
    data = config.data
    specs = [spec for spec in (config.training_tables(), data.eval_table, data.input_table) if spec]
    names = [part.strip() for spec in specs for part in spec.split(",")]
    return bool(names) and (data.header == "names" or all(map(names_columns, names)))


def _has_ids(config: JobConfig) -> bool:
    """Returns whether the schema declares token ids and labels in place of text."""
    return config.data.input_schema is not None and is_id_table(parse_schema(config.data.input_schema))


def check_distribution(mode: str, config: JobConfig) -> None:
    """Checks that there is such a worker, and that only jobs whose parts are merged ask for several."""
    if mode in ("predict", "preprocess"):
        config.distribution.workers()
        return
    if mode in STARTS_WORKERS:
        require(backend(config.distribution))
        if mode == "train" and not is_worker():
            shares = config.distribution
            Layout(shares.worker_count, shares.tensor_parallel, shares.pipeline_stages)
    elif config.distribution.workers() > 1:
        raise ConfigError(
            f"{mode} runs on one worker", received=config.distribution.workers(), fix="use --workerCount=1"
        )


def given_tables(mode: str, config: JobConfig) -> list[str]:
    """Returns the input tables that a job names."""
    data = config.data
    tables = [config.training_tables(), data.eval_table] if mode == "train" else [data.input_table]
    if mode == "evaluate":
        tables = [config.evaluated_tables()]
    return [spec for spec in tables if spec]


def check_tables(mode: str, config: JobConfig) -> None:
    """Checks that input tables exist and declare every column the job names."""
    data = config.data
    tables = given_tables(mode, config)
    if not tables:
        return
    columns: dict[str, str | None] = {"firstSequence": data.first_sequence, "secondSequence": data.second_sequence}
    vectors = mode == "export" and config.export.export_type == "ez_bert_feat"
    if mode in ("train", "evaluate", "preprocess", "export") and not vectors:
        columns["labelName"] = data.label_name
    if _has_ids(config):
        columns = {}
    check_columns(tables, columns, data, append=mode in ("predict", "preprocess"))


def check_columns(tables: Sequence[str], columns: dict[str, str | None], data: DataConfig, append: bool) -> None:
    """Checks that tables exist and declare columns.

    Args:
        tables: Tables.
        columns: Columns by the flag that asks for them.
        data: Their schema and form.
        append: Whether the columns of `append_cols` are needed, too.
    """
    read = [column for column in columns.values() if column is not None]
    if append:
        names = [name.strip() for name in (data.append_cols or "").split(",") if name.strip()]
        columns = columns | {f"appendCols {name}": name for name in names}
    schema = parse_schema(data.input_schema) if data.input_schema else None
    if schema is not None:
        for flag, column in columns.items():
            if column is not None:
                schema.require([column], where=f"the input schema (asked for by {flag})")
    needed = [column for column in columns.values() if column is not None]
    for spec in tables:
        table = open_table(spec, schema=schema, data=data, bad_rows=BadRows("skip"))
        # Structures have a text for some applications, which say so when they open the table.
        table.take_text({column: "json" for column in read if column not in table.schema})
        table.require(needed, where=f"table {spec}" if schema is None else "the input schema")


def check_outputs(mode: str, config: Any) -> None:
    """Checks that outputs can be written and replace nothing unasked."""
    if mode == "train" and config.checkpoint_dir:
        check_space(config.checkpoint_dir, 0)
        RunFolder(config.checkpoint_dir).plan(**run_settings(config))
    if mode in ("predict", "preprocess") and config.data.output_table:
        path, workers = Path(config.data.output_table), config.distribution.workers()
        if workers > 1 and not config.data.merge:
            path = part_path(path, config.distribution.task_index, workers)
        _check_writable(path, path.parent)
        if path.exists() and not config.runtime.overwrite:
            raise ConfigError(f"the output table {path} exists", fix="add --overwrite, or give another --outputTable")
    if mode == "export" and config.export.export_dir_base:
        base = Path(config.export.export_dir_base)
        _check_writable(base, base)
        if not config.export.export_type.startswith("convert_"):
            check_base(base, config.export.flat)


def _check_writable(output: Path, folder: Path) -> None:
    """Checks the folder an output is made in, or the nearest existing one above it."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(f"cannot write {output}: {folder} is not a writable folder", fix="choose another place")
