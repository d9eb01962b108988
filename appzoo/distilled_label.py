"""What a student learns beside its teacher: the class of a row, where the row has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.app.inputs.base import Encoded, Input
from easytransfer.app.targets.labels import SingleLabel
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.label_names import class_name, one_value
from easytransfer.data.table import RowChunk
from easytransfer.errors import DataError
from easytransfer.losses.classification import softmax_cross_entropy_sum
from easytransfer.metrics.classification import ClassificationEvaluator
from easytransfer.run.log import say, warn_once
from easytransfer.train.task import Batch

UNLABELLED = -1
# Before the names of arrays that only the teacher reads, and the column of answers it gave beforehand.
PREFIX, TEACHER_LOGITS = "teacher_", "teacher_logits"


class StudentLabel(SingleLabel):
    """One class per row, `label_id` int32 [batch]; with a teacher a row may have none, which is -1.

    Args:
        labels: The classes.

    Attributes:
        teacher_inputs: What encodes the texts for the teacher, where its tokens are not the student's.
        takes_unlabelled: Whether an empty label is a row that only the teacher says something about.
    """

    teacher_inputs: Sequence[Input] = ()
    takes_unlabelled = False

    def with_teacher(self, inputs: Sequence[Input]) -> None:
        """Takes rows without label from now on, and encodes the texts for a teacher.

        Args:
            inputs: Of the teacher; none where it reads the arrays of the student.
        """
        self.takes_unlabelled, self.teacher_inputs = True, tuple(inputs)
        names = [f"{PREFIX}{name}" for part in inputs for name in part.specs()]
        self.encoded_columns = ("label_id", *names)  # type: ignore[misc]
        self.masks = {f"{PREFIX}{mask}": f"{PREFIX}{of}" for part in inputs for mask, of in part.masks.items()}
        self.pad_values = {f"{PREFIX}{name}": pad for part in inputs for name, pad in part.pad_values.items()}

    def read(self, cell: Any) -> int:
        """Returns the class id, -1 for an empty cell where that is allowed."""
        if self.takes_unlabelled and not class_name(one_value(cell)):
            return UNLABELLED
        return super().read(cell)

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns `label_id`, and the arrays of the teacher under names of their own."""
        columns = dict(super().encode(chunk, inputs).columns)
        for part in self.teacher_inputs:
            columns |= {f"{PREFIX}{name}": column for name, column in part.encode(chunk).columns.items()}
        return Encoded(columns)

    def loss_sum(self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """Returns softmax cross entropy; rows without label have none."""
        labelled = tf.cast(labels >= 0, tf.float32)
        return softmax_cross_entropy_sum(
            tf.maximum(labels, 0),
            logits,
            weight * labelled,
            class_weights=self.class_weights,
            label_smoothing=self.label_smoothing,
        )

    def loss_weight(self, batch: Batch) -> tf.Tensor:
        """Returns the number of real rows, those with a label as often as their class weight says."""
        weights, labels = batch["example_weight"], batch["label_id"]
        if self.class_weights is None:
            return tf.reduce_sum(weights)
        own = tf.gather(self.class_weights, tf.maximum(labels, 0))
        return tf.reduce_sum(weights * tf.where(labels >= 0, own, 1.0))

    def on_train_table(self, train: EncodedTable) -> None:
        """Resolves class weights, and says how many rows have no label."""
        labels = np.asarray(train.columns["label_id"])
        if missing := int((labels < 0).sum()):
            say(f"{missing:,} of {len(labels):,} training rows have no label: they learn from the teacher alone")
        super().on_train_table(EncodedTable({"label_id": labels[labels >= 0]}))

    def evaluator(self) -> StudentEvaluator:
        """Returns the metrics of classification, and with a teacher those beside it."""
        return StudentEvaluator(self.names)


class StudentEvaluator(ClassificationEvaluator):
    """Metrics of classification of the rows that have a label.

    Where outputs have `teacher_logits` also `teacher_accuracy`, and `agreement`: the share of these rows that student
    and teacher give the same class.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self._unlabelled = 0

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        labels = np.asarray(batch["label_id"]).reshape(-1)
        known = labels >= 0
        self._unlabelled += int((~known).sum())
        logits = np.asarray(outputs["logits"])[known]
        super().update({"label_id": labels[known]}, {"logits": logits})
        if TEACHER_LOGITS in outputs:
            guesses = np.asarray(outputs[TEACHER_LOGITS])[known].argmax(axis=-1)
            self.add(teacher_right=guesses == labels[known], agrees=guesses == logits.argmax(axis=-1))

    def state(self) -> Any:
        """Returns the rows, and how many were left out."""
        return super().state(), self._unlabelled

    def merge(self, state: Any) -> None:
        """Adds rows of another evaluator."""
        super().merge(state[0])
        self._unlabelled += state[1]

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats.

        Raises:
            DataError: There are rows, and none has a label.
        """
        if self._unlabelled and not len(self):
            raise DataError("no row of the evaluation table has a label", fix="give one whose rows have labels")
        found = super().result()
        if self._unlabelled:
            warn_once(f"{self._unlabelled:,} rows of the evaluation table have no label and are not measured")
        if len(self) and "agrees" in self._parts:
            means = {"teacher_accuracy": "teacher_right", "agreement": "agrees"}
            found |= {name: float(self.rows(of).mean()) for name, of in means.items()}
        return found

    def report(self) -> dict[str, Any]:
        """Returns parts of the report, and how many rows of the evaluation table had no label."""
        return {**super().report(), "unlabelled_rows": self._unlabelled}
