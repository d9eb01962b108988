"""The App contract: what one application folder supplies. The core and `appzoo.jobs` do the rest."""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from easytransfer import keras
from easytransfer.config.job import JobConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.export.servable import Signature
from easytransfer.train.task import Task

LabelScan = Callable[[], "Counter[str]"]


class App(Task, abc.ABC):
    """One application: rows of a table in, rows of predictions out.

    Life of a row: `encode` turns cells into token ids and labels; the engine batches them and calls the model;
    `losses` and `evaluator` see batches; `rows` turns model outputs into output columns; `signatures` serve raw input.

    Args:
        config: Resolved configuration of the application's own type.
    """

    Config: ClassVar[type[JobConfig]]
    VARIANTS: ClassVar[tuple[str, ...]]

    def __init__(self, config: JobConfig) -> None:
        self.config = config
        # What `encode` has seen: rows, truncated rows, tokens, unknown tokens.
        self.text_counts: Counter[str] = Counter()

    # Preparation -------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def prepare(self, folder: Path | None, scan_labels: LabelScan = Counter) -> None:
        """Loads tokenizer and label names.

        Args:
            folder: A run folder or the assets of an export; None takes the ModelZoo and the configuration.
            scan_labels: Counts the labels of the training table; called only when the configuration asks for it.
        """

    @abc.abstractmethod
    def save_assets(self, folder: Path) -> None:
        """Writes what `prepare(folder)` and `build_model(folder)` need: model config, vocabulary, label map."""

    @abc.abstractmethod
    def build_model(self, folder: Path | None = None) -> keras.Model:
        """Builds `self.model` and its variables.

        Args:
            folder: Takes the shapes stored there and leaves the weights to be restored; None loads the
                pre-trained weights the configuration names.
        """

    def fit_labels(self, train: EncodedTable) -> None:
        """Looks at the encoded training table before training, for class weights and the like."""

    @property
    def labels(self) -> list[str] | None:
        """Names of the classes in id order, None where there are none."""
        return None

    # Rows --------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def input_columns(self) -> list[str]:
        """Names of the columns `encode` reads, label excluded."""

    @abc.abstractmethod
    def encode(self, chunk: RowChunk, with_labels: bool) -> EncodedTable:
        """Encodes a chunk; calls `chunk.reject(row, column, reason)` for rows it cannot use.

        The result has one entry per row that is still accepted afterwards, in order.
        """

    @abc.abstractmethod
    def rows(self, outputs: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Turns model outputs of one batch into output columns."""

    @abc.abstractmethod
    def output_columns(self) -> tuple[str, ...]:
        """Names of the columns `rows` returns, in their default order."""

    # Serving -----------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Returns serving signatures of the trained model.

        `serving_default` takes raw input; `predict_ids` takes the arrays of `encode` and returns all that `rows`
        reads, so that an export alone is enough for prediction.

        Args:
            folder: Where `save_assets` has written.
        """
