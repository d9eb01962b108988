"""The App contract: what one application folder supplies. The core and `appzoo.jobs` do the rest."""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from easytransfer import keras
from easytransfer.config.job import JobConfig
from easytransfer.data.encoded import EncodedTable, device_arrays
from easytransfer.data.labels import LabelMap
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk
from easytransfer.distributed.workers import Workers
from easytransfer.export.servable import Signature
from easytransfer.train.task import Task

# The cells of one column of the training table, rows that cannot be parsed left out.
Cells = Callable[[str], Iterable[Any]]


def no_cells(column: str) -> Iterable[Any]:
    """Stands for the training table where there is none."""
    return ()


class App(Task, abc.ABC):
    """One application: rows of a table in, rows of predictions out.

    Life of a row: `encode` turns cells into token ids and labels; the engine batches them and calls the model;
    `losses` and `evaluator` see batches; `rows` turns model outputs into output columns; `signatures` serve raw input.

    Args:
        config: Resolved configuration of the application's own type.
    """

    # Columns of `encode` that are there for labelled tables only; the model never reads them.
    label_columns: ClassVar[tuple[str, ...]] = ("label_id",)
    # Files of `save_assets` that go into an export: what `prepare(folder)` needs when only the export is left.
    asset_files: ClassVar[tuple[str, ...]] = ("vocab.txt", "tokenizer_config.json", "config.json", "label_mapping.json")
    # Whether the two texts of a row are encoded apart, each `[CLS] text [SEP]` with a vector of its own.
    two_towers: ClassVar[bool] = False
    # Whether what `encode` returns can be written as a table and read again in place of the raw one.
    preprocessable: ClassVar[bool] = True

    def __init__(self, config: JobConfig) -> None:
        self.config = config
        # What `encode` has seen: rows, truncated rows, tokens, unknown tokens.
        self.text_counts: Counter[str] = Counter()

    # Preparation -------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def prepare(self, folder: Path | None, cells: Cells = no_cells) -> None:
        """Loads tokenizer and label names.

        Args:
            folder: A run folder or the assets of an export; None takes the ModelZoo and the configuration.
            cells: Reads a column of the training table, for labels or a vocabulary made from it.
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
        """Looks at the encoded training table before the assets are saved: class weights, statistics and the like."""

    def before_training(self, train: EncodedTable, run_dir: Path, workers: Workers) -> None:  # noqa: B027
        """Does what decides the model and is a training itself, before assets are saved and the model is built.

        It must go on where it was when the job was stopped, and come to the same on every worker.

        Args:
            train: The encoded training table.
            run_dir: Run folder; only the first worker writes.
            workers: The workers of the job.
        """

    @property
    def label_map(self) -> LabelMap | None:
        """Names of the classes with their ids, None where there are none."""
        return None

    @property
    def labels(self) -> list[str] | None:
        """Names of the classes in id order, None where there are none."""
        return self.label_map.names if self.label_map is not None else None

    # Rows --------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def input_columns(self) -> list[str]:
        """Names of the columns `encode` reads, label excluded."""

    def text_columns(self) -> dict[str, ListForm]:
        """Returns the columns that `encode` takes as text, and what becomes of lists in them; see `Column.lists`."""
        return dict.fromkeys(self.input_columns(), "none")

    def label_inputs(self) -> list[str]:
        """Names of the columns that `encode` reads the labels from."""
        return [self.config.data.label_name]

    def spread(self, chunk: RowChunk) -> RowChunk:
        """Returns the chunk that `encode` and the output see; see `RowChunk.spread` for rows that hold several."""
        return chunk

    @abc.abstractmethod
    def encode(self, chunk: RowChunk, with_labels: bool) -> EncodedTable:
        """Encodes a chunk; calls `chunk.reject(row, column, reason)` for rows it cannot use.

        The result has one entry per row that is still accepted afterwards, in order, or several with `row_of` where a
        row becomes several examples. Columns of dtype object stay on the host: `rows` and evaluators see them, the
        model does not.
        """

    @abc.abstractmethod
    def rows(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Turns model outputs into output columns, one entry per accepted row.

        Args:
            outputs: What the model returned for every entry of `encoded`; per-token outputs of different widths are
                object arrays with one array per entry.
            encoded: What `encode` returned for the rows.
        """

    @abc.abstractmethod
    def output_columns(self) -> tuple[str, ...]:
        """Names of the columns `rows` returns, in their default order."""

    def write_pages(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Writes what people would rather look at than read, such as an HTML page; returns the file names.

        Args:
            folder: Run folder.
            encoded: The labelled evaluation table.
            outputs: What the trained model returned for it, as for `rows`.
        """
        return []

    def model_inputs(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays of a batch that the model reads when it predicts."""
        hidden = {*self.label_columns, "example_weight"}
        return {name: value for name, value in device_arrays(batch).items() if name not in hidden}

    def evaluation_inputs(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays of a labelled batch that `forward` reads when the model is evaluated."""
        return self.model_inputs(batch)

    def further_report(self, encoded: EncodedTable) -> dict[str, Any]:
        """Measures what takes further passes over the evaluation table; returns parts of `report.json`, see `run/card`.

        Args:
            encoded: The labelled table; the model has the weights that are evaluated.
        """
        return {}

    def text_vector(self, outputs: Mapping[str, Any]) -> Any:
        """Returns the vectors [batch, size] that `ez_bert_feat` writes as `pool_output`, inside a graph.

        Args:
            outputs: What `self.model.backbone` returned for the tokens of the texts.
        """
        return outputs["pooled_output"]

    # Serving -----------------------------------------------------------------------------------------------

    @property
    def served_model(self) -> keras.Model:
        """The network that the signatures call on arrays: a part of the model where not all of it is served."""
        return self.model

    @property
    def compiled_model(self) -> keras.Model:
        """The part of `served_model` that is compiled in the variant `xla` of an export; see `compiled`."""
        return self.served_model

    @abc.abstractmethod
    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Returns serving signatures of the trained model.

        `serving_default` takes raw input; `predict_ids` takes the arrays of `encode` and returns all that `rows`
        reads, so that an export alone is enough for prediction.

        Args:
            folder: Where `save_assets` has written.
        """
