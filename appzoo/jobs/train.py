"""Train: tables in; a run folder with checkpoints, metrics, pictures, model card and export out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import tensorflow as tf

from appzoo.base import App
from appzoo.jobs.complete import finished_report
from appzoo.jobs.export import export_app, in_float32
from appzoo.jobs.inference import outputs_in_order
from appzoo.jobs.tables import EncodedRows, column_cells, job_bad_rows, load_rows
from appzoo.jobs.trained import model_call, new_app, open_trained
from easytransfer.config.job import JobConfig
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import device_arrays
from easytransfer.distributed.devices import devices_of
from easytransfer.distributed.report import report_workers
from easytransfer.distributed.shards import whole_shape
from easytransfer.distributed.strategy import open_workers
from easytransfer.distributed.workers import Workers
from easytransfer.errors import Interrupted
from easytransfer.metrics.names import choose_metric
from easytransfer.run.card import default_commands, write_card
from easytransfer.run.environment import environment_record, input_files
from easytransfer.run.folder import RunFolder
from easytransfer.run.lock import check_space
from easytransfer.run.log import quiet, say, warn
from easytransfer.run.page import PAGE_FILE, write_page
from easytransfer.run.pictures import draw_pictures
from easytransfer.run.report import RunReporter, say_where
from easytransfer.train import checkpoint
from easytransfer.train.precision import pad_multiple
from easytransfer.train.trainer import FitResult, Trainer

# Rows checked by a dry run.
DRY_RUN_ROWS = 100
# Share of unknown tokens above which the tokenizer probably does not fit the language.
UNKNOWN_WARNING = 0.05


def train(config: JobConfig) -> dict[str, Any]:
    """Trains, evaluates the best checkpoint, exports it, and writes the run folder `checkpoint_dir`.

    A run that is complete is left as it is.

    Returns:
        Paths of the run, metrics of the exported weights and the row accounts.

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
    settings = config.runtime
    folder = RunFolder.create(
        config.checkpoint_dir, config.model_dump(mode="json"), resume=settings.resume, overwrite=settings.overwrite
    )
    with folder:
        try:
            report = _train(config, folder, workers)
        except Interrupted as error:
            folder.finish("interrupted", error=error)
            raise
        except BaseException as error:
            folder.finish("failed", error=error)
            raise
        folder.finish("done", report=report)
    write_card(folder.path)
    write_page(folder.path)
    return _end(config, report)


def _follow(config: JobConfig, workers: Workers) -> dict[str, Any]:
    """Trains as one of the workers that write nothing."""
    with quiet():
        app, tables = _load(config, None)
    app.fit_labels(tables["train"].encoded)
    with quiet():
        app.before_training(tables["train"].encoded, Path(config.checkpoint_dir), workers)
    trainer = Trainer(app, config.train, config.runtime, Path(config.checkpoint_dir), workers=workers)
    trainer.fit(*_batches(config, tables, workers))
    return {"mode": "train", "rank": workers.rank}


def _batches(config: JobConfig, tables: dict[str, EncodedRows], workers: Workers) -> tuple[Batches, Batches]:
    """Returns this worker's share of the training and the evaluation table."""
    shard, multiple = (workers.replica, workers.replicas), pad_multiple(config.runtime)
    train, held_out = tables["train"].encoded, tables["eval"].encoded
    options = {"shard": shard, "pad_multiple": multiple}
    elastic = config.distribution.min_workers > 0
    rows = config.train.batch_size * (config.distribution.worker_count if elastic else workers.replicas)
    return (
        Batches(train, config.train.batch_size, shuffle=True, seed=config.runtime.seed, global_batch=rows, **options),
        Batches(held_out, config.train.eval_batch_size, shuffle=False, **options),
    )


def _train(config: JobConfig, folder: RunFolder, workers: Workers) -> dict[str, Any]:
    app, tables = _load(config, folder.path)
    app.fit_labels(tables["train"].encoded)
    app.before_training(tables["train"].encoded, folder.path, workers)
    app.save_assets(folder.path)
    specs = (config.data.train_table, config.data.eval_table)
    present = [device.name for device in tf.config.list_physical_devices()]
    folder.write_run(environment_record(seed=config.runtime.seed, devices=present, tables=input_files(specs)))
    reporter = RunReporter(folder.path, log_format=config.runtime.log_format)
    devices = devices_of(config.distribution)
    trainer = Trainer(app, config.train, config.runtime, folder.path, reporter, workers=workers, devices=devices)
    check_space(folder.path, _checkpoint_bytes(app) * (config.train.keep_checkpoint_max + 2))
    fit = trainer.fit(*_batches(config, tables, workers))
    if workers.size > workers.replicas:
        # This worker has a part of the model: evaluation and export take all of it, from the checkpoint.
        app = open_trained(config.model_copy(update={"checkpoint_path": str(fit.last_path)})).app
    report = _evaluate_best(app, config, folder, tables, fit)
    report["pictures"] = draw_pictures(folder.path, report, report["metric"])
    if workers.size > 1:
        report["distributed"] = report_workers(folder.path, workers, config.distribution)
        report["pictures"] += report["distributed"].pop("pictures")
    if config.runtime.mixed_precision != "none":
        app = open_trained(in_float32(config, report["checkpoint"])).app
    path = export_app(app, folder.path, folder.path / "export", Path(report["checkpoint"])).path
    report["export"] = str(path)
    return report


def _load(config: JobConfig, run_dir: Path | None, limit: int | None = None) -> tuple[App, dict[str, EncodedRows]]:
    """Prepares the application and encodes both tables."""
    app = new_app(config)
    data = config.data
    app.prepare(None, lambda column: column_cells(app, data.train_table, column))
    if app.labels:
        say(f"labels: {', '.join(app.labels[:20])}")
    tables = {}
    for part, spec in (("train", data.train_table), ("eval", data.eval_table)):
        before = app.text_counts.copy()
        bad_rows = job_bad_rows(data, run_dir and run_dir / f"bad_rows.{part}.tsv")
        tables[part] = load_rows(app, spec, True, bad_rows, limit)
        bad_rows.close()
        _say_table(part, tables[part], app.text_counts - before)
    return app, tables


def _say_table(part: str, rows: EncodedRows, counts: Any) -> None:
    count = rows.count
    text = f"{part}: {count.read:,} rows read, {count.accepted:,} used, {count.rejected:,} rejected"
    if counts["rows"]:
        text += f"; {counts['tokens'] / counts['rows']:.1f} tokens a row, {counts['truncated']:,} truncated"
    say(text)
    unknown = counts["unknown"] / max(counts["tokens"], 1)
    if unknown > UNKNOWN_WARNING:
        warn(f"{unknown:.1%} of the tokens of the {part} table are unknown to the model; is it for this language?")


def _dry_run(config: JobConfig) -> dict[str, Any]:
    """Checks folder, tables, model and one step of shapes without writing anything."""
    RunFolder(config.checkpoint_dir).plan(
        config.model_dump(mode="json"), resume=config.runtime.resume, overwrite=config.runtime.overwrite
    )
    app, tables = _load(config, None, DRY_RUN_ROWS)
    app.fit_labels(tables["train"].encoded)
    app.build_model()
    rows = tables["train"].encoded
    batch = {name: tf.constant(value) for name, value in device_arrays(rows.batch(range(min(len(rows), 2)))).items()}
    losses = app.losses(batch, app.forward(batch))
    say("dry run: flags, tables, model and shapes are fine")
    return {
        "mode": "train",
        "dry_run": True,
        "parameters": int(sum(variable.shape.num_elements() for variable in app.model.trainable_variables)),
        "loss": float(tf.add_n(list(losses.values())) / app.loss_weight(batch)),
        "data": {part: loaded.summary() for part, loaded in tables.items()},
    }


def _checkpoint_bytes(app: App) -> int:
    """Size of a checkpoint: weights and at most two optimizer slots, float32."""
    return 3 * 4 * sum(math.prod(whole_shape(variable)) for variable in app.model.weights)


def _evaluate_best(
    app: App, config: JobConfig, folder: RunFolder, tables: dict[str, EncodedRows], fit: FitResult
) -> dict[str, Any]:
    """Puts the weights to export into the model and measures them on the evaluation table."""
    which = "best" if config.train.export_best_checkpoint else "last"
    path = checkpoint.load_weights(app.model, folder.path / f"model.ckpt-{which}")
    outputs = outputs_in_order(
        tables["eval"].encoded,
        model_call(app, labelled=True),
        config.train.eval_batch_size,
        pad_multiple(config.runtime),
    )
    evaluator = app.evaluator()
    evaluator.update(tables["eval"].encoded.columns, outputs)
    metrics = evaluator.result()
    metric = choose_metric(config.train.metric_for_best, metrics, evaluator.main_metric)
    return {
        "model_name": config.model_name,
        "step": int(path.name.rpartition("-")[2]),
        "checkpoint": str(path),
        "metric": metric,
        "metrics": metrics,
        "config": config.model_dump(mode="json"),
        "data": {part: loaded.summary() for part, loaded in tables.items()},
        **evaluator.report(),
        **app.further_report(tables["eval"].encoded),
        "pages": app.write_pages(folder.path, tables["eval"].encoded, outputs),
    }


def _end(config: JobConfig, report: dict[str, Any]) -> dict[str, Any]:
    """Says where everything is, and returns what `train` does."""
    run = Path(config.checkpoint_dir)
    places = {"run folder": run, "model card": run / "README.md", "report": run / PAGE_FILE}
    places |= {"best checkpoint": report["checkpoint"], "export": report["export"]}
    say_where(places, default_commands(config.model_dump(mode="json"), run, report["export"]))
    shown = {key: report[key] for key in ("metrics", "step", "export", "data")}
    return {"mode": "train", "run": str(run), **shown}
