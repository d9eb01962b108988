"""What the answer of an application does: labels in, losses and metrics between, output columns out."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from easytransfer.app.inputs.base import Encoded
from easytransfer.app.renamed import TARGET_MEMBERS, refuse_earlier_names
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.step import Losses, Step
from easytransfer.train.task import Batch, Outputs


class Target(abc.ABC):
    """One kind of answer: how labels are read, what is trained, how it is measured, what is written and served."""

    # Columns of `encode`, which the model never reads.
    encoded_columns: ClassVar[tuple[str, ...]] = ("label_id",)
    # Files of `save_assets`, which an export takes along.
    asset_files: ClassVar[tuple[str, ...]] = ()
    # Mask that batches get -> `Ragged` column of labels; values behind the end of its rows.
    masks: Mapping[str, str] = {}
    pad_values: Mapping[str, float] = {}
    # Rows read and encoded at a time, at most; None leaves it to the application.
    chunk_rows: int | None = None
    # Names of the classes in the order of their ids; None where there are none.
    names: list[str] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_earlier_names(cls, TARGET_MEMBERS)

    @abc.abstractmethod
    def table_columns(self) -> list[str]:
        """Returns the names of the table columns that `encode` reads."""

    @abc.abstractmethod
    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns the labels, one entry for every position; calls `chunk.reject` for rows that cannot be used.

        Args:
            chunk: Rows of the table.
            inputs: What each input made of the chunk. Where one makes several examples of a row, labels may be those
                of its examples, with the `row_of` of that input; others are repeated.
        """

    @abc.abstractmethod
    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns losses by name; see `Task.losses`."""

    @abc.abstractmethod
    def evaluator(self) -> Evaluator:
        """Returns a fresh evaluator."""

    @abc.abstractmethod
    def output_columns(self) -> tuple[str, ...]:
        """Returns the names of the columns of `postprocess`, in their default order."""

    @abc.abstractmethod
    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns the output columns, one entry for every row of `encoded`."""

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns, inside a graph, what a server answers; by default all outputs.

        Args:
            outputs: What was predicted, and what `Input.from_request` returned beside arrays.
        """
        return dict(outputs)

    def answer_rows(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, np.ndarray]:
        """Returns what `answer` returns, by NumPy, for a server without TensorFlow; texts are bytes.

        Who overrides `answer` overrides this too, or such a server takes arrays alone.
        """
        raise NotImplementedError(f"{type(self).__name__} answers in a graph alone")

    def signatures(self, raw: Signature) -> dict[str, Signature]:
        """Returns further signatures made from the one on raw inputs, such as those of `tf.Example`."""
        return {}

    def on_train_table(self, train: EncodedTable) -> None:  # noqa: B027 - nothing to do is the usual case
        """Looks at the encoded training table before assets are saved: class weights and the like."""

    def save_assets(self, folder: Path) -> None:  # noqa: B027 - nothing to save is the usual case
        """Writes `asset_files`: what is needed to make this target again from the folder."""

    def report(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Writes what people would rather look at than read into a run folder; returns the file names."""
        return []
