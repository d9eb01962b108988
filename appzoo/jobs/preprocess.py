"""Preprocess: texts to tables of token ids, in input order."""

from __future__ import annotations

from typing import Any

import numpy as np

from appzoo.jobs.tables import chosen_columns, encoded_chunks, names, open_input, output_form, quarantine_path
from appzoo.jobs.trained import new_app
from easytransfer.config.job import JobConfig
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.data.table import BadRows
from easytransfer.data.writers import open_writer
from easytransfer.errors import ConfigError
from easytransfer.run.log import say

ALIASES = {
    "bert_finetune": "input_ids,input_mask,segment_ids,label_id",
    "bert_predict": "input_ids,input_mask,segment_ids",
}


def preprocess(config: JobConfig) -> dict[str, Any]:
    """Encodes `data.input_table` as the application would for training and writes `data.output_table`.

    Every token column has `data.sequence_length` entries, padded with 0.
    """
    data = config.data
    app = new_app(config)
    app.prepare(None)
    labelled = data.label_name is not None
    columns = _columns(data.output_schema, labelled)
    append = names(data.append_cols)
    bad_rows = BadRows(data.bad_rows, data.max_bad_rows, quarantine_path(data.output_table))
    needed = app.input_columns() + append + ([data.label_name] if labelled else [])
    table = open_input(app, data.input_table, needed, bad_rows)
    form = output_form(data, data.output_table)
    with open_writer(data.output_table, columns + append, overwrite=config.runtime.overwrite, form=form) as writer:
        for chunk, encoded in encoded_chunks(app, table, with_labels=labelled):
            if len(encoded):
                dense = _dense(encoded, data.sequence_length)
                writer.write({name: dense[name] for name in columns} | {name: chunk.columns[name] for name in append})
    bad_rows.close()
    say(f"wrote {table.count.accepted} rows to {data.output_table} ({table.count.rejected} rejected)")
    return {
        "mode": "preprocess",
        "output": data.output_table,
        "columns": columns + append,
        "read": table.count.read,
        "written": table.count.accepted,
        "rejected": table.count.rejected,
    }


def _columns(output_schema: str | None, labelled: bool) -> list[str]:
    spec = output_schema or ("bert_finetune" if labelled else "bert_predict")
    available = ALIASES["bert_finetune" if labelled else "bert_predict"].split(",")
    if not labelled and "label_id" in names(ALIASES.get(spec, spec)):
        raise ConfigError("outputSchema asks for label_id", fix="give labelName")
    return chosen_columns(ALIASES.get(spec, spec), available, ALIASES)


def _dense(encoded: EncodedTable, width: int) -> dict[str, np.ndarray]:
    rows = np.arange(len(encoded))
    dense = {
        name: column.padded(rows, width) if isinstance(column, Ragged) else column
        for name, column in encoded.columns.items()
    }
    for name, source in encoded.masks.items():
        dense[name] = (np.arange(width) < encoded.columns[source].lengths[:, None]).astype(np.int32)
    return dense
