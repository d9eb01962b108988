"""Evaluate: exact metrics of a trained model on one labelled table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appzoo.jobs.inference import outputs_in_order
from appzoo.jobs.tables import load_rows
from appzoo.jobs.trained import open_trained
from easytransfer.config.job import JobConfig
from easytransfer.data.table import BadRows
from easytransfer.run.folder import write_json
from easytransfer.run.log import say
from easytransfer.run.pictures import draw_further
from easytransfer.train.precision import pad_multiple


def evaluate(config: JobConfig) -> dict[str, Any]:
    """Returns the metrics of `checkpoint_path` on `data.input_table`; a run folder also gets them as a file."""
    trained = open_trained(config)
    app = trained.app
    # A published export is never written to.
    aside = Path("evaluate.bad") if trained.step is None else trained.folder / "bad_rows.evaluate.tsv"
    bad_rows = BadRows(config.data.bad_rows, config.data.max_bad_rows, aside)
    loaded = load_rows(app, config.data.input_table, True, bad_rows, limit=100 if config.runtime.dry_run else None)
    bad_rows.close()
    if config.runtime.dry_run:
        return {"mode": "evaluate", "dry_run": True, **loaded.summary()}
    outputs = outputs_in_order(
        loaded.encoded, trained.labelled_call, config.train.batch_size, pad_multiple(config.runtime)
    )
    evaluator = app.evaluator()
    evaluator.update(loaded.encoded.columns, outputs)
    metrics = evaluator.result()
    result = {"mode": "evaluate", "checkpoint": str(trained.source), "metrics": metrics, **loaded.summary()}
    if trained.step is not None:
        result |= app.further_report(loaded.encoded)
        path = trained.folder / f"evaluation-{trained.step}.json"
        write_json(path, result)
        for picture in draw_further(trained.folder, result, f"-{trained.step}"):
            say(f"picture drawn: {trained.folder / picture}")
        say(f"metrics written to {path}")
    return result
