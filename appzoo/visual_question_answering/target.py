"""Answers of several people to a question: soft scores for the answers a network can give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.visual_question_answering.answers import MOST_ANSWERS, AnswerRule, unusable
from appzoo.visual_question_answering.metrics import VqaEvaluator
from appzoo.visual_question_answering.vocabulary import AnswerVocabulary, answers_of
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.app.targets.labels import best_classes, best_ids
from easytransfer.data.encoded import EncodedTable, HostColumn
from easytransfer.data.label_names import class_name
from easytransfer.data.table import RowChunk
from easytransfer.losses.classification import sigmoid_cross_entropy_sum
from easytransfer.metrics.scores import sigmoid
from easytransfer.run.log import warn
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs


class AnswerTarget(Target):
    """Answers of annotators as `answer_ids` and `answer_scores` [batch, 10], -1 and 0 behind the last.

    The scores are the accuracies that the answers would have (Teney et al. 2018, arXiv 1708.02711). A
    question none of whose answers the network can give stays: all its scores are 0, and it counts in the metrics.

    Args:
        column: Table column with the answers.
        vocabulary: Answers that the network can give.
        rule: When an answer is right.
        type_column: Table column with the type of the answers; None where there is none.
    """

    encoded_columns: ClassVar[tuple[str, ...]] = ("answer_ids", "answer_scores", "gold")
    asset_files: ClassVar[tuple[str, ...]] = (AnswerVocabulary.FILE,)

    def __init__(
        self, column: str, vocabulary: AnswerVocabulary, rule: AnswerRule, type_column: str | None = None
    ) -> None:
        self.column, self.vocabulary, self.rule, self.type_column = column, vocabulary, rule, type_column

    @property
    def names(self) -> list[str]:  # type: ignore[override]
        """The answers in the order of the outputs."""
        return self.vocabulary.answers

    def table_columns(self) -> list[str]:
        """Returns the column of the answers, and that of their types."""
        return [self.column, *([self.type_column] if self.type_column else [])]

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns ids and scores of known answers, and on the host all answers and their type."""
        shape, gold = [len(chunk.index), MOST_ANSWERS], []
        ids, scores = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
        types = chunk.columns[self.type_column] if self.type_column else [None] * len(chunk.index)
        for row, (cell, kind) in enumerate(zip(chunk.columns[self.column], types, strict=True)):
            answers = answers_of(cell)
            if (reason := unusable(answers, self.rule)) is not None:
                chunk.reject(row, self.column, reason)
            else:
                known = self.vocabulary.scores(answers, self.rule)
                ids[row, : len(known)], scores[row, : len(known)] = list(known), list(known.values())
            gold.append({"answers": answers, "type": (class_name(kind) or None) if kind is not None else None})
        return Encoded({"answer_ids": ids, "answer_scores": scores, "gold": HostColumn.of(gold)})

    def on_train_table(self, train: EncodedTable) -> None:
        """Tells how many questions have no answer that the network can give."""
        unknown = int((np.asarray(train.columns["answer_ids"]) < 0).all(axis=1).sum())
        if unknown:
            warn(
                f"{unknown:,} of {len(train):,} questions of the training table have none of the "
                f"{len(self.vocabulary):,} answers that the network can give"
            )

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the sigmoid cross entropy to the scores, summed over answers, by questions."""
        count, weight = len(self.vocabulary), batch["example_weight"]
        hot = tf.one_hot(batch["answer_ids"], count)
        wanted = tf.reduce_sum(hot * batch["answer_scores"][..., None], axis=1)
        # The sum over answers, not their mean: with thousands of them the gradient of one would vanish.
        total = count * sigmoid_cross_entropy_sum(wanted, outputs["logits"], weight)
        return {"loss": Loss(total, tf.reduce_sum(weight))}

    def evaluator(self) -> VqaEvaluator:
        """Returns the accuracy of the VQA challenge."""
        return VqaEvaluator(self.vocabulary.answers, self.rule)

    def output_columns(self) -> tuple[str, ...]:
        """Returns the answer, its score, and the five best with theirs."""
        return ("predictions", "score", "top5", "top5_score")

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns the columns; scores are sigmoids, from 0 to 1."""
        logits = np.asarray(outputs["logits"], np.float32)
        order = best_ids(logits)
        scores = sigmoid(np.take_along_axis(logits, order, axis=1)).astype(np.float32)
        names = [[self.vocabulary.answers[i] for i in row] for row in order.tolist()]
        best = {"predictions": [row[0] for row in names], "score": [float(row[0]) for row in scores]}
        return {**best, "top5": names, "top5_score": list(scores)}

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns `answer`, `score` [batch], `top5` and `top5_score` [batch, 5 or fewer]."""
        logits = tf.cast(outputs["logits"], tf.float32)
        names, ids = best_classes(self.vocabulary.answers, logits)
        scores = tf.sigmoid(tf.gather(logits, ids, batch_dims=1))
        return {"answer": names[:, 0], "score": scores[:, 0], "top5": names, "top5_score": scores}

    def save_assets(self, folder: Path) -> None:
        """Writes the answers."""
        self.vocabulary.save(folder)
