"""Predict: one output row for every accepted input row, in order."""

from __future__ import annotations

import time
from typing import Any

from appzoo.jobs.inference import outputs_in_order
from appzoo.jobs.resumable_output import Output, job_key
from appzoo.jobs.tables import chosen_columns, encoder, input_columns, names, open_input
from appzoo.jobs.trained import open_trained
from easytransfer.config.job import JobConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import BadRows, RowChunk
from easytransfer.data.table_writer import distinct_columns
from easytransfer.run.log import say


def predict(config: JobConfig) -> dict[str, Any]:
    """Writes predictions for `data.input_table` to `data.output_table`; one worker of several writes its part.

    Returns:
        Row account, output path and rows per second.
    """
    started = time.monotonic()
    trained = open_trained(config)
    app, data = trained.app, config.data
    columns = chosen_columns(data.output_schema, app.output_columns())
    append = names(data.append_cols)
    written = distinct_columns(columns, append)
    output = Output(data, config.distribution, config.runtime, job_key("predict", config, trained.source))
    if data.merge:
        return {"mode": "predict", "output": str(output.path), **output.merge().summary()}
    needed = input_columns(app, str(data.input_table), False) + append
    table = open_input(app, str(data.input_table), needed, BadRows("skip"))
    if config.runtime.dry_run:
        return {"mode": "predict", "dry_run": True, "columns": written}
    say(f"predicting {data.input_table} with {trained.source.name}")
    multiple = trained.pad_multiple

    def compute(chunk: RowChunk, encoded: EncodedTable) -> dict[str, Any]:
        outputs = outputs_in_order(encoded, trained.call, config.train.batch_size, multiple, output.done)
        found = app.postprocess(outputs, encoded)
        return {name: found[name] for name in columns} | {name: chunk.columns[name] for name in append}

    encode = encoder(app, table, with_labels=False)
    options = {"columns": written, "chunk_rows": app.chunk_rows, "text_counts": app.text_counts}
    account = output.write(table, encode, compute, **options)
    return {
        "mode": "predict",
        "output": str(output.path),
        "columns": written,
        **account.summary(),
        "rows_per_second": round(account.read / (time.monotonic() - started), 1),
    }
