"""Text comprehension: the answer to a question, cut from a text; also as one turn of a conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.encoder import Encoder, token_batch
from appzoo.serving import ids_signature
from appzoo.text_comprehension.config import BertComprehensionConfig, HaeComprehensionConfig
from appzoo.text_comprehension.evaluation import ComprehensionEvaluator, write_answers
from appzoo.text_comprehension.model import HistorySpanModel, SpanModel
from appzoo.text_comprehension.questions import ASKED, Asked, Gold, spread_questions
from appzoo.text_comprehension.search import Answer, Search
from appzoo.text_comprehension.serving import SAMPLES, SpanServing
from appzoo.text_comprehension.windows import WindowEncoder, token_span
from easytransfer import keras
from easytransfer.app.contract import App, Values, no_values
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk
from easytransfer.errors import ConfigError, DataError
from easytransfer.losses.comprehension import span_cross_entropy_sum
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

COLUMNS = ("qas_id", "predictions", "probabilities", "start", "end", "start_logits", "end_logits")
EXTRA_COLUMNS = ("n_best", "unique_id")


class BertComprehension(App):
    """A pre-trained encoder with two scores per token, over sliding windows of the context.

    A row of the table holds one or more questions, each of which becomes a row of its own (`explode`) and one example
    per window of its context.
    """

    asset_files: ClassVar[tuple[str, ...]] = Encoder.ASSET_FILES
    config: BertComprehensionConfig
    label_columns: ClassVar[tuple[str, ...]] = ("start_position", "end_position")
    encoder: Encoder
    splits = ("tensor",)
    # Whether the answers of earlier questions are known to the model.
    conversational: ClassVar[bool] = False

    def load_assets(self, folder: Path | None, values: Values = no_values) -> None:
        """Loads the tokenizer from the ModelZoo, or from `folder` of a trained run.

        Raises:
            ConfigError: A window has no room for the context behind the longest question.
        """
        model, length = self.config.model, self.config.data.sequence_length
        if length < model.max_query_length + 4:
            raise ConfigError(
                "sequenceLength leaves no room for the context behind a question of max_query_length tokens",
                received=length,
                accepted=f"at least {model.max_query_length + 4}",
                fix="raise sequenceLength or lower max_query_length",
            )
        self.encoder = Encoder(self.config, folder)
        turns = model.max_considered_history_turns if self.conversational else None
        self.windows = WindowEncoder(self.encoder.tokenizer, length, model.max_query_length, model.doc_stride, turns)
        self.search = Search(model.n_best_size, model.max_answer_length, model.null_score_threshold)

    def save_assets(self, folder: Path) -> None:
        """Writes vocabulary, tokenizer settings and encoder configuration."""
        self.encoder.save(folder)

    def build_model(self, folder: Path | None = None) -> keras.Model:
        """Builds encoder and head; from the ModelZoo, or the shape stored in `folder` with weights to be restored."""
        self.model = self._network(self.encoder.backbone(folder, self.workers))
        batch = token_batch()
        self.model({**batch, "history_answer_marker": tf.zeros_like(batch["input_ids"])})
        return self.model

    def _network(self, backbone: Any) -> SpanModel:
        return SpanModel(backbone, self.config.model.dropout_rate)

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with head."""
        *encoder, pooler = self.model.backbone.layer_groups()
        return [*encoder, [*pooler, *self.model.head.trainable_variables]]

    # Rows ----------------------------------------------------------------------------------------------------

    def input_columns(self) -> list[str]:
        """Returns the columns with context and questions."""
        data = self.config.data
        if not (data.first_sequence and data.second_sequence):
            raise ConfigError(
                "comprehension needs the columns of context and question",
                fix="give --firstSequence=<context column> and --secondSequence=<question column>",
            )
        return [data.first_sequence, data.second_sequence]

    def text_columns(self) -> dict[str, ListForm]:
        """Returns the context, and questions and answers, which may be lists."""
        data = self.config.data
        lists: dict[str, ListForm] = {name: "json" for name in (data.second_sequence, data.label_name) if name}
        return dict.fromkeys(self.input_columns()[:1], "none") | lists

    def label_inputs(self) -> list[str]:
        """Returns the column with the answers."""
        name = self.config.data.label_name
        if not name:
            raise ConfigError("the column with the answers is not named", fix="give --labelName=<answer column>")
        return [name]

    def explode(self, chunk: RowChunk) -> RowChunk:
        """Returns a chunk with one row per question."""
        data = self.config.data
        if data.first_sequence not in chunk.columns or data.second_sequence not in chunk.columns:
            return chunk
        return spread_questions(
            chunk, data.first_sequence, data.second_sequence, data.label_name, last_open=self.conversational
        )

    def encode(self, chunk: RowChunk, with_labels: bool) -> EncodedTable:
        """Cuts contexts into windows; wrong answers, texts without a token and, with noTruncate, long questions are
        bad rows."""
        asked: list[Asked] = chunk.columns[ASKED]
        self.windows.read(asked)
        for row in range(len(asked)):
            if chunk.accepted[row]:
                self._check(chunk, row, with_labels)
        rows = np.flatnonzero(chunk.accepted)
        columns, row_of = self.windows.encode([int(row) for row in rows], with_labels)
        ids = columns["input_ids"]
        unknown = int((ids.values == self.encoder.tokenizer.unk_id).sum())
        truncated = int(self.windows.cut[rows].sum())
        self.text_counts.update(rows=len(rows), truncated=truncated, tokens=int(ids.offsets[-1]), unknown=unknown)
        return EncodedTable(columns, masks={"input_mask": "input_ids"}, row_of=row_of)

    def _check(self, chunk: RowChunk, row: int, with_labels: bool) -> None:
        data, windows = self.config.data, self.windows
        asked: Asked = chunk.columns[ASKED][row]
        if not windows.queries.lengths[row]:
            chunk.reject(row, data.second_sequence, "empty text: the question has no token")
        spans = windows.context_of(row)[1]
        if not len(spans):
            chunk.reject(row, data.first_sequence, "empty text: the context has no token")
        if data.no_truncate and windows.cut[row]:
            reason = f"too long: the question has more than max_query_length={windows.max_query_length} tokens"
            chunk.reject(row, data.second_sequence, reason)
        if not with_labels:
            return
        if asked.problem is not None:
            chunk.reject(row, data.label_name, asked.problem)
        elif any(token_span(spans, gold) is None for gold in asked.golds):
            chunk.reject(row, data.label_name, "empty answer: the answer has no token")

    def on_train_table(self, train: EncodedTable) -> None:
        """Checks the positions of a table of token ids.

        Raises:
            DataError: A position lies behind the end of its row.
        """
        lengths = train.columns["input_ids"].lengths
        for name in self.label_columns:
            wrong = np.flatnonzero((train.columns[name] < 0) | (train.columns[name] >= lengths))
            if len(wrong):
                raise DataError(
                    f"{name} of accepted row {wrong[0] + 1} lies outside of its {lengths[wrong[0]]} tokens",
                    received=int(train.columns[name][wrong[0]]),
                )

    def answers(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> list[tuple[Asked, Answer, int]]:
        """Returns for every row its question, the answer, and the example the answer is from.

        Raises:
            ConfigError: The table holds token ids, from which no text can be cut.
        """
        if "window" not in encoded.columns:
            raise ConfigError(
                "a table of token ids has no texts to cut answers from", fix="predict the table of the texts"
            )
        windows, (start, end) = encoded.columns["window"], (outputs["start_logits"], outputs["end_logits"])
        edges = np.searchsorted(encoded.row_of, np.arange(encoded.row_count + 1)).tolist()
        found = []
        for first, last in zip(edges, edges[1:], strict=False):
            answer = self.search.answer(windows[first:last], start[first:last], end[first:last])
            found.append((windows[first].asked, answer, first + answer.window))
        return found

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns the columns of `output_columns`; the logits are those of the window the answer is from."""
        rows: dict[str, list[Any]] = {name: [] for name in (*COLUMNS, *EXTRA_COLUMNS)}
        for asked, answer, example in self.answers(outputs, encoded):
            length = encoded.columns["window"][example].length
            values = {
                "qas_id": asked.id,
                "predictions": answer.text,
                "probabilities": answer.probability,
                "start": answer.start,
                "end": answer.end,
                "start_logits": np.asarray(outputs["start_logits"][example][:length], np.float32),
                "end_logits": np.asarray(outputs["end_logits"][example][:length], np.float32),
                "n_best": answer.to_json(),
                "unique_id": f"{asked.key[0]}-{asked.key[1]}",
            }
            for name, value in values.items():
                rows[name].append(value)
        return rows

    def output_columns(self) -> tuple[str, ...]:
        """Returns the usual columns, and those written on request once an `outputSchema` is given."""
        return COLUMNS if self.config.data.output_schema is None else (*COLUMNS, *EXTRA_COLUMNS)

    def write_pages(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Writes `answers.html`: contexts with right and predicted answers marked."""
        if "window" not in encoded.columns:
            return []
        found = [(asked, answer) for asked, answer, _ in self.answers(outputs, encoded)]
        return [write_answers(folder, found, self.config.model.answer_metric)]

    # Training ------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns half the cross entropies of start and end, summed over windows."""
        start, end = batch["start_position"], batch["end_position"]
        logits = outputs["start_logits"], outputs["end_logits"]
        weight = batch["example_weight"]
        return {"loss": Loss(span_cross_entropy_sum(start, end, *logits, weight), tf.reduce_sum(weight))}

    def evaluator(self) -> Evaluator:
        """Returns exact match, F1, accuracy of positions and loss."""
        return ComprehensionEvaluator(self.search, self.config.model.answer_metric)

    # Serving -------------------------------------------------------------------------------------------------

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Returns raw context and question, and token ids."""
        raw = SpanServing(self.model, self.encoder.graph(folder), self.config, self.conversational)
        history = (Gold("a", 0),) if self.conversational else ()
        asked = [Asked((0, row), "", q, c, history=history) for row, (c, q) in enumerate(SAMPLES)]
        self.windows.read(asked)
        columns, row_of = self.windows.encode(range(len(asked)), with_labels=False)
        encoded = EncodedTable(columns, masks={"input_mask": "input_ids"}, row_of=row_of)
        return {"serving_default": raw.signature(), "predict_ids": ids_signature(self, encoded)}


class HaeComprehension(BertComprehension):
    """The same for a conversation: a question sees the answers before it, one per example, by their embedding."""

    config: HaeComprehensionConfig
    conversational = True

    def _network(self, backbone: Any) -> SpanModel:
        return HistorySpanModel(backbone, self.config.model.dropout_rate)

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings with that of the history, encoder layers, and pooler with head."""
        embeddings, *rest = super().layer_groups()
        return [[*embeddings, *self.model.history.trainable_variables], *rest]


VARIANTS = {"bert": BertComprehension, "bert_hae": HaeComprehension}
