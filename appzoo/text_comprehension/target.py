"""An answer cut from the context: positions of tokens in, spans of characters out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from appzoo.text_comprehension.config import BertComprehensionConfig
from appzoo.text_comprehension.evaluation import ComprehensionEvaluator, write_answers
from appzoo.text_comprehension.questions import ASKED, Asked
from appzoo.text_comprehension.search import Answer, Search
from appzoo.text_comprehension.windows import EncodedQuestions, Window, token_span
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.app.targets.labels import text_array
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.errors import ConfigError, DataError
from easytransfer.losses.comprehension import span_cross_entropy_sum
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

COLUMNS = ("qas_id", "predictions", "probabilities", "start", "end", "start_logits", "end_logits")
EXTRA_COLUMNS = ("n_best", "unique_id")


class SpanTarget(Target):
    """The answer to a question: `start_position` and `end_position` int32 [windows], both that of [CLS] for none.

    The outputs are `start_logits` and `end_logits` [windows, tokens]; the answer is searched over all windows of a
    question.

    Args:
        config: Of the job.
    """

    encoded_columns: ClassVar[tuple[str, ...]] = ("start_position", "end_position")

    def __init__(self, config: BertComprehensionConfig) -> None:
        model, self._data = config.model, config.data
        self.search = Search(model.n_best_size, model.max_answer_length, model.null_score_threshold)
        self.metric = model.answer_metric

    def table_columns(self) -> list[str]:
        """Returns the column with the answers.

        Raises:
            ConfigError: It is not named.
        """
        if not self._data.label_name:
            raise ConfigError("the column with the answers is not named", fix="give --labelName=<answer column>")
        return [self._data.label_name]

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns where the first right answer of every question stands in its windows; wrong answers are bad rows."""
        questions: EncodedQuestions = inputs[0]
        answers = []
        for row, asked in enumerate(chunk.columns[ASKED]):
            found = [token_span(questions.spans[row], gold) for gold in asked.golds]
            if asked.problem is not None:
                chunk.reject(row, self._data.label_name, asked.problem)
            elif None in found:
                chunk.reject(row, self._data.label_name, "empty answer: the answer has no token")
            answers.append(found[0] if found else None)
        windows = zip(questions.row_of.tolist(), questions.windows, strict=True)
        places = np.array([window.positions(answers[row]) for row, window in windows], np.int32).reshape(-1, 2)
        return Encoded({"start_position": places[:, 0], "end_position": places[:, 1]}, row_of=questions.row_of)

    def on_train_table(self, train: EncodedTable) -> None:
        """Checks the positions of a table of token ids.

        Raises:
            DataError: A position lies behind the end of its row.
        """
        lengths = train.columns["input_ids"].lengths
        for name in self.encoded_columns:
            wrong = np.flatnonzero((train.columns[name] < 0) | (train.columns[name] >= lengths))
            if len(wrong):
                raise DataError(
                    f"{name} of accepted row {wrong[0] + 1} lies outside of its {lengths[wrong[0]]} tokens",
                    received=int(train.columns[name][wrong[0]]),
                )

    # Training ------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns half the cross entropies of start and end, summed over windows."""
        start, end = batch["start_position"], batch["end_position"]
        logits = outputs["start_logits"], outputs["end_logits"]
        weight = batch["example_weight"]
        return {"loss": Loss(span_cross_entropy_sum(start, end, *logits, weight), tf.reduce_sum(weight))}

    def evaluator(self) -> Evaluator:
        """Returns exact match, F1, accuracy of positions and loss."""
        return ComprehensionEvaluator(self.search, self.metric)

    # Results -------------------------------------------------------------------------------------------------

    def answers(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> list[tuple[Asked, Answer, int]]:
        """Returns for every row its question, the answer, and the example the answer is from.

        Raises:
            ConfigError: The table holds token ids, from which no text can be cut.
        """
        if "window" not in encoded.columns:
            raise ConfigError(
                "a table of token ids has no texts to cut answers from", fix="predict the table of the texts"
            )
        column, (start, end) = encoded.columns["window"], (outputs["start_logits"], outputs["end_logits"])
        edges = np.searchsorted(encoded.row_of, np.arange(encoded.row_count + 1)).tolist()
        found = []
        for first, last in zip(edges, edges[1:], strict=False):
            windows = list(map(Window.from_json, column.objects(range(first, last))))
            answer = self.search.answer(windows, start[first:last], end[first:last])
            found.append((windows[0].asked, answer, first + answer.window))
        return found

    def output_columns(self) -> tuple[str, ...]:
        """Returns the usual columns, and those written on request once an `outputSchema` is given."""
        return COLUMNS if self._data.output_schema is None else (*COLUMNS, *EXTRA_COLUMNS)

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns the columns of `output_columns`; the logits are those of the window the answer is from."""
        rows: dict[str, list[Any]] = {name: [] for name in (*COLUMNS, *EXTRA_COLUMNS)}
        lengths = encoded.columns["input_ids"].lengths
        for asked, answer, example in self.answers(outputs, encoded):
            length = lengths[example]
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

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns `answer` (text), `start`, `end` (in characters of the context, -1 for no answer) and `score`."""
        from appzoo.text_comprehension.serving import best_answers

        return best_answers(outputs, self.search)

    def answer_rows(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, np.ndarray]:
        """Returns what `answer` returns, by NumPy."""
        found = [answer for _, answer, _ in self.answers(outputs, encoded)]
        return {
            "answer": text_array([answer.text for answer in found]),
            "start": np.array([answer.start for answer in found], np.int32),
            "end": np.array([answer.end for answer in found], np.int32),
            "score": np.array([answer.score for answer in found], np.float32),
        }

    def report(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Writes `answers.html`: contexts with right and predicted answers marked."""
        if "window" not in encoded.columns:
            return []
        found = [(asked, answer) for asked, answer, _ in self.answers(outputs, encoded)]
        return [write_answers(folder, found, self.metric)]
