"""Questions about contexts as windows of token ids, in tables and in requests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from appzoo.encoder import Encoder, EncoderTokens
from appzoo.text_comprehension.questions import ASKED, Asked, spread_questions
from appzoo.text_comprehension.windows import EncodedQuestions, WindowEncoder
from easytransfer.app.inputs.base import Tensors
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.errors import ConfigError

if TYPE_CHECKING:
    from appzoo.text_comprehension.serving import GraphQuestions


class QuestionWindows(EncoderTokens):
    """`input_ids`, `input_mask`, `segment_ids` [windows, tokens] of questions, each with a piece of its context.

    A row of the table holds one or more questions, each of which becomes a row of its own (`explode`) and one example
    per window of its context. In a conversation there are examples for every earlier answer, whose tokens
    `history_answer_marker` [windows, tokens] marks with 1. `window` stays on the host, see `Window.to_json`.

    Args:
        encoder: Of the job.
        context: Table column with the text to answer from.
        question: Table column with the questions.
        answers: Table column with their answers, None where there is no such one.
        windows: How they are cut.
    """

    _graph_questions: GraphQuestions | None = None

    def __init__(
        self, encoder: Encoder, context: str, question: str | None, answers: str | None, windows: WindowEncoder
    ) -> None:
        super().__init__(encoder, context, question, raw=("context", "question"))
        self.answers, self.windows = answers, windows
        self.doc = "raw context and question"
        if self.conversational:
            self.lengths = {**self.lengths, "history_answer_marker": "input_mask"}
            self.doc = "raw context, question and spans of earlier answers (in characters, -1 fills)"

    @property
    def conversational(self) -> bool:
        """Whether the answers of earlier questions are known to the model."""
        return self.windows.history_turns is not None

    def table_columns(self) -> list[str]:
        """Returns the columns with context and questions; none where tables hold token ids.

        Raises:
            ConfigError: One of them is named alone.
        """
        if bool(self.first) != bool(self.second):
            raise ConfigError(
                "comprehension needs the columns of context and question",
                fix="give --firstSequence=<context column> and --secondSequence=<question column>",
            )
        return super().table_columns()

    def text_columns(self) -> dict[str, ListForm]:
        """Returns the context, and questions and answers, which may be lists; none where tables hold token ids."""
        if not self.first:
            return {}
        context, question = self.table_columns()
        lists: dict[str, ListForm] = {name: "json" for name in (question, self.answers) if name}
        return {context: "none", **lists}

    def explode(self, chunk: RowChunk) -> RowChunk:
        """Returns a chunk with one row per question."""
        if self.first not in chunk.columns or self.second not in chunk.columns:
            return chunk
        return spread_questions(chunk, self.first, self.second, self.answers, last_open=self.conversational)

    def encode(self, chunk: RowChunk) -> EncodedQuestions:
        """Cuts contexts into windows; texts without a token and, with `noTruncate`, long questions are bad rows."""
        if ASKED not in chunk.columns:  # a request: one question a row, and nothing in place of what has no token
            texts = zip(chunk.columns[self.second], chunk.columns[self.first], strict=True)
            return self.windows.encode([Asked((row, 0), "", *pair) for row, pair in enumerate(texts)])
        found = self.windows.encode(chunk.columns[ASKED])
        for row, length in enumerate(found.query_lengths):
            if not length:
                chunk.reject(row, self.second, "empty text: the question has no token")
            if not len(found.spans[row]):
                chunk.reject(row, self.first, "empty text: the context has no token")
            if self._no_truncate and found.counts["truncated"][row]:
                limit = self.windows.max_query_length
                chunk.reject(row, self.second, f"too long: the question has more than max_query_length={limit} tokens")
        return found

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns ids, mask, segments and, in a conversation, marks."""
        marks = ("history_answer_marker",) if self.conversational else ()
        return {**super().specs(), **{name: tf.TensorSpec([None, None], tf.int32) for name in marks}}

    def serving_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the raw texts and, in a conversation, the spans of earlier answers."""
        spans = ("history_start", "history_end") if self.conversational else ()
        return {**super().serving_specs(), **{name: tf.TensorSpec([None, None], tf.int32) for name in spans}}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns contexts, questions and, in a conversation, the spans of two earlier answers, one, or none."""
        from appzoo.text_comprehension.serving import SAMPLES

        context, question = (np.array(column, object) for column in zip(*SAMPLES, strict=True))
        texts = {"context": context, "question": question}
        if not self.conversational:
            return texts
        starts = np.array([[0, 26], [0, -1], [-1, -1], [-1, -1], [6, 0]], np.int32)
        return {**texts, "history_start": starts, "history_end": np.where(starts < 0, np.int32(-1), starts + 4)}

    def from_request(self, tensors: Tensors) -> Tensors:
        """Cuts raw contexts into windows; beside the arrays, what `best_answers` reads."""
        from appzoo.text_comprehension.serving import valid_text

        context = valid_text(tensors["context"])
        return {"context": context, **self._graph_questions(**{**tensors, "context": context})}

    def request_columns(self) -> dict[str, str]:
        """Returns the columns of context and question; none in a conversation, whose requests have numbers too."""
        return {} if self.conversational else super().request_columns()

    def serving_module(self, folder: Path) -> tf.Module:
        """Returns the same encoding in a graph."""
        from appzoo.text_comprehension.serving import GraphQuestions

        self._graph_questions = GraphQuestions(self.encoder.graph(folder), self.windows)
        return self._graph_questions
