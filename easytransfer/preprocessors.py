"""Preprocessors of the four-hook Python API: they encode rows in the input pipeline and unpack them in the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer.config.job import DataConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.labels import LabelMap
from easytransfer.data.table import RowChunk
from easytransfer.errors import ConfigError
from easytransfer.layers.created_once import created_once
from easytransfer.model_zoo import loading


class RawRows(dict):
    """Unencoded columns of a few rows: the features a model function is first called with.

    Args:
        chunk: The rows.
        data: Column names and labels of the running application.

    Attributes:
        preprocessor: The preprocessor that was called on these features, None while there was none.
    """

    def __init__(self, chunk: RowChunk, data: DataConfig) -> None:
        super().__init__({name: tf.constant(cells) for name, cells in chunk.columns.items()})
        self.chunk, self.data = chunk, data
        self.preprocessor: TextPreprocessor | None = None


class TextPreprocessor:
    """Packs one text or a pair for a BERT-type encoder.

    Args:
        tokenizer: Tokenizer of the pre-trained model.
    """

    data: DataConfig

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._labels: LabelMap | None = None

    def _bind(self, data: DataConfig) -> None:
        """Takes column names and labels from the configuration of the running application."""
        if data.first_sequence is None:
            raise ConfigError("the text column is not named", fix="set preprocess_config.first_sequence")
        self.data = data
        names = (data.label_enumerate_values or "").split(",")
        self._labels = LabelMap.parse(data.label_enumerate_values, dict) if len(names) > 1 else None

    def encode(self, chunk: RowChunk, append: tuple[str, ...] = ()) -> EncodedTable:
        """Encodes accepted rows; rows without a valid label are rejected. Columns in `append` are passed on."""
        pairs = chunk.columns[self.data.second_sequence] if self.data.second_sequence else None
        texts = chunk.columns[self.data.first_sequence]
        tokens = self.tokenizer.encode(texts, pairs, max_length=self.data.sequence_length)
        labels = self._read_labels(chunk) if self.data.label_name in chunk.columns else None
        kept = np.flatnonzero(chunk.accepted)
        columns: dict[str, Any] = {
            "input_ids": tokens.input_ids.take(kept),
            "segment_ids": tokens.segment_ids.take(kept),
        }
        if labels is not None:
            columns["label_id"] = np.array([labels[row] for row in kept], np.int32 if self._labels else np.float32)
        for name in append:
            columns[name] = np.array([chunk.columns[name][row] for row in kept])
        return EncodedTable(columns, masks={"input_mask": "input_ids"})

    def _read_labels(self, chunk: RowChunk) -> list[Any]:
        values: list[Any] = []
        for row, cell in enumerate(chunk.columns[self.data.label_name]):
            try:
                values.append(self._labels.ids[str(cell).strip()] if self._labels else float(cell))
            except (KeyError, ValueError, TypeError):
                known = self._labels.describe() if self._labels else "a number"
                chunk.reject(row, self.data.label_name, f"unknown label: {cell!r}; known: {known}")
                values.append(None)
        return values

    def __call__(self, features: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Returns token ids, mask and segment ids, each int32 [batch, time], and labels [batch] or None."""
        if isinstance(features, RawRows):
            self._bind(features.data)
            features.preprocessor = self
            features = {name: tf.constant(value) for name, value in _first_batch(self.encode(features.chunk)).items()}
        return features["input_ids"], features["input_mask"], features["segment_ids"], features.get("label_id")


def _first_batch(encoded: EncodedTable) -> dict[str, np.ndarray]:
    return encoded.batch(np.arange(len(encoded)))


def get_preprocessor(pretrain_model_name_or_path: str, **unused: Any) -> TextPreprocessor:
    """Returns the preprocessor that fits a pre-trained model; inside `build_logits` always the same one.

    Args:
        pretrain_model_name_or_path: ModelZoo name or folder.
        **unused: Settings of other kinds of preprocessors.

    Raises:
        ConfigError: A setting is given that this preprocessor does not have.
    """
    if any(unused.values()):
        raise ConfigError("get_preprocessor: unknown settings", received=", ".join(unused))
    make = lambda: TextPreprocessor(loading().load_tokenizer(pretrain_model_name_or_path))  # noqa: E731
    return created_once("TextPreprocessor", pretrain_model_name_or_path, make)
