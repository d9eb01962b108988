"""The frozen network that a student learns from: any classifier of one text or a pair, with tokens of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from appzoo.discovery import find_application
from appzoo.distilled_label import PREFIX, StudentLabel
from appzoo.pooled_model import PooledModel
from easytransfer.app.frozen import Frozen
from easytransfer.app.inputs.base import Input
from easytransfer.app.inputs.tokens import TokensInput
from easytransfer.app.inputs.words import WordsInput
from easytransfer.app.targets.labels import LabelTarget
from easytransfer.config.job import DataConfig
from easytransfer.data.id_tables import is_id_table
from easytransfer.data.labels import LabelMap
from easytransfer.data.schema import parse_schema
from easytransfer.errors import ConfigError, ModelError
from easytransfer.train.task import Batch, Outputs

ROLE = "teacher"


class Teacher:
    """Answers of a network that is not trained, and what its layers compute.

    Args:
        path: Run folder, checkpoint or export of an application that classifies one text or a pair.
        target: Of the student: its classes must be the teacher's. Encodes for the teacher from now on, where that does
            not read the arrays of the student.
        inputs: Of the student.
        data: Columns of the student's table.

    Attributes:
        frozen: Gives `logits`.
        shares_tokens: Whether it reads the arrays of the student.

    Raises:
        ModelError: Nothing usable is there, or it does not fit the student.
    """

    def __init__(self, path: str, target: StudentLabel, inputs: Sequence[Input], data: DataConfig) -> None:
        frozen = Frozen.open(path, find_application, ROLE, arrays=self.arrays)
        self.frozen, app, place = frozen, frozen.app, frozen.place
        _check_target(frozen, target)
        pair = app.config.data.second_sequence is not None
        if pair != (data.second_sequence is not None):
            raise ModelError(
                f"{place} reads {'pairs of texts' if pair else 'one text'}, and this run does not",
                fix=f"take another teacher, or {'name' if pair else 'leave out'} secondSequence",
            )
        # Its texts are in the columns of this run's tables, and what is too long for it is cut.
        columns = {"first_sequence": data.first_sequence, "second_sequence": data.second_sequence}
        own = app.config.data.model_copy(update={**columns, "no_truncate": False})
        app.config = app.config.model_copy(update={"data": own})
        folder = Path(frozen.record["path"])
        app.load_parts(folder / "assets" if frozen.record["kind"] == "export" else folder.parent)
        self.shares_tokens = _same_arrays(inputs, app.inputs)
        if not self.shares_tokens and data.input_schema and is_id_table(parse_schema(data.input_schema)):
            raise ConfigError(
                f"tables of token ids have no text for {place}, which has a vocabulary or a length of its own",
                fix="give tables of texts, or a teacher of this tokenizer and sequenceLength",
            )
        target.with_teacher(() if self.shares_tokens else app.inputs)
        self._check_logits(target.num_outputs)

    def __call__(self, batch: Batch) -> Outputs:
        """Returns `logits` float32 [batch, classes]."""
        return {"logits": self.frozen(batch)["logits"]}

    def inside(self, batch: Batch, attentions: bool) -> Outputs:
        """Returns the same, and what its layers compute; see `PooledModel.with_states`.

        Args:
            batch: Arrays of the training.
            attentions: Whether attentions are wanted too.
        """
        model = self.model

        def call(arrays: Batch) -> Outputs:
            return model.with_states(arrays, attentions=attentions)

        return Frozen(ROLE, call, self.frozen.specs, self.frozen.record, self.arrays)(batch)

    @property
    def model(self) -> PooledModel:
        """The network of a run; only those with a pre-trained encoder below one dense layer can be looked into.

        Raises:
            ModelError: It is another one, or an export.
        """
        if self.frozen.record["kind"] == "export":
            raise ModelError(f"{self.frozen.place} is an export, whose layers are not to be seen", fix="give its run")
        model = self.frozen.app.model
        if not isinstance(model, PooledModel):
            raise ModelError(
                f"{self.frozen.place} has no encoder with layers",
                received=self.frozen.record["model_name"],
                accepted="a run of text_classify_bert, text_match_bert or distillation_text_bert",
            )
        return model

    def check_tokens(self) -> None:
        """Checks that layers can be compared token by token.

        Raises:
            ModelError: The teacher has other tokens than the student.
        """
        if not self.shares_tokens:
            raise ModelError(
                f"{self.frozen.place} has other tokens than the student, so that their layers cannot be compared",
                fix="give the student an encoder of the teacher's vocabulary, and its "
                f"sequenceLength={self.frozen.app.config.data.sequence_length}",
            )

    def _check_logits(self, classes: int) -> None:
        """Calls the network once: a cosine, too, answers with a class, and is no logits of classes."""
        prefix = "" if self.shares_tokens else PREFIX
        specs = self.frozen.specs.items()
        batch = {f"{prefix}{name}": tf.zeros([size or 4 for size in spec.shape], spec.dtype) for name, spec in specs}
        if self(batch)["logits"].shape[1:] != [classes]:
            raise _no_classifier(self.frozen)

    def arrays(self, batch: Batch) -> Batch:
        """Returns the arrays of the teacher, by the names that it has for them, from a batch of the training."""
        if self.shares_tokens:
            return batch
        return {name: batch[f"{PREFIX}{name}"] for name in self.frozen.specs if f"{PREFIX}{name}" in batch}


def _check_target(frozen: Frozen, target: StudentLabel) -> None:
    """Checks that the network gives texts the student's classes."""
    theirs, place = frozen.app.target, frozen.place
    texts = all(isinstance(part, TokensInput | WordsInput) for part in frozen.app.inputs)
    if not texts or not isinstance(theirs, LabelTarget) or theirs.kind != "classification":
        raise _no_classifier(frozen)
    if theirs.names != target.names:
        raise ModelError(
            f"{place} has other labels, or in another order",
            received=theirs.labels.describe(),
            accepted=LabelMap(list(target.names or ())).describe(),
            fix="list them as it has them in label_enumerate_values, or take another one",
        )


def _no_classifier(frozen: Frozen) -> ModelError:
    return ModelError(
        f"{frozen.place} gives no logits of classes",
        received=frozen.record["model_name"],
        accepted="a run or export that gives a text, or a pair of texts, one of several classes",
    )


def _same_arrays(ours: Sequence[Input], theirs: Sequence[Input]) -> bool:
    """Returns whether two networks read the same arrays for every text."""
    return len(ours) == len(theirs) and all(
        (a.specs(), a.meaning(), a.table_columns()) == (b.specs(), b.meaning(), b.table_columns())
        and getattr(a, "max_length", None) == getattr(b, "max_length", None)
        for a, b in zip(ours, theirs, strict=True)
    )
