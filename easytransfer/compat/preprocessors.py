"""Preprocessors of the four-hook Python API: they encode rows in the input pipeline and unpack them in the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from easytransfer.compat.datasets import Rows, column_array
from easytransfer.compat.model_zoo import loading, model_root
from easytransfer.compat.pipeline import Process
from easytransfer.config.job import DataConfig
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.data.label_names import class_name, class_names, one_value
from easytransfer.data.labels import LabelMap
from easytransfer.data.schema import Column
from easytransfer.data.table import RowChunk
from easytransfer.data.values import read_number
from easytransfer.errors import ConfigError, did_you_mean
from easytransfer.layers.created_once import created_once
from easytransfer.text.graph import GraphTokenizer
from easytransfer.text.masking import TokenMasker
from easytransfer.text.tokenizer import Tokenizer, Tokens


@dataclass(frozen=True)
class Settings:
    """What a preprocessor takes from the configuration of the running application.

    Attributes:
        data: Columns, labels and lengths.
        labels: Class names, None for a regression.
        append: Further columns that a call returns.
        columns: All input columns, in table order.
        encoded: Rows hold token ids already: a call returns the columns of the table as they are.
        seed: Seed of the choice of hidden pieces.
    """

    data: DataConfig
    labels: LabelMap | None = None
    append: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    encoded: bool = False
    seed: int = 0


class RawRows(dict):
    """Unencoded columns of a few rows: the features a model function is first called with.

    Args:
        chunk: The rows.
        settings: Those of the running application.

    Attributes:
        preprocessor: The preprocessor that was called on these features, None while there was none.
    """

    def __init__(self, chunk: RowChunk, settings: Settings) -> None:
        super().__init__({c.name: as_tensor(column_values(c, chunk.columns[c.name])) for c in settings.columns})
        self.chunk, self.settings = chunk, settings
        self.preprocessor: TextPreprocessor | None = None


class TextPreprocessor(Process):
    """Packs one text or a pair for a BERT-type encoder: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

    A call on features returns `input_ids`, `input_mask` and `segment_ids`, each int32 [batch, time], the label ids
    [batch] (None without labels), and the columns of `append_feature_columns`. Where the table holds token ids already
    it returns the columns of the table in their order. As a stage of a `ProcessExecutor` it turns the rows of a reader
    into arrays of `sequence_length` columns.

    Args:
        tokenizer: Tokenizer of the pre-trained model.
        multi_label: Labels are comma lists; label ids are padded with -1 to the longest of a batch.
        **stage: `thread_num`, `input_queue` and `output_queue` of a `ProcessExecutor`.
    """

    names: ClassVar[tuple[str, ...]] = ("input_ids", "input_mask", "segment_ids")
    # For stages of a `ProcessExecutor`: the settings of the running `base_model`.
    default_settings: ClassVar[Settings | None] = None

    def __init__(self, tokenizer: Tokenizer, multi_label: bool = False, **stage: Any) -> None:
        super().__init__(type(self).__name__, **stage)
        self.tokenizer, self.multi_label = tokenizer, multi_label
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        """Settings of the running application.

        Raises:
            ConfigError: No application is running, or it names no text column.
        """
        settings = self._settings or TextPreprocessor.default_settings
        if settings is None:
            raise ConfigError("a preprocessor needs the configuration of an application", fix="make a base_model first")
        if not settings.encoded and settings.data.first_sequence is None:
            raise ConfigError("the text column is not named", fix="set preprocess_config.first_sequence")
        return settings

    # Encoding ------------------------------------------------------------------------------------------------

    def encode(self, chunk: RowChunk, with_labels: bool = True) -> EncodedTable:
        """Encodes accepted rows; rows without a valid label, or too long under `no_truncate`, are bad rows."""
        settings = self.settings
        columns, masks = self.token_columns(chunk)
        label = settings.data.label_name if with_labels else None
        labels = self._read_labels(chunk) if label in chunk.columns else None
        kept = np.flatnonzero(chunk.accepted)
        table = {n: c.take(kept) if isinstance(c, Ragged) else c[kept] for n, c in columns.items()}
        pads = {}
        if labels is not None and self.multi_label:
            table["label_id"], pads = Ragged.from_lists([labels[row] for row in kept], np.int32), {"label_id": -1}
        elif labels is not None:
            table["label_id"] = np.array([labels[row] for row in kept], np.int32 if settings.labels else np.float32)
        for column in settings.columns:
            if column.name in settings.append:
                if column.name in table or column.name in masks:
                    raise ConfigError(
                        "append_feature_columns names a column that the preprocessor makes",
                        received=column.name,
                        fix="leave it out, or rename the column in input_schema",
                    )
                table[column.name] = column_values(column, [chunk.columns[column.name][row] for row in kept])
        return EncodedTable(table, masks, pads)

    def token_columns(self, chunk: RowChunk) -> tuple[dict[str, Ragged | np.ndarray], dict[str, str]]:
        """Returns columns for all positions of the chunk, and which mask belongs to which of them."""
        data = self.settings.data
        pairs = chunk.columns[data.second_sequence] if data.second_sequence else None
        tokens = self._encode(chunk, data.first_sequence, pairs)
        return {"input_ids": tokens.input_ids, "segment_ids": tokens.segment_ids}, {"input_mask": "input_ids"}

    def _encode(self, chunk: RowChunk, column: str, pairs: Sequence[str] | None = None) -> Tokens:
        data = self.settings.data
        tokens = self.tokenizer.encode(chunk.columns[column], pairs, max_length=data.sequence_length)
        for row in np.flatnonzero(tokens.truncated) if data.no_truncate else ():
            chunk.reject(int(row), column, f"too long: more than sequence_length={data.sequence_length} tokens")
        return tokens

    def _read_labels(self, chunk: RowChunk) -> list[Any]:
        values: list[Any] = []
        name = self.settings.data.label_name
        for row, cell in enumerate(chunk.columns[name]):
            try:
                values.append(self._read_label(cell))
            except ValueError as error:
                chunk.reject(row, name, str(error))
                values.append(None)
        return values

    def _read_label(self, cell: Any) -> Any:
        labels = self.settings.labels
        if labels is None:
            return read_number(one_value(cell))
        cells = class_names(cell) if self.multi_label else [one_value(cell)]
        ids = [labels.id_of(value) for value in cells]
        if None in ids or not ids:
            raise ValueError(labels.why_unknown(class_name(cells[ids.index(None)]) if ids else ""))
        return ids if self.multi_label else ids[0]

    # Unpacking -----------------------------------------------------------------------------------------------

    def __call__(self, features: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor | None, ...]:
        """Returns the tensors of a batch; see the class."""
        if isinstance(features, RawRows):
            self._settings = features.settings
            features.preprocessor = self
            if not self.settings.encoded:
                features = self._sample(features.chunk)
        settings = self.settings
        if settings.encoded:
            names = tuple(column.name for column in settings.columns)
            found = tuple(features.get(name) for name in names)
            # Without a label column there is still the place where callers expect the labels.
            return (*found, None) if names == self.names else found
        return tuple(features.get(name) for name in (*self.names, "label_id", *settings.append))

    def _sample(self, chunk: RowChunk) -> dict[str, tf.Tensor]:
        """Encodes rows whose labels need not be right: only the shapes matter."""
        encoded = self.encode(chunk, with_labels=False)
        rows = len(encoded)
        if self.settings.data.label_name in chunk.columns:
            dtype = np.int32 if self.settings.labels else np.float32
            encoded.columns["label_id"] = np.zeros([rows, 1] if self.multi_label else [rows], dtype)
        return {name: tf.constant(value) for name, value in encoded.batch(np.arange(rows)).items()}

    def graph(self) -> GraphTokenizer:
        """Returns the same encoding of texts, inside a graph."""
        return self.tokenizer.in_graph(self.settings.data.sequence_length)

    def serve(self, graph: GraphTokenizer, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the features of raw texts, given by column name, inside a graph."""
        data = self.settings.data
        return graph(inputs[data.first_sequence], inputs[data.second_sequence] if data.second_sequence else None)

    # A stage -------------------------------------------------------------------------------------------------

    def process(self, rows: Rows) -> dict[str, Any]:
        """Returns columns and token arrays [rows, sequence_length] of what a reader hands on."""
        encoded = self.encode(rows.chunk)
        return {**rows.chunk.compact().columns, **fixed_arrays(encoded, self.settings.data.sequence_length)}


class PairedPreprocessor(TextPreprocessor):
    """Encodes the two texts of a row apart, each `[CLS] text [SEP]`, as a two-tower model needs them.

    A call returns ids, mask and segments of the first text, the same of the second, and the label ids.
    """

    names = tuple(f"{name}_{side}" for side in "ab" for name in TextPreprocessor.names)

    def token_columns(self, chunk: RowChunk) -> tuple[dict[str, Ragged | np.ndarray], dict[str, str]]:
        """Returns columns of both texts."""
        columns: dict[str, Ragged | np.ndarray] = {}
        for side, column in zip("ab", self._texts(), strict=True):
            tokens = self._encode(chunk, column)
            columns |= {f"input_ids_{side}": tokens.input_ids, f"segment_ids_{side}": tokens.segment_ids}
        return columns, {f"input_mask_{side}": f"input_ids_{side}" for side in "ab"}

    def serve(self, graph: GraphTokenizer, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the features of raw texts, given by column name, inside a graph."""
        sides = zip("ab", self._texts(), strict=True)
        return {f"{name}_{side}": value for side, column in sides for name, value in graph(inputs[column]).items()}

    def _texts(self) -> tuple[str, str]:
        data = self.settings.data
        if data.second_sequence is None:
            raise ConfigError("a paired preprocessor needs two texts", fix="set preprocess_config.second_sequence")
        return data.first_sequence, data.second_sequence


class PretrainPreprocessor(TextPreprocessor):
    """Packs texts and hides pieces for masked language modelling.

    A call returns `input_ids`, `input_mask`, `segment_ids`, and `masked_lm_positions`, `masked_lm_ids` (int32) and
    `masked_lm_weights` (float32), each [batch, max_predictions_per_seq].
    """

    names = (*TextPreprocessor.names, "masked_lm_positions", "masked_lm_ids", "masked_lm_weights")

    def token_columns(self, chunk: RowChunk) -> tuple[dict[str, Ragged | np.ndarray], dict[str, str]]:
        """Returns the packed texts and what is hidden in them; a row is masked the same way every time."""
        columns, masks = super().token_columns(chunk)
        data = self.settings.data
        masker = TokenMasker(self.tokenizer, self.settings.seed, data.masked_lm_prob, data.max_predictions_per_seq)
        masked = masker.mask(columns["input_ids"], chunk.index)
        hidden = zip(self.names[3:], (masked.positions, masked.ids, masked.weights), strict=True)
        return {**columns, "input_ids": masked.input_ids, **dict(hidden)}, masks

    def __call__(self, features: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor | None, ...]:
        """Returns the tensors of a batch; see the class. There are no labels."""
        found = super().__call__(features)
        return found if self.settings.encoded else found[: len(self.names)] + found[len(self.names) + 1 :]


_SINGLE = ("text_classify_bert", "text_match_bert")
_PRETRAIN = "pretrain_language_model"


def get_preprocessor(
    pretrain_model_name_or_path: str,
    is_paired: bool = False,
    multi_label: bool = False,
    app_model_name: str = _SINGLE[0],
    user_defined_config: Any = None,
    feature_type: str | None = None,
    **stage: Any,
) -> TextPreprocessor:
    """Returns the preprocessor that fits a pre-trained model; inside `build_logits` always the same one.

    Args:
        pretrain_model_name_or_path: ModelZoo name or folder.
        is_paired: Encode the two texts of a row apart.
        multi_label: Labels are comma lists.
        app_model_name: `text_classify_bert`, `text_match_bert` or `pretrain_language_model`.
        user_defined_config: Accepted for compatibility: the configuration of the running application is used.
        feature_type: Accepted for compatibility: without label names the task is a regression.
        **stage: `thread_num`, `input_queue`, `output_queue` for a stage of a `ProcessExecutor`.

    Raises:
        ConfigError: A setting is unknown, or there is no such preprocessor.
        ModelError: The model is not found.
    """
    known = ("thread_num", "input_queue", "output_queue")
    for name in stage:
        if name not in known:
            raise ConfigError(f"get_preprocessor: unknown setting {name!r}", fix=did_you_mean(name, known))
    if app_model_name not in (*_SINGLE, _PRETRAIN):
        raise ConfigError(
            "there is no preprocessor of its own for this application",
            received=app_model_name,
            accepted=(*_SINGLE, _PRETRAIN),
            fix=f"`easy_transfer_app preprocess --modelName {app_model_name}` writes its token ids to a table",
        )
    kind = PretrainPreprocessor if app_model_name == _PRETRAIN else PairedPreprocessor if is_paired else None
    kind = kind or TextPreprocessor

    def make() -> TextPreprocessor:
        return kind(loading().load_tokenizer(pretrain_model_name_or_path, model_root()), multi_label, **stage)

    return created_once(kind.__name__, pretrain_model_name_or_path, make)


def column_values(column: Column, cells: list[Any]) -> np.ndarray | Ragged:
    """Returns parsed cells in a form that a batch can give to the device: text as fixed-size strings."""
    return np.array(cells) if column.type == "str" else column_array(column, cells)


def as_tensor(values: np.ndarray | Ragged) -> tf.Tensor:
    """Returns a column as a tensor; rows of a ragged one are padded with 0."""
    if isinstance(values, Ragged):
        values = values.padded(np.arange(len(values)), max(int(values.lengths.max(initial=0)), 1))
    return tf.constant(values)


def fixed_arrays(encoded: EncodedTable, width: int) -> dict[str, np.ndarray]:
    """Returns every column with `width` positions per row, padded, as tables of ids have them."""
    rows = np.arange(len(encoded))
    arrays = {
        name: column.padded(rows, width, encoded.pad_values.get(name, 0)) if isinstance(column, Ragged) else column
        for name, column in encoded.columns.items()
    }
    for name, source in encoded.masks.items():
        arrays[name] = (np.arange(width) < encoded.columns[source].lengths[:, None]).astype(np.int32)
    return arrays
