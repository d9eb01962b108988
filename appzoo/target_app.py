"""Applications whose answer to a row is a class, several classes, or a number: targets, losses, metrics, output."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.base import App, Cells, no_cells
from appzoo.targets import MultiLabel, Score, SingleLabel, Target
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.id_tables import is_id_table
from easytransfer.data.labels import LabelMap
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import RowChunk
from easytransfer.errors import ConfigError
from easytransfer.losses import classification as losses
from easytransfer.metrics.classification import ClassificationEvaluator, MultiLabelEvaluator
from easytransfer.metrics.regression import RegressionEvaluator
from easytransfer.train.task import Batch, Evaluator, Outputs


class TargetApp(App):
    """The model's output `logits` [batch, target.num_outputs] is trained against the column `label_id`.

    A subclass supplies the input side: `prepare` (which calls `prepare_target`), `encode` (which calls
    `read_labels`), `build_model` and `signatures` (which may call `answer`).
    """

    target: Target
    class_weights: tf.Tensor | None = None

    def prepare_target(self, folder: Path | None, cells: Cells = no_cells) -> None:
        """Reads the label names from the configuration and the training table, or from `folder` of a trained run.

        Raises:
            ConfigError: `num_labels` differs from the names, or multi_label has no names.
        """
        spec, column = self.config.data.label_enumerate_values, self.config.data.label_name
        if folder is not None:
            labels = LabelMap.load(folder)
        elif spec:
            labels = LabelMap.parse(spec, lambda: self._split(count_cells(cells(column))))
        else:
            labels = self._numbered_labels()
        self.target = self._target(labels)
        stated = self.config.model.num_labels
        if stated is not None and stated != self.target.num_outputs:
            raise ConfigError(
                "model.num_labels differs from the number of labels listed",
                received=stated,
                accepted=str(self.target.num_outputs),
            )

    def _numbered_labels(self) -> LabelMap | None:
        """Returns the names 0, 1, ... where the table holds ids in place of text and labels, None for scores."""
        schema, count = self.config.data.input_schema, self.config.model.num_labels
        if count is None or count < 2 or schema is None or not is_id_table(parse_schema(schema)):
            return None
        return LabelMap([str(i) for i in range(count)])

    @property
    def _multi_label(self) -> bool:
        return getattr(self.config.model, "multi_label", False)

    def _split(self, cells: Counter[str]) -> Counter[str]:
        """Counts single labels in the label cells of a multi-label table."""
        if not self._multi_label:
            return cells
        counts: Counter[str] = Counter()
        for cell, rows in cells.items():
            counts.update({name.strip(): rows for name in cell.split(",") if name.strip()})
        return counts

    def _target(self, labels: LabelMap | None) -> Target:
        model = self.config.model
        if self._multi_label:
            if labels is None:
                raise ConfigError("multi_label needs the label names", fix="give labelEnumerateValues")
            return MultiLabel(labels, model.max_num_labels, model.multi_label_threshold)
        return SingleLabel(labels) if labels is not None and len(labels) > 1 else Score()

    @property
    def label_map(self) -> LabelMap | None:
        """Classes, None for a number."""
        return self.target.labels

    def save_assets(self, folder: Path) -> None:
        """Writes the label map; a subclass adds its vocabulary."""
        if self.target.labels is not None:
            self.target.labels.save(folder)

    # Rows ----------------------------------------------------------------------------------------------------

    def read_labels(self, chunk: RowChunk) -> list[Any]:
        """Returns the training value of every position; a cell that is no label makes a bad row."""
        column = self.config.data.label_name
        values: list[Any] = []
        for row, cell in enumerate(chunk.columns[column]):
            try:
                values.append(self.target.read(cell))
            except ValueError as error:
                chunk.reject(row, column, str(error))
                values.append(None)
        return values

    def rows(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns `predictions`, `probabilities` (classes only) and `logits` per row."""
        return self.target.columns(outputs["logits"])

    def output_columns(self) -> tuple[str, ...]:
        """Returns the output columns there are, in their default order."""
        scored = isinstance(self.target, Score)
        return ("predictions", "logits") if scored else ("predictions", "probabilities", "logits")

    def answer(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns, inside a graph, `probabilities` [batch, classes], `label` and `score` [batch]; or only `score`."""
        if isinstance(self.target, Score):
            return {"score": logits[:, 0]}
        names = tf.constant(self.target.labels.names)
        if isinstance(self.target, MultiLabel):
            probabilities = tf.sigmoid(logits)
            chosen = probabilities > self.target.threshold
            rows = tf.ragged.boolean_mask(tf.broadcast_to(names, tf.shape(logits)), chosen)
            label = tf.strings.reduce_join(rows, axis=-1, separator=",")
        else:
            probabilities = tf.nn.softmax(logits)
            label = tf.gather(names, tf.argmax(logits, axis=-1))
        return {"probabilities": probabilities, "label": label, "score": tf.reduce_max(probabilities, axis=-1)}

    # Training ------------------------------------------------------------------------------------------------

    def fit_labels(self, train: EncodedTable) -> None:
        """Resolves `class_weights`, which may depend on the label counts of the training table."""
        spec, target = self.config.train.class_weights, self.target
        if spec is None:
            return
        if not isinstance(target, SingleLabel):
            raise ConfigError("train.class_weights needs a task with one class per row", received=spec)
        if spec == "balanced":
            seen = np.bincount(train.columns["label_id"], minlength=target.num_outputs)
            weights = len(train) / (target.num_outputs * np.maximum(seen, 1))
        else:
            try:
                weights = np.array([float(part) for part in spec.split(",")])
            except ValueError:
                weights = np.zeros(0)
            if len(weights) != target.num_outputs or not (weights >= 0).all() or not weights.any():
                raise ConfigError(
                    "class_weights is not one number >= 0 per label",
                    received=spec,
                    accepted=f"`balanced`, or {target.num_outputs} numbers",
                )
        self.class_weights = tf.constant(weights, tf.float32)

    def losses(self, batch: Batch, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns softmax cross entropy, sigmoid cross entropy or squared error, summed over rows."""
        labels, logits, weight = batch["label_id"], outputs["logits"], batch["example_weight"]
        if isinstance(self.target, MultiLabel):
            return {"loss": losses.sigmoid_cross_entropy_sum(labels, logits, weight)}
        if isinstance(self.target, Score):
            return {"loss": losses.squared_error_sum(labels, logits, weight)}
        smoothing = self.config.train.label_smoothing
        return {
            "loss": losses.softmax_cross_entropy_sum(
                labels, logits, weight, class_weights=self.class_weights, label_smoothing=smoothing
            )
        }

    def loss_weight(self, batch: Batch) -> tf.Tensor:
        """Returns the number of real rows, or the sum of their class weights."""
        if self.class_weights is None:
            return super().loss_weight(batch)
        return tf.reduce_sum(batch["example_weight"] * tf.gather(self.class_weights, batch["label_id"]))

    def evaluator(self) -> Evaluator:
        """Returns the metrics of the task."""
        if isinstance(self.target, MultiLabel):
            return MultiLabelEvaluator(self.target.labels.names, threshold=self.target.threshold)
        if isinstance(self.target, Score):
            return RegressionEvaluator()
        return ClassificationEvaluator(self.target.labels.names)


def count_cells(cells: Any) -> Counter[str]:
    """Counts the non-empty cells of a column, trimmed."""
    counts = Counter(str(cell).strip() for cell in cells)
    counts.pop("", None)
    return counts
