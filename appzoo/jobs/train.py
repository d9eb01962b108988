"""Train: tables in; a run folder with checkpoints, metrics, pictures, model card and export out."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf

from appzoo.jobs.complete import finished_report
from appzoo.jobs.distributions import distributions
from appzoo.jobs.evaluated_rows import check_slice_columns, report_rows
from appzoo.jobs.export import export_app, in_float32
from appzoo.jobs.held_out import check_divisible, held_out_record, held_out_rows, write_parts
from appzoo.jobs.inference import evaluated_with_outputs
from appzoo.jobs.next_steps import commands_of, say_end
from appzoo.jobs.table_checks import TableChecks
from appzoo.jobs.tables import (
    EncodedRows,
    job_bad_rows,
    load_rows,
    load_stored_rows,
    machine_folder,
    say_labels,
    table_key,
    values_of_column,
)
from appzoo.jobs.text_counts import say_table
from appzoo.jobs.trained import merge_adapters, model_call, new_app, open_trained
from easytransfer.app.contract import App
from easytransfer.config.job import JobConfig
from easytransfer.config.stored import run_settings
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import device_arrays
from easytransfer.data.files import table_records
from easytransfer.data.held_out import TablePart
from easytransfer.data.table_store import TableStore
from easytransfer.distributed.devices import devices_of
from easytransfer.distributed.report import report_workers
from easytransfer.distributed.shards import whole_shape
from easytransfer.distributed.strategy import open_workers
from easytransfer.distributed.workers import Workers
from easytransfer.layers.lora import without_base
from easytransfer.metrics.names import canonical_metric, choose_metric
from easytransfer.presets import resolve
from easytransfer.run.card import write_card
from easytransfer.run.environment import environment_record
from easytransfer.run.folder import REPORT_FILE, RunFolder
from easytransfer.run.history import read_history
from easytransfer.run.lock import check_space
from easytransfer.run.log import quiet, say, warn
from easytransfer.run.page import write_page
from easytransfer.run.pictures import draw_pictures
from easytransfer.run.report import RunReporter
from easytransfer.run.suspicions import upside_down
from easytransfer.run.tracking import Tracking, open_tracking
from easytransfer.train import checkpoint
from easytransfer.train.precision import pad_multiple
from easytransfer.train.step import EVALUATION, weighted_means
from easytransfer.train.trainer import FitResult, Trainer

# Rows of the evaluation table whose outputs are kept, for pages and pictures of rows.
PAGE_ROWS = 20_000
# Rows checked by a dry run.
DRY_RUN_ROWS = 100


def train(config: JobConfig) -> dict[str, Any]:
    """Trains, evaluates the best checkpoint, exports it, and writes the run folder `checkpoint_dir`.

    A run that is complete is left as it is.

    Returns:
        Paths of the run, metrics of the exported weights and the row accounts; `checkpoint_step`, the step of the
        checkpoint that these metrics and the export are of (`step` is its name in earlier versions), and `steps`, all
        steps of the training.

    Raises:
        ConfigError: The folder holds another run, or settings do not fit each other.
        DataError: A table is unusable, or a bad row under `badRows=fail`.
        Interrupted: A signal arrived; the run was saved and can be resumed.
    """
    if config.runtime.dry_run:
        return _dry_run(config)
    workers = open_workers(config.distribution)
    finished = workers.gather(finished_report(config) if workers.is_chief else None)[0]
    if not workers.is_chief:
        return {"mode": "train", "rank": workers.rank} if finished else _follow(config, workers)
    if finished:
        say(f"the run in {config.checkpoint_dir} is complete: nothing to train; --overwrite trains it anew")
        return _end(config, finished)
    inputs = table_records(config)
    folder = RunFolder.create(config.checkpoint_dir, **run_settings(config), inputs=inputs)
    going_on = {"resuming": folder.resuming, "changed": bool(folder.changed)}
    settings = config.model_dump(mode="json")
    with (
        folder,
        open_tracking(config.tracking, folder.path, settings, offline=config.runtime.offline, **going_on) as tracking,
    ):
        report = _train(config, folder, workers, inputs, tracking)
        folder.finish("done", report=report)
        say(folder.time_line())
        _clear_cache(config, workers)
        if wrong := upside_down(report["metrics"], report.get("labels") or ()):
            warn(wrong)
        return _end(config, report, tracking)


def _follow(config: JobConfig, workers: Workers) -> dict[str, Any]:
    """Trains as one of the workers that write nothing."""
    with quiet():
        app, tables = _load(config, None, workers)
    app.on_train_table(tables["train"].encoded)
    with quiet():
        app.before_training(tables["train"].encoded, Path(config.checkpoint_dir), workers)
    trainer = Trainer(app, config.train, config.runtime, Path(config.checkpoint_dir), workers=workers)
    trainer.fit(*_batches(app, tables, workers))
    if not workers.is_chief:
        _clear_cache(config, workers)
    return {"mode": "train", "rank": workers.rank}


def _batches(app: App, tables: dict[str, EncodedRows], workers: Workers) -> tuple[Batches, Batches]:
    """Returns this worker's share of the training and the evaluation table."""
    config = app.config
    shard, multiple = (workers.replica, workers.replicas), pad_multiple(config.runtime)
    train, held_out = tables["train"].encoded, tables["eval"].encoded
    options = {"shard": shard, "pad_multiple": multiple}
    elastic = config.distribution.min_workers > 0
    rows = config.train.batch_size * (config.distribution.worker_count if elastic else workers.replicas)
    plan = {"seed": config.runtime.seed, "global_batch": rows, "sampler": app.sampler(train)}
    return (
        Batches(train, config.train.batch_size, shuffle=True, **plan, **options),
        Batches(held_out, config.train.eval_batch_size, shuffle=False, **options),
    )


def _train(
    config: JobConfig, folder: RunFolder, workers: Workers, inputs: list[dict[str, Any]], tracking: Tracking
) -> dict[str, Any]:
    with folder.timed("tables and model"):
        app, tables = _load(config, folder.path, workers)
        app.on_train_table(tables["train"].encoded)
        app.before_training(tables["train"].encoded, folder.path, workers)
        app.save_assets(folder.path)
    present = [device.name for device in tf.config.list_physical_devices()]
    record = environment_record(seed=config.runtime.seed, devices=present, inputs=inputs)
    started = {"pretrained": _pretrained(config), "frozen": app.frozen_records(), "held_out": held_out_record(config)}
    folder.write_run({**record, **started})
    reporter = RunReporter(folder.path, log_format=config.runtime.log_format, tracking=tracking)
    devices = devices_of(config.distribution)
    trainer = Trainer(app, config.train, config.runtime, folder.path, reporter, workers=workers, devices=devices)
    adapted = _parameters(app)
    check_space(folder.path, _checkpoint_bytes(app) * (config.train.keep_checkpoint_max + 2))
    with folder.timed("training"):
        fit = trainer.fit(*_batches(app, tables, workers))
    if workers.size > workers.replicas:
        # This worker has a part of the model: evaluation and export take all of it, from the checkpoint.
        app = open_trained(config.model_copy(update={"checkpoint_path": str(fit.last_path)})).app
    with folder.timed("evaluation and pictures"):
        report = _evaluate_best(app, config, folder, tables, fit)
    if len(fit.stages) > 1:
        report["stages"] = _stages(folder, fit)
    if adapted is not None:
        report["parameters"] = adapted
    if fit.input_share is not None:
        report["input_share"] = fit.input_share
        say(f"waiting for input: {fit.input_share:.1%} of the time of the steps")
    with folder.timed("evaluation and pictures"):
        report["pictures"] = draw_pictures(folder.path, report, report["metric"])
    if workers.size > 1:
        report["distributed"] = report_workers(folder.path, workers, config.distribution)
        report["pictures"] += report["distributed"].pop("pictures")
    if config.runtime.mixed_precision != "none":
        app = open_trained(in_float32(config, report["checkpoint"])).app
    merge_adapters(app)
    with folder.timed("export and its checks"):
        path = export_app(app, folder.path, folder.path / "export", Path(report["checkpoint"])).path
    report["export"] = str(path)
    report["commands"] = commands_of(app, folder.path, report["export"])
    return report


def _pretrained(config: JobConfig) -> dict[str, Any] | None:
    """Returns which pre-trained model the training starts from and where that one is from, for `run.json`."""
    name = getattr(config.model, "pretrain_model_name_or_path", None)
    if name is None:
        return None
    preset = resolve(name, config.runtime.model_zoo_base_path)
    return {"name": preset.name, "origin": preset.facts.get("origin")}


def _load(
    config: JobConfig, run_dir: Path | None, workers: Workers | None = None
) -> tuple[App, dict[str, EncodedRows]]:
    """Prepares the application and encodes both tables.

    Args:
        config: Of the job.
        run_dir: Where bad rows are copied to; None = this process writes no such file.
        workers: Those that share tables on disk; None reads the first rows only.
    """
    app = new_app(config)
    data, tables_of_training = config.data, config.training_tables()
    held_out = held_out_rows(config)
    sides = {} if held_out is None else {"train": held_out.part(False), "eval": held_out.part(True)}

    def values(column: str) -> Iterator[Any]:
        # A label that only the rows held out have is known as such; a vocabulary is that of the others.
        return values_of_column(
            app, tables_of_training, column, None if column == data.label_name else sides.get("train")
        )

    app.load_assets(None, values)
    say_labels(app)
    check_slice_columns(app, data.eval_table or str(data.train_table))
    if held_out is not None:
        check_divisible(app)
    if held_out is not None and run_dir is not None:
        write_parts(app, held_out)
    tables = {}
    with TableChecks(app) as checks:
        for part, spec in (("train", tables_of_training), ("eval", data.eval_table or data.train_table)):
            new_bad_rows = partial(job_bad_rows, data, run_dir and run_dir / f"bad_rows.{part}.tsv")
            if workers is None:
                tables[part] = load_rows(app, spec, True, new_bad_rows(), DRY_RUN_ROWS, part=sides.get(part))
            else:
                store = _store(app, part, spec, workers, sides.get(part))
                watch = checks.watch(part) if run_dir is not None else None
                tables[part] = load_stored_rows(app, spec, True, new_bad_rows, store, sides.get(part), watch)
            say_table(part, tables[part].count, tables[part].text)
        if run_dir is not None:
            cut = {part: (loaded.text["truncated"], loaded.text["rows"]) for part, loaded in tables.items()}
            checks.warn({part: loaded.encoded for part, loaded in tables.items()}, cut)
    return app, tables


def _store(app: App, part: str, spec: str, workers: Workers, rows: TablePart | None) -> TableStore:
    """Returns what takes the rows of a table; the first worker of a machine writes a large one for all of them."""
    limit = int(app.config.data.table_memory_mb * 10**6)
    folder = _cache(app.config) / part
    return TableStore(folder, table_key(app, spec, rows), limit, writes=workers.local_rank == 0)


def _cache(config: JobConfig) -> Path:
    """Returns the folder of tables that do not fit into memory."""
    base = Path(config.data.cache_dir) if config.data.cache_dir else Path(config.checkpoint_dir) / "cache"
    return machine_folder(base)


def _clear_cache(config: JobConfig, workers: Workers) -> None:
    """Removes the tables of this machine when they are needed no more."""
    if config.data.cache_dir is None and workers.local_rank == 0:
        shutil.rmtree(_cache(config).parent if workers.is_chief else _cache(config), ignore_errors=True)


def _dry_run(config: JobConfig) -> dict[str, Any]:
    """Checks folder, tables, model and one step of shapes without writing anything."""
    RunFolder(config.checkpoint_dir).plan(**run_settings(config), inputs=table_records(config))
    app, tables = _load(config, None)
    app.on_train_table(tables["train"].encoded)
    app.build_model()
    rows = tables["train"].encoded
    batch = {name: tf.constant(value) for name, value in device_arrays(rows.batch(range(min(len(rows), 2)))).items()}
    losses = app.losses(batch, app.forward(batch), EVALUATION)
    sums, weights = ({name: float(loss[part]) for name, loss in losses.items()} for part in (0, 1))
    say("dry run: flags, tables, model and shapes are fine")
    return {
        "mode": "train",
        "dry_run": True,
        "parameters": int(sum(variable.shape.num_elements() for variable in app.model.trainable_variables)),
        "loss": sum(weighted_means(sums, weights).values()),
        "metric": canonical_metric(config.train.metric_for_best or app.evaluator().main_metric),
        "data": {part: loaded.summary() for part, loaded in tables.items()},
    }


def _parameters(app: App) -> dict[str, int] | None:
    """Returns how many numbers are stored of how many, where a pre-trained network stays as it is, and says so."""
    own, every = (
        sum(math.prod(whole_shape(variable)) for variable in variables)
        for variables in (without_base(app.model.weights), app.model.weights)
    )
    if own == every:
        return None
    say(f"{own:,} of {every:,} weights ({own / every:.2%}) are trained and stored; the pre-trained network stays as is")
    return {"stored": own, "all": every}


def _checkpoint_bytes(app: App) -> int:
    """Size of a checkpoint: weights and at most two optimizer slots, float32."""
    return 3 * 4 * sum(math.prod(whole_shape(variable)) for variable in without_base(app.model.weights))


def _evaluate_best(
    app: App, config: JobConfig, folder: RunFolder, tables: dict[str, EncodedRows], fit: FitResult
) -> dict[str, Any]:
    """Puts the weights to export into the model and measures them on the evaluation table."""
    which: Literal["best", "last"] = "best" if config.train.export_best_checkpoint else "last"
    path = checkpoint.load_weights(app.model, folder.path / f"model.ckpt-{which}")
    step = int(path.name.rpartition("-")[2])
    table, call = tables["eval"].encoded, model_call(app, labelled=True)
    size, multiple = config.train.eval_batch_size, pad_multiple(config.runtime)
    shown = table.head(PAGE_ROWS)
    evaluator, outputs = evaluated_with_outputs(app, table, call, size, multiple, keep=len(shown))
    app.on_evaluation(evaluator, folder.path)
    metrics = evaluator.result()
    folder.write_measured(which, metrics)
    metric = choose_metric(config.train.metric_for_best, metrics, evaluator.main_metric)
    pages = app.write_pages(folder.path, shown, outputs)
    spec = config.data.eval_table or str(config.data.train_table)
    rows = report_rows(app, folder.path, tables["eval"], spec, evaluator, size, metric)
    return {
        "model_name": config.model_name,
        "step": step,
        "checkpoint_step": step,
        "steps": fit.steps,
        "checkpoint": str(path),
        "metric": metric,
        "metrics": metrics,
        "config": config.model_dump(mode="json"),
        "data": {part: loaded.summary() for part, loaded in tables.items()},
        "text": {part: dict(loaded.text) for part, loaded in tables.items() if loaded.text},
        **distributions(app, {part: loaded.encoded for part, loaded in tables.items()}),
        **evaluator.report(),
        **app.further_report(table),
        **rows,
        "pages": [*pages, *rows.get("pages", [])],
    }


def _stages(folder: RunFolder, fit: FitResult) -> list[dict[str, Any]]:
    """Returns the stages that were begun: their steps, and the metrics they ended with."""
    ended = {line["step"]: line for line in read_history(folder.path) if line["event"] == "evaluation"}
    found = []
    for span in fit.stages:
        last = min(span.end, fit.steps)
        if span.start < last:
            numbers = {n: x for n, x in ended.get(last, {}).items() if isinstance(x, float) and n != "time"}
            found.append({"name": span.name, "steps": [span.start + 1, last], "metrics": numbers})
    return found


def _end(config: JobConfig, report: dict[str, Any], tracking: Tracking | None = None) -> dict[str, Any]:
    """Says where everything is, passes it on to trackers, and returns what `train` does."""
    run = Path(str(config.checkpoint_dir))
    cards = {"model card": write_card(run), "report": write_page(run)}
    if tracking is not None:
        tracking.complete(report, [*cards.values(), run / REPORT_FILE])
    say_end(config, cards, report)
    shown = {key: report[key] for key in ("metrics", "step", "checkpoint_step", "steps", "export", "data")}
    return {"mode": "train", "run": str(run), **shown}
