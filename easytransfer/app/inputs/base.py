"""What an input of an application does: table cells and served tensors in, the same arrays of the model out."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.layers.draws import RowDraws

Column = Ragged | np.ndarray
Tensors = dict[str, "tf.Tensor"]


@dataclass
class Encoded:
    """What an input or a target makes of a chunk; a subclass may tell targets more of it, see `Target.encode`.

    Attributes:
        columns: One entry for every position of the chunk, those of rejected rows too; with `row_of` one for every
            example. What the model does not read, such as texts for `postprocess`, is a `HostColumn`.
        counts: Of a text, by position: whether it was `truncated`, `tokens`, how many of them are `unknown`, and what
            else is added up, such as `windows`; empty for other inputs.
        row_of: Where a row becomes several examples: the position of each example, int [examples], not decreasing and
            none left out. None = one example for every position.

    Raises:
        ValueError: A column is an array of dtype object.
    """

    columns: dict[str, Column]
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    row_of: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if isinstance(column, np.ndarray) and column.dtype == object:
                raise ValueError(f"column {name} is an array of objects: what stays on the host is a HostColumn")


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Returns the columns of several parts of an application side by side, without counts.

    Where one part makes several examples of a row, the entries of parts with one for every position are repeated.

    Raises:
        ValueError: Two parts make different examples of the rows.
    """
    rows = [part.row_of for part in parts if part.row_of is not None]
    if any(not np.array_equal(other, rows[0]) for other in rows[1:]):
        raise ValueError("two parts of the application make different examples of the same rows")
    row_of = rows[0] if rows else None
    columns: dict[str, Column] = {}
    for part in parts:
        whole = row_of is None or part.row_of is not None
        columns |= part.columns if whole else {name: taken(each, row_of) for name, each in part.columns.items()}
    return Encoded(columns, row_of=row_of)


def taken(column: Column, entries: np.ndarray) -> Column:
    """Returns some entries of a column, [entries], in that order."""
    return column.take(entries) if isinstance(column, Ragged) else column[entries]


class Input(abc.ABC):
    """One input of a network.

    Example:
        >>> class Numbers(Input):
        ...     def table_columns(self):
        ...         return ["x"]
        ...     def encode(self, chunk):
        ...         return Encoded({"x": np.asarray(chunk.columns["x"], np.float32)})
        ...     def specs(self):
        ...         return {"x": tf.TensorSpec([None], tf.float32)}
        ...     def samples(self):
        ...         return {"x": np.float32([0, 1])}
    """

    # Files of `save_assets`, which an export takes along.
    asset_files: ClassVar[tuple[str, ...]] = ()
    # Whether a text of this input has a vector of its own, and is counted as a text and not as a part of its row.
    reads_apart: bool = False
    # Whether what `encode` returns can be written as a table and read again in place of the raw one.
    preprocessable: ClassVar[bool] = True
    # What a request holds, for the manifest of an export.
    doc: str = "raw rows"
    # Rows read and encoded at a time, at most; None leaves it to the application.
    chunk_rows: int | None = None
    # Name of a mask that batches get -> `Ragged` column it marks the real positions of.
    masks: Mapping[str, str] = {}
    # Further arrays that are as long as a mask has ones -> that mask.
    lengths: Mapping[str, str] = {}
    # Value behind the end of the rows of a `Ragged` column, 0 where not given.
    pad_values: Mapping[str, float] = {}

    @abc.abstractmethod
    def table_columns(self) -> list[str]:
        """Returns the names of the table columns that `encode` reads."""

    def text_columns(self) -> dict[str, ListForm]:
        """Returns the columns that `encode` takes as text, and what becomes of lists in them; see `Column.lists`."""
        return {}

    def explode(self, chunk: RowChunk) -> RowChunk:
        """Returns the chunk with a row for each of the things that a row of the table holds, see `RowChunk.explode`.

        All parts and the output see these rows, and they are the rows that are counted. Where a row is one thing that
        a network reads in several pieces, `encode` returns several examples instead.
        """
        return chunk

    @abc.abstractmethod
    def encode(self, chunk: RowChunk) -> Encoded:
        """Encodes a chunk; calls `chunk.reject(row, column, reason)` for rows that cannot be used."""

    def read_files(self) -> list[str]:
        """Returns files and folders that `encode` reads beside the table; rows are encoded anew where one changes."""
        return []

    @abc.abstractmethod
    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns shape and dtype of each array of a batch, masks included; axes that batches differ in are None."""

    def meaning(self) -> dict[str, Any]:
        """Returns what says, beside shapes, what the numbers mean, such as a vocabulary; empty where shapes say all.

        Networks that share arrays must agree on it, see `app.frozen`; keys are words for a message.
        """
        return {}

    def serving_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns shape and dtype of each raw tensor of a request; by default those of the arrays."""
        return self.specs()

    @abc.abstractmethod
    def samples(self) -> dict[str, np.ndarray]:
        """Returns rows, equally many for each tensor of `serving_specs`, that every export is checked on."""

    def from_request(self, tensors: Tensors) -> Tensors:
        """Returns, inside a graph, the arrays of `specs` for raw tensors: the same as `encode` makes of such rows.

        Further tensors go to `Target.answer` beside the outputs: what it takes to come from several examples of a row
        back to the row.
        """
        return tensors

    def request_columns(self) -> Mapping[str, str]:
        """Returns the table column of each raw text of `serving_specs`, for a server that encodes requests like tables.

        Empty where a request is anything but texts.
        """
        return {}

    def serving_module(self, folder: Path) -> tf.Module | None:
        """Returns the owner of lookup tables that `from_request` uses; called before it, with `save_assets` done."""
        return None

    def augment(self, batch: Tensors, draws: RowDraws) -> Tensors:
        """Returns a training batch changed at random, inside a graph; `draws` is the only source of randomness."""
        return batch

    def masked(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """Returns, for `outputSchema=bert_pretrain`, `input_ids` with pieces hidden and the columns that say which.

        Args:
            rows: Arrays of encoded rows, padded.

        Returns:
            `input_ids` and the columns `id_tables.HIDDEN`; None where words are hidden by `TokenMasker`.
        """
        return None

    def on_train_table(self, train: EncodedTable) -> None:  # noqa: B027 - nothing to do is the usual case
        """Looks at the encoded training table before assets are saved: statistics and the like."""

    def save_assets(self, folder: Path) -> None:  # noqa: B027 - nothing to save is the usual case
        """Writes `asset_files`: what is needed to make this input again from the folder."""
