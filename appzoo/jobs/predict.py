"""Predict: one output row for every accepted input row, in order."""

from __future__ import annotations

import time
from typing import Any

from appzoo.jobs.inference import outputs_in_order
from appzoo.jobs.tables import chosen_columns, encoded_chunks, names, open_input, output_form, quarantine_path
from appzoo.jobs.trained import open_trained
from easytransfer.config.job import JobConfig
from easytransfer.data.table import BadRows
from easytransfer.data.writers import open_writer
from easytransfer.run.log import say
from easytransfer.train.precision import pad_multiple


def predict(config: JobConfig) -> dict[str, Any]:
    """Writes predictions for `data.input_table` to `data.output_table`.

    Returns:
        Row account, output path and rows per second.
    """
    started = time.monotonic()
    trained = open_trained(config)
    app, data = trained.app, config.data
    columns = chosen_columns(data.output_schema, app.output_columns())
    append = names(data.append_cols)
    bad_rows = BadRows(data.bad_rows, data.max_bad_rows, quarantine_path(data.output_table))
    table = open_input(app, data.input_table, app.input_columns() + append, bad_rows)
    if config.runtime.dry_run:
        return {"mode": "predict", "dry_run": True, "columns": columns + append}
    say(f"predicting {data.input_table} with {trained.source.name}")
    with open_writer(
        data.output_table,
        columns + append,
        overwrite=config.runtime.overwrite,
        escape=data.escape,
        form=output_form(data, data.output_table),
    ) as writer:
        for chunk, encoded in encoded_chunks(app, table, with_labels=False):
            if not len(encoded):
                continue
            found = app.rows(
                outputs_in_order(encoded, trained.call, config.train.batch_size, pad_multiple(config.runtime))
            )
            writer.write({name: found[name] for name in columns} | {name: chunk.columns[name] for name in append})
    bad_rows.close()
    seconds = time.monotonic() - started
    say(f"wrote {table.count.accepted} rows to {data.output_table} ({table.count.rejected} rejected)")
    return {
        "mode": "predict",
        "output": data.output_table,
        "columns": columns + append,
        "read": table.count.read,
        "written": table.count.accepted,
        "rejected": table.count.rejected,
        "rows_per_second": round(table.count.read / seconds, 1),
    }
