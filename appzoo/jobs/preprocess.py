"""Preprocess: texts to tables of token ids, in input order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.jobs.resumable_output import Output, job_key
from appzoo.jobs.tables import chosen_columns, encoder, input_columns, names, open_input, say_labels, values_of_column
from appzoo.jobs.trained import new_app
from easytransfer.app.contract import App
from easytransfer.config.job import JobConfig
from easytransfer.data.encoded import EncodedTable, HostColumn, Ragged
from easytransfer.data.id_tables import HIDDEN as MASKED
from easytransfer.data.table import BadRows, RowChunk
from easytransfer.data.table_writer import distinct_columns
from easytransfer.errors import ConfigError
from easytransfer.text.masking import TokenMasker
from easytransfer.train import checkpoint

ALIASES = {
    "bert_finetune": "input_ids,input_mask,segment_ids,label_id",
    "bert_predict": "input_ids,input_mask,segment_ids",
    "bert_pretrain": "input_ids,input_mask,segment_ids," + ",".join(MASKED),
}


def preprocess(config: JobConfig) -> dict[str, Any]:
    """Encodes `data.input_table` as the application would for training and writes `data.output_table`.

    A token column has `data.sequence_length` entries, padded as batches are. A row that is cut into several examples
    becomes several rows, each with the appended columns. One worker of several writes its part.

    Returns:
        Row account, output path and columns.
    """
    data = config.data
    output = Output(data, config.distribution, config.runtime, job_key("preprocess", config))
    if data.merge:
        return {"mode": "preprocess", "output": str(output.path), **output.merge().summary()}
    app = new_app(config)
    app.load_parts(_assets(config), lambda column: values_of_column(app, str(data.input_table), column))
    if not all(part.preprocessable for part in app.inputs):
        raise ConfigError(f"{config.model_name} has nothing to preprocess", fix="train on the table as it is")
    say_labels(app)
    # Labels may need no column, such as the order of two segments.
    labelled = data.label_name is not None or (app.target is not None and not app.label_inputs())
    append = names(data.append_cols)
    needed = input_columns(app, str(data.input_table), labelled) + append
    rows = _Rows(app, labelled, append)
    table = open_input(app, str(data.input_table), needed, BadRows("skip"))
    if config.runtime.dry_run:
        return {"mode": "preprocess", "dry_run": True, "columns": [*(rows.asked or ()), *append]}
    options = {"chunk_rows": app.chunk_rows, "text_counts": app.text_counts}
    account = output.write(table, encoder(app, table, labelled), rows.columns, **options)
    return {"mode": "preprocess", "output": str(output.path), "columns": account.columns, **account.summary()}


def _assets(config: JobConfig) -> Path | None:
    """Returns the run folder whose vocabulary and labels are used, None for those the configuration describes."""
    return checkpoint.resolve(config.checkpoint_path).parent if config.checkpoint_path else None


class _Rows:
    """Makes output columns of encoded chunks."""

    def __init__(self, app: App, labelled: bool, append: list[str]) -> None:
        self._app, self._labelled, self._append = app, labelled, append
        self._width = app.config.data.sequence_length
        schema = app.config.data.output_schema
        self.asked = None if schema is None else names(ALIASES.get(schema, schema))
        distinct_columns(self.asked or (), append)
        self._masks = bool(set(MASKED) & set(self.asked or ()))
        self._masker = self._new_masker() if self._masks else None
        unlabelled = [] if labelled else [name for name in self.asked or () if name in app.label_columns]
        if unlabelled:
            raise ConfigError(f"outputSchema asks for {unlabelled[0]}", fix="give labelName")

    def _new_masker(self) -> TokenMasker:
        settings, tokenizer = self._app.config, getattr(getattr(self._app, "encoder", None), "tokenizer", None)
        if tokenizer is None:
            raise ConfigError(
                f"{settings.model_name} has no pre-trained encoder, so nothing can be masked for it",
                fix="preprocess with an application on an encoder, such as text_classify_bert",
            )
        data = settings.data
        return TokenMasker(tokenizer, settings.runtime.seed, data.masked_lm_prob, data.max_predictions_per_seq)

    def columns(self, chunk: RowChunk, encoded: EncodedTable) -> dict[str, Any]:
        """Returns the columns to write for a chunk.

        Raises:
            ConfigError: A column is asked for that the application does not make, or copied in place of one it makes.
        """
        found = dense_columns(encoded, self._width, self._app.label_columns)
        if self._masks:
            own = (part.masked(found) for part in self._app.inputs)
            found |= next((masked for masked in own if masked is not None), None) or self._masked(chunk, encoded)
        chosen = chosen_columns(None if self.asked is None else ",".join(self.asked), list(found), ALIASES)
        distinct_columns(chosen, self._append)
        appended = {name: [chunk.columns[name][row] for row in encoded.row_of] for name in self._append}
        return {name: found[name] for name in chosen} | appended

    def _masked(self, chunk: RowChunk, encoded: EncodedTable) -> dict[str, np.ndarray]:
        """Hides pieces of `input_ids`; see `TokenMasker`."""
        # Windows of one row must not all hide the same places.
        first = np.flatnonzero(np.diff(encoded.row_of, prepend=-1))
        window = np.arange(len(encoded)) - first[encoded.row_of]
        masked = self._masker.mask(encoded.columns["input_ids"], chunk.index[encoded.row_of] * 4096 + window)
        values = (masked.positions, masked.ids, masked.weights)
        ids = masked.input_ids.padded(np.arange(len(encoded)), self._width)
        return {"input_ids": ids, **dict(zip(MASKED, values, strict=True))}


def dense_columns(encoded: EncodedTable, width: int, last: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Returns every column that a model reads as one array, each mask behind the ids it belongs to.

    Args:
        encoded: Encoded rows; columns of the host are left out.
        width: Entries of a token column.
        last: Columns to put at the end.
    """
    rows, dense = np.arange(len(encoded)), {}
    for name, column in encoded.columns.items():
        if isinstance(column, HostColumn):
            continue
        if isinstance(column, Ragged):
            if (longest := int(column.lengths.max(initial=0))) > width:
                raise ConfigError(f"a row of {name} has {longest} entries", fix=f"give --sequenceLength={longest}")
            dense[name] = column.padded(rows, width, encoded.pad_values.get(name, 0))
            for mask in [mask for mask, source in encoded.masks.items() if source == name]:
                dense[mask] = (np.arange(dense[name].shape[1]) < column.lengths[:, None]).astype(np.int32)
        else:
            dense[name] = column
    return {name: value for name, value in dense.items() if name not in last} | {
        name: dense[name] for name in last if name in dense
    }
