"""Evaluate: exact metrics of a trained model on one labelled table."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from appzoo.jobs.inference import evaluated
from appzoo.jobs.resumable_output import LINE_SECONDS
from appzoo.jobs.tables import evaluation_store, job_bad_rows, load_rows
from appzoo.jobs.text_counts import say_table
from appzoo.jobs.trained import Trained, open_trained
from easytransfer.config.job import JobConfig
from easytransfer.distributed.strategy import open_workers
from easytransfer.distributed.workers import Workers
from easytransfer.run.folder import write_json
from easytransfer.run.log import quiet, say, warn
from easytransfer.run.pictures import draw_further
from easytransfer.run.progress import Progress
from easytransfer.run.suspicions import upside_down


def evaluate(config: JobConfig, trained: Trained | None = None) -> dict[str, Any]:
    """Returns the metrics of `checkpoint_path` on `evaluated_tables()`; a run folder also gets them as a file.

    Several workers share the model calls; the first one writes.

    Args:
        config: Of the job.
        trained: The model, where it is open already.
    """
    workers = open_workers(config.distribution)
    if workers.is_chief:
        return _evaluate(config, workers, trained or open_trained(config))
    with quiet():
        return _evaluate(config, workers, trained or open_trained(config))


def _evaluate(config: JobConfig, workers: Workers, trained: Trained) -> dict[str, Any]:
    app = trained.app
    # A published export is never written to.
    aside = Path("evaluate.bad") if trained.step is None else trained.folder / "bad_rows.evaluate.tsv"
    aside = aside if workers.is_chief and not config.runtime.dry_run else None
    bad_rows = job_bad_rows(config.data, aside)
    spec, limit = str(config.evaluated_tables()), 100 if config.runtime.dry_run else None
    with closing(bad_rows), evaluation_store(app, spec) as store:
        loaded = load_rows(app, spec, True, bad_rows, limit=limit, store=store)
    say_table("input", loaded.count, loaded.text)
    if config.runtime.dry_run:
        return {"mode": "evaluate", "dry_run": True, **loaded.summary()}
    size, multiple, total = config.train.batch_size, trained.pad_multiple, len(loaded.encoded)
    form = config.runtime.log_format
    with workers.explained_losses(), Progress("evaluate", total, log_format=form, min_interval_s=LINE_SECONDS) as meter:

        def show(share: float) -> None:
            meter.update(round(share * total))

        done = show if workers.is_chief else None
        evaluator = evaluated(app, loaded.encoded, trained.labelled_call, size, multiple, workers, done)
        # A worker that leaves ends the exchanges of those that are still reading.
        workers.barrier()
    if not workers.is_chief:
        return {"mode": "evaluate", "rank": workers.rank}
    metrics = evaluator.result()
    if wrong := upside_down(metrics, app.labels or ()):
        warn(wrong)
    result = {"mode": "evaluate", "checkpoint": str(trained.source), "metrics": metrics, **loaded.summary()}
    if loaded.text:
        result["text"] = dict(loaded.text)
    if trained.step is not None:
        result |= app.further_report(loaded.encoded)
        path = trained.folder / f"evaluation-{trained.step}.json"
        write_json(path, result)
        for picture in draw_further(trained.folder, result, f"-{trained.step}"):
            say(f"picture drawn: {trained.folder / picture}")
        say(f"metrics written to {path}")
    return result
