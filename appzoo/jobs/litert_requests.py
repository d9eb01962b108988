"""Raw texts of requests for a LiteRT export, answered as `predict` answers a table of them. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import modelzoo.loading as zoo
from appzoo import discovery
from appzoo.jobs.inference import outputs_in_order
from appzoo.jobs.vectors import FACTS
from easytransfer.app.contract import App
from easytransfer.app.targets.base import Target
from easytransfer.config.stored import inherited
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import BadRows, RowChunk, RowCount
from easytransfer.litert.model import LiteRtModel
from easytransfer.savedmodel.calling import Arrays, Caller


def raw_caller(model: LiteRtModel) -> Caller | None:
    """Returns the function behind `serving_default` of an export.

    Returns:
        Takes the raw texts of rows by the names of the inputs, as bytes, to the answer of the target; None for an
        application whose requests are no texts, or whose target answers in a graph alone.

    Raises:
        ModelError: Assets are missing or damaged.
    """
    if FACTS in model.manifest:
        return _vector_caller(model)
    stored = inherited(model.manifest["config"])
    stored.setdefault("data", {})["no_truncate"] = False  # as the graph of a SavedModel: what is too long is cut off
    name = str(stored["model_name"])
    app: App = discovery.load_application(name)(discovery.config_class(name).model_validate(stored))
    app.load_assets(model.assets)
    columns: dict[str, str] = {}
    for part in app.inputs:
        named = part.request_columns()
        if not named or set(named.values()) & set(columns.values()):
            return None
        columns |= named
    if app.target is None or not _answers_rows(app.target):
        return None

    def call(inputs: Mapping[str, np.ndarray]) -> Arrays:
        texts = {column: _decoded(inputs[raw]) for raw, column in columns.items()}
        rows = len(next(iter(texts.values())))
        chunk = RowChunk(
            texts, file="request", lines=np.arange(1, rows + 1), index=np.arange(rows), texts=[""] * rows,
            count=RowCount(read=rows, accepted=rows), bad_rows=BadRows("fail"),
        )  # fmt: skip
        encoded = app.encode(chunk, with_labels=False)
        return app.target.answer_rows(_outputs(model, encoded), encoded)

    return call


def _vector_caller(model: LiteRtModel) -> Caller:
    """Returns the function of raw texts, or pairs of texts, to the columns of `ez_bert_feat`."""
    tokenizer, longest = zoo.load_tokenizer(model.assets), int(model.manifest["max_length"])
    names = sorted(model.manifest["signatures"]["serving_default"]["inputs"])  # text; or text_a, text_b

    def call(inputs: Mapping[str, np.ndarray]) -> Arrays:
        first, second = (*(_decoded(inputs[name]) for name in names), None)[:2]
        tokens = tokenizer.encode(first, second, max_length=longest)
        columns = {"input_ids": tokens.input_ids, "segment_ids": tokens.segment_ids}
        return _outputs(model, EncodedTable(columns, {"input_mask": "input_ids"}))

    return call


def _decoded(cells: np.ndarray) -> list[str]:
    return [cell.decode("utf-8", "replace") for cell in cells]


def _outputs(model: LiteRtModel, encoded: EncodedTable) -> Arrays:
    """Returns the outputs of all rows in their order; of an empty request what they look like."""
    return outputs_in_order(encoded, model, len(encoded)) if len(encoded) else model(encoded.batch([]))


def _answers_rows(target: Target) -> bool:
    """Returns whether `answer_rows` is that of the class that has the last word on `answer`, or of one below it."""
    ancestry = type(target).__mro__
    graph, rows = (
        next(i for i, each in enumerate(ancestry) if name in vars(each)) for name in ("answer", "answer_rows")
    )
    return ancestry[rows] is not Target and rows <= graph
