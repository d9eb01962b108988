"""The class of a row, where it has one, and the domain it is of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.labels import SingleLabel
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.label_names import class_name, one_value
from easytransfer.data.table import RowChunk
from easytransfer.run.log import say
from easytransfer.train.task import Batch

UNLABELLED = -1
# Of `domain`.
SOURCE, TARGET = 0, 1


class DomainLabel(SingleLabel):
    """One class per row, `label_id` int32 [batch], and `domain` int32 [batch].

    A row of a training table of the target domain may have an empty label, which is -1. Rows of other tables than those
    of the source domains are of the target domain.

    Args:
        labels: The classes.

    Attributes:
        source_files: Files of the source domains.
        target_files: Training files of the target domain.
    """

    encoded_columns: ClassVar[tuple[str, ...]] = ("label_id", "domain")
    source_files: Collection[str] = ()
    target_files: Collection[str] = ()
    _takes_unlabelled = False

    def read(self, cell: Any) -> int:
        """Returns the class id, -1 for an empty cell where that is allowed."""
        if self._takes_unlabelled and not class_name(one_value(cell)):
            return UNLABELLED
        return super().read(cell)

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns `label_id` and `domain`."""
        self._takes_unlabelled = chunk.file in self.target_files
        domain = SOURCE if chunk.file in self.source_files else TARGET
        columns = super().encode(chunk, inputs).columns
        return Encoded({**columns, "domain": np.full(len(chunk.index), domain, np.int32)})

    def loss_sum(self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """Returns softmax cross entropy; rows without label have none."""
        return super().loss_sum(tf.maximum(labels, 0), logits, weight * tf.cast(labels >= 0, tf.float32))

    def loss_weight(self, batch: Batch) -> tf.Tensor:
        """Returns the number of real rows with a label, or the sum of their class weights."""
        labels = batch["label_id"]
        weight = batch["example_weight"] * tf.cast(labels >= 0, tf.float32)
        return super().loss_weight({"label_id": tf.maximum(labels, 0), "example_weight": weight})

    def on_train_table(self, train: EncodedTable) -> None:
        """Resolves class weights, and says how many rows of which kind there are."""
        labels, domain = (np.asarray(train.columns[name]) for name in self.encoded_columns)
        unlabelled = int((labels < 0).sum())
        say(
            f"training rows: {int((domain == SOURCE).sum()):,} of source domains, "
            f"{int((domain == TARGET).sum()) - unlabelled:,} labelled and {unlabelled:,} unlabelled of the target"
        )
        super().on_train_table(EncodedTable({"label_id": labels[labels >= 0]}))
