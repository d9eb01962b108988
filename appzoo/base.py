"""The App contract: what one application folder supplies. The core and `appzoo.jobs` do the rest."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.config.job import JobConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.export.servable import Signature
from easytransfer.train.task import Task


class App(Task, abc.ABC):
    """One application: rows of a table in, rows of predictions out.

    Life of a row: `encode` turns cells into token ids and labels; the engine batches them and calls the model;
    `losses` and `evaluator` see batches; `rows` turns model outputs into output columns; `signatures` serve raw input.

    Args:
        config: Resolved configuration of the application's own type.
    """

    Config: ClassVar[type[JobConfig]]
    VARIANTS: ClassVar[tuple[str, ...]] = ("",)

    def __init__(self, config: JobConfig) -> None:
        self.config = config

    # Preparation -------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def prepare(self, run_dir: str | None) -> None:
        """Loads tokenizer and label names: from the ModelZoo and the training table, or from `run_dir` if given."""

    @abc.abstractmethod
    def save_assets(self, run_dir: str) -> None:
        """Writes what `prepare(run_dir)` needs: model config, vocabulary, label map."""

    @abc.abstractmethod
    def build_model(self, pretrained: bool = True) -> keras.Model:
        """Builds the network; `pretrained=False` leaves random weights to be restored by the caller."""

    # Rows --------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def input_columns(self) -> list[str]:
        """Names of the columns `encode` reads (label excluded)."""

    @abc.abstractmethod
    def encode(self, chunk: RowChunk, with_labels: bool) -> EncodedTable:
        """Encodes accepted rows; calls `chunk.reject(i, column, reason)` for rows it cannot use.

        The result has one entry per row that is still accepted, in order, `length` among its columns.
        """

    @abc.abstractmethod
    def rows(self, outputs: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Turns outputs of one batch into output columns (`predictions`, `probabilities`, `logits`, ...)."""

    # Serving -----------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def signatures(self) -> dict[str, Signature]:
        """Returns serving signatures of the trained model; `serving_default` takes raw input."""

    def report(self, evaluator: Any) -> dict[str, Any]:
        """Returns extra facts for the model card, such as a confusion matrix and label names."""
        return {}

    def describe(self) -> Iterator[tuple[str, str]]:
        """Yields (name, value) pairs for the first log lines and the model card."""
        yield "application", str(self.config.model_name)
