"""The App contract: what one application supplies. The core and the jobs do the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np

from easytransfer import keras
from easytransfer.app.assets import Assets, Values, no_values
from easytransfer.app.inputs.base import Input, joined, taken
from easytransfer.app.renamed import APP_MEMBERS, no_attribute, refuse_earlier_names, refuse_moved
from easytransfer.app.targets.base import Target
from easytransfer.config.job import JobConfig
from easytransfer.data.batches import Sampler
from easytransfer.data.encoded import EncodedTable, device_arrays
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.distributed.workers import Workers
from easytransfer.layers.draws import RowDraws
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.step import Losses, Step
from easytransfer.train.task import Batch, Outputs, Recorded, Task

__all__ = ["App", "Assets", "Values", "no_values"]


CHUNK_ROWS = 8192


class App(Task):
    """One application: rows of a table in, rows of predictions out.

    An application names what goes in, what comes out and the network between: `build_inputs`, `build_target`,
    `build_network`. Methods that train, predict or report in a way of their own override what differs; what is `final`
    follows from inputs and target.

    Life of a row: `encode` turns cells into arrays and labels; the engine batches them and calls the network; `losses`
    and `evaluator` see batches; `postprocess` turns outputs into output columns; `signatures` serve raw input.

    Args:
        config: Resolved configuration of the application's own type.

    Example:
        >>> class Gestures(App):
        ...     def build_inputs(self, assets):
        ...         return [ArrayInput("frames", [None, 4])]
        ...     def build_target(self, assets):
        ...         return label_target(self.config, assets)
        ...     def build_network(self, assets):
        ...         return GestureNetwork(self.target.num_outputs)
    """

    inputs: Sequence[Input] = ()
    target: Target | None = None
    # Files that `save_assets` writes beside those of inputs and target, which go into an export.
    asset_files: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: JobConfig) -> None:
        self.config = config
        # What `encode` has seen: rows, truncated rows, tokens, unknown tokens.
        self.text_counts: Counter[str] = Counter()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_earlier_names(cls, APP_MEMBERS)
        refuse_moved(cls)

    def __getattr__(self, name: str) -> Any:
        raise no_attribute(type(self), name, APP_MEMBERS)

    # What an application writes ------------------------------------------------------------------------------

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns what the network reads."""
        raise NotImplementedError(f"{type(self).__name__} names no inputs")

    def build_target(self, assets: Assets) -> Target | None:
        """Returns what is learnt; None for methods with losses of their own and no labels."""
        return None

    def build_network(self, assets: Assets) -> keras.Model:
        """Returns the network with its variables; it takes the arrays of the inputs by name and returns a dict.

        Args:
            assets: With a folder, take the shapes stored there and leave the weights to be restored.
        """
        raise NotImplementedError(f"{type(self).__name__} builds no network")

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the losses of the target; see `Task.losses`."""
        return self._given_target("losses").losses(batch, outputs, step)

    def open_frozen(self) -> Mapping[str, Recorded]:
        """Returns the networks of other runs that the training uses, by role, such as a teacher; see `app.frozen`."""
        return {}

    def evaluator(self) -> Evaluator:
        """Returns the metrics of the target."""
        return self._given_target("evaluator").evaluator()

    def _given_target(self, method: str) -> Target:
        if self.target is None:
            raise NotImplementedError(f"{type(self).__name__} has no target and must define {method}")
        return self.target

    # Preparation ---------------------------------------------------------------------------------------------

    @final
    def load_assets(self, folder: Path | None, values: Values = no_values) -> None:
        """Makes inputs and target, and for a training opens the networks of other runs.

        Args:
            folder: A run folder or the assets of an export; None takes the ModelZoo and the configuration.
            values: Reads a column of the training table, for labels or a vocabulary made from it.
        """
        self.load_parts(folder, values)
        if folder is None:
            self.frozen = self.open_frozen()

    @final
    def load_parts(self, folder: Path | None, values: Values = no_values) -> None:
        """Makes inputs and target alone: what `encode` takes. Arguments as of `load_assets`."""
        assets = Assets(folder, values)
        # One after the other: cells are read as the inputs take them, see `text_columns`.
        self.inputs = self.build_inputs(assets)
        self.target = self.build_target(assets)

    @property
    @final
    def exported_files(self) -> list[str]:
        """Names of the files that `load_assets(folder)` needs when only an export is left."""
        return list(dict.fromkeys([*self.asset_files, *(name for part in self._parts for name in part.asset_files)]))

    @property
    @final
    def chunk_rows(self) -> int:
        """Rows read and encoded at a time: enough for the tokenizer's threads, few enough to stay in cache."""
        return min([CHUNK_ROWS, *(part.chunk_rows for part in self._parts if part.chunk_rows)])

    @property
    def _parts(self) -> list[Input | Target]:
        return [*self.inputs, *([self.target] if self.target else [])]

    def save_assets(self, folder: Path) -> None:
        """Writes what `load_assets(folder)` and `build_model(folder)` need."""
        for part in self._parts:
            part.save_assets(folder)

    @final
    def build_model(self, folder: Path | None = None) -> keras.Model:
        """Builds `self.model` and its variables.

        Args:
            folder: Takes the shapes stored there and leaves the weights to be restored; None loads the
                pre-trained weights the configuration names.
        """
        # Layers without a name of their own get the same names in every process.
        keras.backend.reset_uids()
        self.model = self.build_network(Assets(folder))
        if not self.model.built:
            self.model({name: _smallest(spec) for part in self.inputs for name, spec in part.specs().items()})
        return self.model

    @final
    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns trainable variables by depth, see `Task.layer_groups`: as the network has them, else one group."""
        named = getattr(self.model, "layer_groups", None)
        return named() if named is not None else super().layer_groups()

    @final
    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns shape and dtype of the arrays of the inputs."""
        return {name: spec for part in self.inputs for name, spec in part.specs().items()}

    def on_train_table(self, train: EncodedTable) -> None:
        """Looks at the encoded training table before the assets are saved: class weights, statistics and the like."""
        for part in self._parts:
            part.on_train_table(train)

    def on_evaluation(self, evaluator: Evaluator, folder: Path) -> None:  # noqa: B027
        """Decides by the evaluation of the weights to export what training does not, such as a threshold.

        Args:
            evaluator: Has seen the evaluation table; it may be made to measure anew.
            folder: Run folder, for what later jobs and the export need of it: a file of `asset_files`.
        """

    def before_training(self, train: EncodedTable, run_dir: Path, workers: Workers) -> None:  # noqa: B027
        """Does what decides the model and is a training itself, before assets are saved and the model is built.

        It must go on where it was when the job was stopped, and come to the same on every worker.

        Args:
            train: The encoded training table.
            run_dir: Run folder; only the first worker writes.
            workers: The workers of the job.
        """

    def sampler(self, train: EncodedTable) -> Sampler | None:
        """Returns what decides which rows of the training table make a batch; None for a shuffled table."""
        return None

    @property
    @final
    def labels(self) -> list[str] | None:
        """Names of the classes in id order, None where there are none."""
        return self.target.names if self.target is not None else None

    @property
    @final
    def label_columns(self) -> tuple[str, ...]:
        """Columns of `encode` that are there for labelled tables only; the model does not read them to predict."""
        return self.target.encoded_columns if self.target is not None else ()

    # Rows --------------------------------------------------------------------------------------------------

    @final
    def input_columns(self) -> list[str]:
        """Names of the columns `encode` reads, label excluded."""
        return list(dict.fromkeys(name for part in self.inputs for name in part.table_columns()))

    @final
    def text_columns(self) -> dict[str, ListForm]:
        """Returns the columns that `encode` takes as text, and what becomes of lists in them; see `Column.lists`."""
        return {name: lists for part in self.inputs for name, lists in part.text_columns().items()}

    @final
    def label_inputs(self) -> list[str]:
        """Names of the columns that `encode` reads the labels from."""
        return self.target.table_columns() if self.target is not None else []

    @final
    def explode(self, chunk: RowChunk) -> RowChunk:
        """Returns the chunk that `encode` and the output see; see `Input.explode`."""
        for part in self.inputs:
            chunk = part.explode(chunk)
        return chunk

    @final
    def encode(self, chunk: RowChunk, with_labels: bool) -> EncodedTable:
        """Encodes a chunk; calls `chunk.reject(row, column, reason)` for rows it cannot use.

        The result has one entry per row that is still accepted afterwards, in order, or several with `row_of` where a
        row becomes several examples. A `HostColumn` stays on the host: `postprocess` and evaluators see its values,
        the model does not.
        """
        parts = self._parts if with_labels else self.inputs
        found = [part.encode(chunk) for part in self.inputs]
        if with_labels and self.target is not None:
            found.append(self.target.encode(chunk, tuple(found)))
        kept = np.flatnonzero(chunk.accepted)
        # What a target counts is of the rows, as is what inputs count that are not read apart.
        apart = [part.reads_apart for part in self.inputs] + [False] * (len(found) - len(self.inputs))
        of_rows = [encoded.counts for alone, encoded in zip(apart, found, strict=True) if not alone]
        of_texts = [[encoded.counts] for alone, encoded in zip(apart, found, strict=True) if alone]
        for group in (of_rows, *of_texts):
            self._count([counts for counts in group if counts], kept)
        masks = {mask: source for part in parts for mask, source in part.masks.items()}
        pads = {name: value for part in parts for name, value in part.pad_values.items()}
        examples, row_of = joined(found), None
        if examples.row_of is not None:
            # Numbers of the accepted rows, for the examples that are theirs.
            kept = np.flatnonzero(chunk.accepted[examples.row_of])
            row_of = (np.cumsum(chunk.accepted) - 1)[examples.row_of[kept]]
        return EncodedTable({name: taken(each, kept) for name, each in examples.columns.items()}, masks, pads, row_of)

    def _count(self, group: Sequence[Mapping[str, np.ndarray]], kept: np.ndarray) -> None:
        """Adds what was counted of the rows `kept` to `text_counts`; a row is cut once, whichever text of it was."""
        if not group:
            return
        cut = np.any([counts["truncated"][kept] for counts in group], axis=0)
        self.text_counts.update(rows=len(kept), truncated=int(cut.sum()))
        for name in dict.fromkeys(name for counts in group for name in counts if name != "truncated"):
            self.text_counts[name] += sum(int(counts[name][kept].sum()) for counts in group if name in counts)

    @final
    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Turns model outputs into output columns, one entry per accepted row.

        Args:
            outputs: What the model returned for every entry of `encoded`; per-token outputs of different widths are
                object arrays with one array per entry.
            encoded: What `encode` returned for the rows.
        """
        if self.target is None:
            return {name: list(value) for name, value in outputs.items()}
        return self.target.postprocess(outputs, encoded)

    def output_columns(self) -> tuple[str, ...]:
        """Names of the columns `postprocess` returns, in their default order; without a target, names of outputs."""
        return self._given_target("output_columns").output_columns()

    def write_pages(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Writes what people would rather look at than read, such as an HTML page; returns the file names.

        Args:
            folder: Run folder.
            encoded: The labelled evaluation table.
            outputs: What the trained model returned for it, as for `postprocess`.
        """
        return self.target.report(folder, encoded, outputs) if self.target else []

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns the batch with its inputs augmented."""
        for part in self.inputs:
            batch = part.augment(batch, draws)
        return batch

    @final
    def model_inputs(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays of a batch that the model reads when it predicts."""
        hidden = {*self.label_columns, "example_weight"}
        return {name: value for name, value in device_arrays(batch).items() if name not in hidden}

    @final
    def evaluation_inputs(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays of a labelled batch that `evaluate_step` reads: labels too, for decoders and attacks."""
        return {name: value for name, value in device_arrays(batch).items() if name != "example_weight"}

    def further_report(self, encoded: EncodedTable) -> dict[str, Any]:
        """Measures what takes further passes over the evaluation table; returns parts of `report.json`, see `run/card`.

        Args:
            encoded: The labelled table; the model has the weights that are evaluated.
        """
        return {}

    # Serving -----------------------------------------------------------------------------------------------

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Returns serving signatures of the trained model.

        `serving_default` takes raw input; `predict_ids` takes the arrays of `encode` and returns all that `postprocess`
        reads, so that an export alone is enough for prediction. Where there are classes, `labels` gives their names.

        Args:
            folder: Where `save_assets` has written.
        """
        from easytransfer.app.serving import Served, arrays_signature, labels_signature, request_signature

        served = Served(self.inputs, folder, self.predict_step)
        raw = request_signature(served, self.target.answer if self.target is not None else dict)
        named = {"labels": labels_signature(self.labels)} if self.labels else {}
        further = self.target.signatures(raw) if self.target else {}
        return {"serving_default": raw, "predict_ids": arrays_signature(served), **named, **further}


def _smallest(spec: tf.TensorSpec) -> tf.Tensor:
    """Returns the smallest tensor that builds a network's variables."""
    return tf.ones([size or 1 for size in spec.shape], spec.dtype)
