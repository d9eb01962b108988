"""Distillation of labellers: a student learns a teacher's answer for every word, as well as the tags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.discovery import find_application
from appzoo.distillation_text.config import LabelingDistillationConfig
from appzoo.distilled_label import TEACHER_LOGITS, UNLABELLED
from appzoo.labeling.base import LabelingApp
from appzoo.labeling.data import split_tags
from appzoo.labeling.entities import EntityEvaluator
from appzoo.labeling.model import at_words
from appzoo.labeling.target import TagTarget, known_tags
from appzoo.student_encoder import StudentEncoder
from appzoo.taught_app import TaughtApp
from appzoo.text_teacher import ROLE
from easytransfer.app.assets import Assets
from easytransfer.app.frozen import Frozen
from easytransfer.app.inputs.base import Input
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.labels import LabelMap
from easytransfer.data.table import RowChunk
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.losses.distillation import kd_rows
from easytransfer.run.log import say, warn_once
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs


class StudentTags(TagTarget):
    """One tag for every word or character; with a teacher a row may have none, which its tokens' label -1 says.

    Attributes:
        takes_unlabelled: Whether a row with an empty cell of tags is one that only the teacher says something about.
    """

    takes_unlabelled = False

    def _read(self, chunk: RowChunk, row: int, cell: Any, count: int) -> list[int]:
        if self.takes_unlabelled and count and not split_tags(cell):
            return [UNLABELLED] * count
        return super()._read(chunk, row, cell, count)

    def on_train_table(self, train: EncodedTable) -> None:
        """Says how many rows have no tags."""
        if not self.takes_unlabelled:
            return
        labelled = np.unique(train.row_of[_labelled(train)])
        if missing := train.row_count - len(labelled):
            say(f"{missing:,} of {train.row_count:,} training rows have no tags: they learn from the teacher alone")

    def evaluator(self) -> StudentTagEvaluator:
        """Returns the metrics of labelling, and with a teacher those beside it."""
        return StudentTagEvaluator(self.names, before=self.words.before)

    def report(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Writes the page of sequence labelling; none where rows have no tags to compare with."""
        return super().report(folder, encoded, outputs) if _labelled(encoded).all() else []


def _labelled(table: EncodedTable) -> np.ndarray:
    """Returns whether each window has a label, bool [windows]; one that answers for no word has none to miss."""
    labels, starts = table.columns["label_id"], table.columns["word_starts"]
    return np.array([bool((labels[i] >= 0).any()) or not (starts[i] > 0).any() for i in range(len(table))], bool)


class StudentTagEvaluator(EntityEvaluator):
    """Metrics of labelling of the rows that have tags.

    Where outputs have `teacher_logits` [batch, words, tags] also `teacher_accuracy` and `teacher_f1`, and `agreement`:
    the share of these words that student and teacher give the same tag.
    """

    def __init__(self, labels: Sequence[str], *, before: int = 1) -> None:
        super().__init__(labels, before=before)
        self._teacher = EntityEvaluator(labels, before=before)
        # Rows without tags; words that both have answered, and those with one answer.
        self._counts = np.zeros(3, np.int64)

    def update(self, batch: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Adds one batch of real windows."""
        has_label = [bool((np.asarray(labels) >= 0).any()) for labels in batch["label_id"]]
        known = np.flatnonzero(has_label)
        places = batch.get("place", [(0, 0, 1)] * len(has_label))
        self._counts[0] += sum(
            not labelled and place[1] == 0 for labelled, place in zip(has_label, places, strict=True)
        )
        mine = {name: [value[i] for i in known] for name, value in batch.items()}
        super().update(mine, {name: [outputs[name][i] for i in known] for name in ("tags", "log_probabilities")})
        if TEACHER_LOGITS not in outputs:
            return
        logits = [np.asarray(outputs[TEACHER_LOGITS][i], np.float64) for i in known]
        tags = [each.argmax(axis=-1) for each in logits]
        logs = [each - np.logaddexp.reduce(each, axis=-1, keepdims=True) for each in logits]
        self._teacher.update(mine, {"tags": tags, "log_probabilities": logs})
        for theirs, starts, i in zip(tags, mine["word_starts"], known, strict=True):
            words = int((np.asarray(starts) > 0).sum())
            same = np.asarray(outputs["tags"][i])[:words] == theirs[:words]
            self._counts[1:] += words, int(same.sum())

    def state(self) -> Any:
        """Returns the counts of student and teacher."""
        return super().state(), self._teacher.state(), self._counts

    def merge(self, state: Any) -> None:
        """Adds windows of another evaluator."""
        super().merge(state[0])
        self._teacher.merge(state[1])
        self._counts = self._counts + state[2]

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats.

        Raises:
            DataError: There are rows, and none has tags.
        """
        found, (unlabelled, words, same) = super().result(), self._counts.tolist()
        if unlabelled and np.isnan(found["accuracy"]):
            raise DataError("no row of the evaluation table has tags", fix="give one whose rows have tags")
        if unlabelled:
            warn_once(f"{unlabelled:,} rows of the evaluation table have no tags and are not measured")
        if words:
            theirs = self._teacher.result()
            found |= {f"teacher_{name}": theirs[name] for name in ("accuracy", "f1")} | {"agreement": same / words}
        return found

    def report(self) -> dict[str, Any]:
        """Returns parts of the report, and how many rows of the evaluation table had no tags."""
        return {**super().report(), "unlabelled_rows": int(self._counts[0])}


class TagTeacher:
    """Answers for every word of a network that is not trained: a labeller that reads the student's windows.

    Args:
        path: Run folder, checkpoint or export of an application that gives words tags.
        target: Of the student: tags and what has one must be the teacher's.
        inputs: Of the student.
        kd_loss: How answers are compared.

    Attributes:
        frozen: The network.

    Raises:
        ModelError: Nothing usable is there, or it does not fit the student.
        ConfigError: Windows are longer than the teacher takes, or it has probabilities where logits are compared.
    """

    def __init__(self, path: str, target: StudentTags, inputs: Sequence[Input], kd_loss: str) -> None:
        self.frozen = frozen = Frozen.open(path, find_application, ROLE)
        theirs, place, (words,) = frozen.app.target, frozen.place, inputs
        if not isinstance(theirs, TagTarget):
            raise ModelError(
                f"{place} gives words no tags",
                received=frozen.record["model_name"],
                accepted="a run or export of sequence_labeling_bert or distillation_text_labeling",
            )
        if theirs.names != target.names:
            raise ModelError(
                f"{place} has other tags, or in another order",
                received=theirs.labels.describe(),
                accepted=LabelMap(list(target.names or ())).describe(),
                fix="list them as it has them in label_enumerate_values, or take another one",
            )
        if theirs.words.unit != words.unit:
            raise ModelError(
                f"{place} gives every {theirs.words.unit} a tag, and this run every {words.unit}",
                fix=f"set model.unit={theirs.words.unit}, or take another one",
            )
        frozen.require_inputs(inputs)
        limit = frozen.app.inputs[0].encoder.config.max_tokens
        if words.max_length > limit:
            raise ConfigError(
                f"sequenceLength exceeds the positions of {place}",
                received=words.max_length,
                accepted=f"at most {limit}",
            )
        self._has_crf, self._before = frozen.app.use_crf, words.before
        if self._has_crf and kd_loss == "mse":
            raise ConfigError(
                f"{place} has a CRF, which gives probabilities of tags and no logits to compare by kd_loss=mse",
                fix="set distillation.kd_loss=kld or xent",
            )

    def __call__(self, batch: Batch) -> tf.Tensor:
        """Returns logits at the first pieces of words [windows, words, tags]; of a CRF log marginal probabilities."""
        found = self.frozen(batch)
        if self._has_crf:
            return found["log_probabilities"]
        return at_words(found["logits"], batch["word_starts"], self._before)[0]


class LabelingStudent(TaughtApp, LabelingApp):
    """An encoder of few layers with a dense layer on every token.

    With a teacher, labelled windows come with what it says of their words: `teacher_logits` [windows, words, tags].
    """

    encoder_type = StudentEncoder

    config: LabelingDistillationConfig
    target: StudentTags
    teacher: TagTeacher | None = None

    def build_target(self, assets: Assets) -> StudentTags:
        """Returns the tags, from the label option or from a trained run."""
        (words,) = self.inputs
        return StudentTags(known_tags(self.config, assets), words, self.config)

    def make_teacher(self, path: str) -> TagTeacher:
        """Opens a labeller with the student's tags and tokens; rows without tags are taken from now on."""
        teacher = TagTeacher(path, self.target, self.inputs, self.config.distillation.kd_loss)
        self.target.takes_unlabelled = True
        return teacher

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Returns the student's outputs and, for labelled windows, the `teacher_logits` of its teacher."""
        outputs = super().forward(batch, training)
        if self.teacher is None or "label_id" not in batch:
            return outputs
        return {**outputs, TEACHER_LOGITS: self.teacher(batch)}

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the cross entropy of labelled tokens and the distance to the teacher at words, their factors in.

        The first is divided by the labelled tokens; the second by all words, each counted in the one window that
        answers for it.
        """
        found = super().losses(batch, outputs, step)
        if self.teacher is None:
            return found
        settings = self.config.distillation
        (words,) = self.inputs
        ours, _ = at_words(outputs["logits"], batch["word_starts"], words.before)
        weight = tf.cast(batch["word_starts"] > 0, tf.float32) * batch["example_weight"][:, tf.newaxis]
        apart = kd_rows(outputs[TEACHER_LOGITS], ours, settings.kd_loss, settings.kd_temperature)
        labels, tokens = found["loss"]
        return {
            "ce_loss": Loss(settings.hard_factor * labels, tokens),
            "kd_loss": Loss(settings.soft_factor * tf.reduce_sum(apart * weight), tf.reduce_sum(weight)),
        }
