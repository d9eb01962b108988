"""Features: the vectors of an encoder for every row of a table, in order."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from appzoo.feature_config import VECTOR_COLUMNS, FeatureConfig, parse_layers
from appzoo.jobs.inference import outputs_in_order
from appzoo.jobs.resumable_output import Output, job_key
from appzoo.jobs.tables import chosen_columns, names
from appzoo.jobs.vectors import VectorSource, model_path, open_vectors
from easytransfer.config.job import DataConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, RowChunk, Table, open_table
from easytransfer.data.table_writer import distinct_columns
from easytransfer.run.log import say, warn
from easytransfer.train.precision import pad_multiple

# Rows of a piece: enough to sort by length, few enough to lose little when a job is killed.
CHUNK_ROWS = 2048
# The same where every token has a vector.
HIDDEN_CHUNK_ROWS = 512


def extract_features(config: FeatureConfig) -> dict[str, Any]:
    """Writes vectors for every row of `data.input_table` to `data.output_table`; one worker of several its part.

    `pool_output`, `first_token_output` and `mean_output` are vectors; `all_hidden_outputs` has one vector for each
    token of the row. In `.npy` files it is filled with 0 up to `sequence_length`, and `num_tokens` tells its lengths.
    A model of two towers writes all columns for the first text and, with `_b`, for the second.

    Returns:
        Row account, output path, columns and rows per second.
    """
    started = time.monotonic()
    data, settings = config.data, config.features
    columns = chosen_columns(data.output_schema, VECTOR_COLUMNS) if data.output_schema else None
    append = names(data.append_cols)
    key = job_key("features", config, model_path(str(config.model_name), config.runtime.model_zoo_base_path))
    digits = settings.float_precision
    float_format = None if digits is None else f"%.{digits}f"
    output = Output(data, config.distribution, config.runtime, key, float_format)
    if data.merge:
        return {"mode": "features", "output": str(output.path), **output.merge().summary()}
    given = data.sequence_length if "sequence_length" in data.model_fields_set else None
    layers = parse_layers(settings.layers)
    source = open_vectors(str(config.model_name), columns, layers, max_length=given, runtime=config.runtime)
    rows = _Rows(config, source, append, output)
    table = open_texts(data)
    if config.runtime.dry_run:
        return {"mode": "features", "dry_run": True, "columns": [*rows.names, *append]}
    say(f"writing {', '.join(rows.names)} of {data.input_table} with {source.path}")
    account = output.write(
        table,
        lambda chunk: source.encode(chunk, str(data.first_sequence), data.second_sequence, data.no_truncate),
        rows.columns,
        columns=[*rows.names, *append],
        chunk_rows=HIDDEN_CHUNK_ROWS if "all_hidden_outputs" in source.columns else CHUNK_ROWS,
        text_counts=source.text_counts,
    )
    return {
        "mode": "features",
        "output": str(output.path),
        "columns": account.columns,
        **account.summary(),
        "rows_per_second": round(account.read / (time.monotonic() - started), 1),
    }


def open_texts(data: DataConfig) -> Table:
    """Opens the table of the texts; bad rows are left out."""
    schema = parse_schema(data.input_schema) if data.input_schema else None
    texts = [name for name in (data.first_sequence, data.second_sequence) if name]
    needed = [*texts, *names(data.append_cols)]
    table = open_table(
        str(data.input_table),
        schema=schema,
        data=data,
        bad_rows=BadRows("skip"),
        needed=needed,
        texts=dict.fromkeys(texts, "none"),
    )
    if schema is None:
        table.narrow(needed)
    return table


class _Rows:
    """Makes output columns of encoded chunks."""

    def __init__(self, config: FeatureConfig, source: VectorSource, append: list[str], output: Output) -> None:
        self._source, self._append = source, append
        self._padded, self._done = output.form == "npy", output.done
        self._batch_size = config.features.batch_size
        self._multiple = 1 if source.by_row else pad_multiple(config.runtime)
        self._sides = ["", "_b"] if source.two_towers and config.data.second_sequence else [""]
        self.names = [f"{name}{side}" for side in self._sides for name in source.columns]
        lengths = [f"num_tokens{side}" for side in self._sides] if self._padded else []
        distinct_columns([*self.names, *lengths], append)
        if source.two_towers and len(self._sides) == 1:
            warn("the model has two towers; name the second text with --secondSequence to get its vectors, too")

    def columns(self, chunk: RowChunk, encoded: EncodedTable) -> dict[str, Any]:
        """Returns the columns to write for a chunk."""
        found: dict[str, Any] = {}
        for number, side in enumerate(self._sides):
            table = one_side(encoded, side)

            def done(share: float, before: int = number) -> None:
                self._done((before + share) / len(self._sides))

            outputs = outputs_in_order(table, self._call, self._batch_size, self._multiple, done)
            lengths = table.columns["input_ids"].lengths
            for name in self._source.columns:
                value = outputs[name]
                if name == "all_hidden_outputs":
                    value = self._hidden(value, lengths)
                    if self._padded:
                        found[f"num_tokens{side}"] = lengths.astype(np.int32)
                found[f"{name}{side}"] = value
        return found | {name: chunk.columns[name] for name in self._append}

    def _call(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        return self._source.call({name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")})

    def _hidden(self, values: Any, lengths: np.ndarray) -> Any:
        """Returns the vectors of real tokens, row by row, or all rows filled up to one length."""
        rows = [value[:length] for value, length in zip(values, lengths, strict=True)]
        if not self._padded:
            return rows
        filled = np.zeros((len(rows), self._source.max_length, rows[0].shape[1]), np.float32)
        for place, row in zip(filled, rows, strict=True):
            place[: len(row)] = row
        return filled


def one_side(encoded: EncodedTable, suffix: str) -> EncodedTable:
    """Returns the tokens of the first text, or with `_b` of the second."""
    columns = {name: encoded.columns[f"{name}{suffix}"] for name in ("input_ids", "segment_ids")}
    return EncodedTable(columns, {"input_mask": "input_ids"})
