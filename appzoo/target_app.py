"""Applications whose answer to a row is a class, several classes, or a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from easytransfer.app.contract import App, Assets, Cells, no_cells
from easytransfer.app.targets.labels import LabelTarget, label_target
from easytransfer.data.table import RowChunk
from easytransfer.train.task import Batch


class TargetApp(App):
    """The model's output `logits` [batch, target.num_outputs] is trained against the column `label_id`.

    A subclass supplies the input side: `prepare` (which calls `prepare_target`), `encode` (which calls
    `read_labels`), `build_model` and `signatures` (which may call `answer`).
    """

    target: LabelTarget

    def prepare_target(self, folder: Path | None, cells: Cells = no_cells) -> None:
        """Reads the label names from the configuration and the training table, or from `folder` of a trained run."""
        self.target = label_target(self.config, Assets(folder, cells))

    def save_assets(self, folder: Path) -> None:
        """Writes the label map; a subclass adds its vocabulary."""
        self.target.save_assets(folder)

    def read_labels(self, chunk: RowChunk) -> list[Any]:
        """Returns the training value of every position; a cell that is no label makes a bad row."""
        return self.target.read_column(chunk)

    def answer(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns, inside a graph, what the target answers to logits."""
        return self.target.answer({"logits": logits})

    def fit_labels(self, train: Any) -> None:
        """Resolves class weights, which may depend on the label counts of the training table."""
        self.target.on_train_table(train)

    def loss_weight(self, batch: Batch) -> tf.Tensor:
        """Returns the number of real rows, or the sum of their class weights."""
        return self.target.loss_weight(batch)

    @property
    def class_weights(self) -> tf.Tensor | None:
        """Weight of each class."""
        return self.target.class_weights
