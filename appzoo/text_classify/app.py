"""What happens to a row of text classification, top to bottom."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import modelzoo.loading as zoo
from appzoo.base import App
from appzoo.text_classify.config import VARIANTS, TextClassifyConfig
from appzoo.text_classify.labels import MultiLabel, Score, SingleLabel, Target
from appzoo.text_classify.model import TextClassifier
from appzoo.text_classify.serving import text_signatures
from easytransfer import keras
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.labels import LabelMap
from easytransfer.data.table import RowChunk
from easytransfer.errors import ConfigError
from easytransfer.export.servable import Signature
from easytransfer.losses import classification as losses
from easytransfer.metrics.classification import ClassificationEvaluator, MultiLabelEvaluator
from easytransfer.metrics.regression import RegressionEvaluator
from easytransfer.run.atomic import write_json
from easytransfer.text.wordpiece import WordPiece
from easytransfer.train.task import Batch, Evaluator, Outputs
from modelzoo.bert.config import BertConfig


class TextClassify(App):
    """One text or a pair; classes, several labels at once, or a score."""

    Config = TextClassifyConfig
    VARIANTS = VARIANTS

    config: TextClassifyConfig
    tokenizer: WordPiece
    encoder_config: BertConfig
    target: Target
    class_weights: tf.Tensor | None = None

    # Preparation ---------------------------------------------------------------------------------------------

    def prepare(self, folder: Path | None, scan_labels: Any = Counter) -> None:
        """Loads tokenizer and labels from the ModelZoo and the label option, or from `folder` of a trained run."""
        model = self.config.model
        if folder is None:
            lower = None if model.lower_case == "auto" else model.lower_case == "true"
            name, root = model.pretrain_model_name_or_path, self.config.runtime.model_zoo_base_path
            self.tokenizer = zoo.load_tokenizer(name, root, lower_case=lower)
            self.encoder_config = zoo.load_config(name, root)
            spec = self.config.data.label_enumerate_values
            labels = LabelMap.parse(spec, lambda: self._split(scan_labels())) if spec else None
        else:
            self.tokenizer = WordPiece.from_folder(folder)
            self.encoder_config = zoo.load_config(folder)
            labels = LabelMap.load(folder)
        self.target = self._target(labels)
        limit = self.encoder_config.max_position_embeddings
        if self.config.data.sequence_length > limit:
            raise ConfigError(
                "sequenceLength exceeds the positions of the pre-trained model",
                received=self.config.data.sequence_length,
                accepted=f"at most {limit}",
            )
        if model.num_labels is not None and model.num_labels != self.target.num_outputs:
            raise ConfigError(
                "model.num_labels differs from the number of labels listed",
                received=model.num_labels,
                accepted=str(self.target.num_outputs),
            )

    def _split(self, cells: Counter[str]) -> Counter[str]:
        """Counts single labels in the label cells of a multi-label table."""
        if not self.config.model.multi_label:
            return cells
        counts: Counter[str] = Counter()
        for cell, rows in cells.items():
            counts.update({name.strip(): rows for name in cell.split(",") if name.strip()})
        return counts

    def _target(self, labels: LabelMap | None) -> Target:
        model = self.config.model
        if model.multi_label:
            if labels is None:
                raise ConfigError("multi_label needs the label names", fix="give labelEnumerateValues")
            return MultiLabel(labels, model.max_num_labels, model.multi_label_threshold)
        return SingleLabel(labels) if labels is not None and len(labels) > 1 else Score()

    @property
    def labels(self) -> list[str] | None:
        """Class names, None for regression."""
        return self.target.labels.names if self.target.labels else None

    def save_assets(self, folder: Path) -> None:
        """Writes vocabulary, tokenizer settings, encoder configuration and label map."""
        self.tokenizer.save(folder)
        write_json(folder / "config.json", self.encoder_config.to_dict())
        if self.target.labels is not None:
            self.target.labels.save(folder)

    def build_model(self, folder: Path | None = None) -> keras.Model:
        """Builds encoder and head; from the ModelZoo, or the shape stored in `folder` with weights to be restored."""
        model = self.config.model
        backbone = zoo.load_backbone(
            model.pretrain_model_name_or_path if folder is None else folder,
            zoo=self.config.runtime.model_zoo_base_path,
            weights=folder is None and not model.from_scratch,
            seed=self.config.runtime.seed,
        )
        self.model = TextClassifier(backbone, self.target.num_outputs, model.dropout_rate)
        ids = tf.ones([1, 4], tf.int32)
        self.model({"input_ids": ids, "input_mask": ids, "segment_ids": tf.zeros_like(ids)})
        return self.model

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and pooler with head: what is trained when all layers are frozen."""
        *encoder, pooler = self.model.backbone.layer_groups()
        return [*encoder, [*pooler, *self.model.head.trainable_variables]]

    # Rows ----------------------------------------------------------------------------------------------------

    def input_columns(self) -> list[str]:
        """Returns the text columns."""
        data = self.config.data
        return [name for name in (data.first_sequence, data.second_sequence) if name]

    def encode(self, chunk: RowChunk, with_labels: bool) -> EncodedTable:
        """Tokenizes texts and reads labels; unknown labels and, with noTruncate, long texts are bad rows."""
        data = self.config.data
        pairs = chunk.columns[data.second_sequence] if data.second_sequence else None
        tokens = self.tokenizer.encode(chunk.columns[data.first_sequence], pairs, max_length=data.sequence_length)
        if data.no_truncate:
            for row in np.flatnonzero(tokens.truncated):
                reason = f"too long: more than sequenceLength={data.sequence_length} tokens"
                chunk.reject(int(row), data.first_sequence, reason)
        values = self._read_labels(chunk) if with_labels else []
        kept = np.flatnonzero(chunk.accepted)
        self.text_counts.update(
            rows=len(kept),
            truncated=int(tokens.truncated[kept].sum()),
            tokens=int(tokens.input_ids.lengths[kept].sum()),
            unknown=int(tokens.unknown[kept].sum()),
        )
        columns = {"input_ids": tokens.input_ids.take(kept), "segment_ids": tokens.segment_ids.take(kept)}
        if with_labels:
            columns["label_id"] = self.target.array([values[row] for row in kept])
        return EncodedTable(columns, masks={"input_mask": "input_ids"})

    def _read_labels(self, chunk: RowChunk) -> list[Any]:
        column = self.config.data.label_name
        values: list[Any] = []
        for row, cell in enumerate(chunk.columns[column]):
            try:
                values.append(self.target.read(cell))
            except ValueError as error:
                chunk.reject(row, column, str(error))
                values.append(None)
        return values

    def rows(self, outputs: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Returns `predictions`, `probabilities` (classes only) and `logits` per row."""
        return self.target.columns(outputs["logits"])

    def output_columns(self) -> tuple[str, ...]:
        """Returns the output columns there are, in their default order."""
        scored = isinstance(self.target, Score)
        return ("predictions", "logits") if scored else ("predictions", "probabilities", "logits")

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

    # Serving -------------------------------------------------------------------------------------------------

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Returns raw-text, token-id and tf.Example signatures."""
        return text_signatures(self, folder)


Application = TextClassify
