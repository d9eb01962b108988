"""Whether a sentence is true, and which sentence it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from appzoo.visual_reasoning.metrics import NlvrEvaluator, sentence_of
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.labels import SingleLabel
from easytransfer.data.encoded import HostColumn
from easytransfer.data.label_names import class_name, one_value
from easytransfer.data.labels import LabelMap
from easytransfer.data.table import RowChunk
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.task import Outputs


class Truth(SingleLabel):
    """`label_id` int32 [batch], and on the host `sentence`, what rows of one sentence share.

    Args:
        labels: Two classes; a cell may write them with other capitals.
        identifier: Table column with the identifiers; None where there is none.
    """

    encoded_columns: ClassVar[tuple[str, ...]] = ("label_id", "sentence")

    def __init__(self, labels: LabelMap, identifier: str | None = None) -> None:
        super().__init__(labels)
        self.identifier = identifier

    def table_columns(self) -> list[str]:
        """Returns the columns of labels and identifiers."""
        return [*super().table_columns(), *([self.identifier] if self.identifier else [])]

    def read(self, cell: Any) -> int:
        """Returns the class id."""
        name = class_name(one_value(cell))
        return super().read(name if name in self.labels.ids else name.lower())

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns labels and sentences; an identifier of another form is a bad row."""
        sentences: list[str | None] = [None] * len(chunk.index)
        for row, cell in enumerate(chunk.columns[self.identifier] if self.identifier else ()):
            try:
                sentences[row] = sentence_of(class_name(cell))
            except ValueError as error:
                chunk.reject(row, str(self.identifier), str(error))
        columns = super().encode(chunk, inputs).columns
        return Encoded({**columns, "sentence": HostColumn.of(sentences)})

    def evaluator(self) -> NlvrEvaluator:
        """Returns accuracy and consistency."""
        return NlvrEvaluator(self.labels.names)

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns what classes have, and the `score` also as `probability`, the one name it had before."""
        found = super().answer(outputs)
        return {**found, "probability": found["score"]}

    def signatures(self, raw: Signature) -> dict[str, Signature]:
        """Returns no more: a `tf.Example` has no regions."""
        return {}
