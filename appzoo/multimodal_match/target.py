"""Whether a text and an image match: two classes, and the candidate list that a row belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from appzoo.multimodal_match.metrics import MatchEvaluator
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.labels import SingleLabel
from easytransfer.data.labels import LabelMap
from easytransfer.data.table import RowChunk
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.train.task import Outputs

MATCH = 1


class MatchTarget(SingleLabel):
    """Two classes, the match second.

    Args:
        labels: Names of the classes.
        list_column: Table column that tells candidate lists apart; None without lists.
    """

    def __init__(self, labels: LabelMap, list_column: str | None = None) -> None:
        super().__init__(labels)
        self.list_column = list_column

    @property
    def encoded_columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """The label, and with lists which list and which row of the table it is."""
        return ("label_id", *(("list_id", "row_number") if self.list_column else ()))

    def table_columns(self) -> list[str]:
        """Returns the columns of the label and of the lists."""
        return [self.column, *([self.list_column] if self.list_column else [])]

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns `label_id`, and with lists `list_id` and `row_number` int64."""
        found = super().encode(chunk, inputs)
        if self.list_column is None:
            return found
        lists = np.array([list_id(str(cell)) for cell in chunk.columns[self.list_column]], np.int64)
        return Encoded({**found.columns, "list_id": lists, "row_number": np.asarray(chunk.index, np.int64)})

    def evaluator(self) -> Evaluator:
        """Returns the metrics of two classes, and of candidate lists."""
        return MatchEvaluator(self.names, listed=self.list_column is not None)

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns also `match`, the probability that they match, float32 [batch]."""
        found = super().answer(outputs)
        return {**found, "match": found["probabilities"][:, MATCH]}


def list_id(name: str) -> int:
    """Returns a 64-bit number of the name of a list, the same in every process."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
