"""Sequence labelling: a tag for every word or character of a text of any length."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.encoder import Encoder, token_batch
from appzoo.sequence_labeling.config import BertLabelingConfig
from appzoo.sequence_labeling.data import Windows, encode_words, split_tags, split_units
from appzoo.sequence_labeling.entities import EntityEvaluator, unusual_tags
from appzoo.sequence_labeling.found import entity_page, found_entities
from appzoo.sequence_labeling.graph import GraphWords
from appzoo.sequence_labeling.model import LabelingModel, at_words
from appzoo.serving import ids_signature
from easytransfer import keras
from easytransfer.app.contract import App, Values, no_values
from easytransfer.app.inputs.tokens import SAMPLE_TEXTS
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.data.labels import LabelMap
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk
from easytransfer.errors import ConfigError
from easytransfer.losses.sequence import labelled_tokens, token_cross_entropy_sum
from easytransfer.run.atomic import write_text
from easytransfer.run.log import warn
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

PAGE = "entities.html"
_PADDING = {"masks": {"input_mask": "input_ids"}, "pad_values": {"label_id": -1}}


class BertLabeling(App):
    """A pre-trained encoder with a dense layer on every token; long texts are read in overlapping windows."""

    asset_files: ClassVar[tuple[str, ...]] = (*Encoder.ASSET_FILES, LabelMap.FILE)
    config: BertLabelingConfig
    encoder: Encoder
    splits = ("tensor",)
    # None where text without tags is preprocessed.
    _labels: LabelMap | None = None
    # Tags that nobody has been told of yet, with how they are read; None before the first row.
    _unusual: dict[str, str] | None = None

    # Preparation ---------------------------------------------------------------------------------------------

    def load_assets(self, folder: Path | None, values: Values = no_values) -> None:
        """Loads tokenizer and tags from the ModelZoo and the label option, or from `folder` of a trained run."""
        self.encoder = Encoder(self.config, folder)
        data, stated = self.config.data, self.config.model.num_labels
        if folder is not None:
            self._labels = LabelMap.load(folder)
        elif data.label_enumerate_values:
            self._labels = LabelMap.parse(
                data.label_enumerate_values,
                lambda: Counter(chain.from_iterable(map(split_tags, values(data.label_name)))),
            )
        elif data.label_name:
            raise ConfigError("sequence labelling needs the list of tags", fix="give labelEnumerateValues, e.g. auto")
        if stated is not None and self._labels is not None and stated != len(self._labels):
            wrong = "model.num_labels differs from the number of tags listed"
            raise ConfigError(wrong, received=stated, accepted=str(len(self._labels)))

    def save_assets(self, folder: Path) -> None:
        """Writes vocabulary, tokenizer settings, encoder configuration and tags."""
        self.encoder.save(folder)
        self._labels.save(folder)

    def build_model(self, folder: Path | None = None) -> keras.Model:
        """Builds encoder and head; from the ModelZoo, or the shape stored in `folder` with weights to be restored."""
        settings, seed = self.config.model, self.config.runtime.seed
        backbone = self.encoder.backbone(folder, self.workers)
        self.model = LabelingModel(backbone, len(self._labels), settings.dropout_rate, settings.use_crf, seed)
        self.model({**token_batch(), "word_starts": tf.zeros([1, 1], tf.int32)})
        return self.model

    @property
    def label_map(self) -> LabelMap | None:
        """Tags with their ids."""
        return self._labels

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and the head with the unused pooler: what freezing leaves."""
        *encoder, pooler = self.model.backbone.layer_groups()
        crf = self.model.crf.trainable_variables if self.model.crf is not None else []
        return [*encoder, [*pooler, *self.model.head.trainable_variables, *crf]]

    # Rows ----------------------------------------------------------------------------------------------------

    def input_columns(self) -> list[str]:
        """Returns the text column."""
        return [self.config.data.first_sequence]

    def text_columns(self) -> dict[str, ListForm]:
        """Returns text and tags, which may be lists of words."""
        data = self.config.data
        return {name: "words" for name in (data.first_sequence, data.label_name) if name}

    def encode(self, chunk: RowChunk, with_labels: bool) -> EncodedTable:
        """Encodes the words of every row to one or more windows; rows whose tags do not fit are bad rows."""
        data, settings = self.config.data, self.config.model
        texts = chunk.columns[data.first_sequence]
        units = [split_units(text, settings.unit) for text in texts]
        tags = self._read_tags(chunk, units) if with_labels else []
        windows = self._windows(chunk, units)
        kept = np.flatnonzero(chunk.accepted)
        self.text_counts.update(
            rows=len(kept),
            windows=len(windows.row_of),
            truncated=int((windows.cut > 0).sum()),
            tokens=int(windows.input_ids.lengths.sum()),
            unknown=int(windows.unknown.sum()),
        )
        columns = _token_columns(windows) | {
            "place": _objects(zip(chunk.index[kept][windows.row_of].tolist(), windows.window.tolist(), strict=True)),
            "text": _objects(texts[row] for row in kept[windows.row_of]),
        }
        if with_labels:
            flat = np.fromiter(chain.from_iterable(tags[row] for row in kept), np.int64)
            columns["label_id"] = windows.token_labels(flat, settings.label_all_subtokens)
        return EncodedTable(columns, **_PADDING, row_of=windows.row_of)

    def _windows(self, chunk: RowChunk, units: list[list[str]]) -> Windows:
        """Encodes the accepted rows; with `noTruncate`, rows with a word too long for any window are bad rows."""
        data = self.config.data
        while True:
            kept = np.flatnonzero(chunk.accepted)
            windows = encode_words(self.encoder.tokenizer, [units[row] for row in kept], data.sequence_length)
            rows = kept[windows.cut > 0]
            if not len(rows):
                return windows
            reason = f"too long: a word has more pieces than sequenceLength={data.sequence_length} has room for"
            if not data.no_truncate:
                warn(f"{chunk.origin(int(rows[0]))}: {reason}; the rest of it is left out ({len(rows)} such rows here)")
                return windows
            for row in rows:
                chunk.reject(int(row), data.first_sequence, reason)

    def _read_tags(self, chunk: RowChunk, units: list[list[str]]) -> list[list[int]]:
        """Returns the tag ids of every position; rows without words, or whose tags do not fit, are bad rows."""
        data, ids = self.config.data, self._labels.ids
        result = []
        for row, (cell, words) in enumerate(zip(chunk.columns[data.label_name], units, strict=True)):
            names = split_tags(cell)
            found = [ids.get(name, -1) for name in names]
            if not words:
                chunk.reject(row, data.first_sequence, "empty text: there is nothing to give a tag to")
            elif len(names) != len(words):
                unit = self.config.model.unit
                reason = f"wrong number of tags: {len(names)} for {len(words)} {unit}s"
                chunk.reject(row, data.label_name, reason)
            elif -1 in found:
                place = found.index(-1)
                reason = self._labels.why_unknown(names[place], "tag", f" of {words[place]!r}")
                chunk.reject(row, data.label_name, reason)
            self._tell_unusual(chunk, row, names)
            result.append(found)
        return result

    def _tell_unusual(self, chunk: RowChunk, row: int, names: list[str]) -> None:
        """Warns at the first row that has it of a tag that is written otherwise than the tags of entities are."""
        if self._unusual is None:
            self._unusual = unusual_tags(self.labels)
        for name in sorted(self._unusual.keys() & set(names)):
            how = self._unusual.pop(name)
            warn(f"{chunk.origin(row)}: the tag {name} is read as {how}; usual tags are O and B-{{type}}")

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns tags, their probabilities and the entities of every row."""
        tags, words = _of_words(outputs["tags"], encoded), _words(encoded)
        logs = _of_words(outputs["log_probabilities"], encoded)[np.arange(len(tags)), tags]
        ends = np.cumsum(words)[:-1]
        columns = {
            "predictions": [" ".join(names) for names in np.split(np.array(self.labels, object)[tags], ends)],
            "probabilities": np.split(np.exp(logs), ends),
        }
        if "text" not in encoded.columns:
            schema = self.config.data.output_schema
            if schema is None or "entities" in schema:
                raise ConfigError("a table of token ids has no text to take entities from", fix="give outputSchema")
            return columns
        found = found_entities(self.labels, self.config.model.unit, _texts(encoded), tags, words.tolist())
        return columns | {"entities": [json.dumps(row, ensure_ascii=False) for row in found]}

    def output_columns(self) -> tuple[str, ...]:
        """Returns one tag per word, the probability of each, and a JSON list of entities."""
        return ("predictions", "probabilities", "entities")

    def write_pages(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Writes a page with true and predicted entities of the first rows."""
        words, texts = _words(encoded).tolist(), _texts(encoded)
        sides = (_true_tags(encoded), _of_words(outputs["tags"], encoded))
        unit = self.config.model.unit
        true, predicted = (found_entities(self.labels, unit, texts, tags, words) for tags in sides)
        write_text(folder / PAGE, entity_page(texts, true, predicted))
        return [PAGE]

    # Training ------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the cross entropy of labelled tokens, or the negative log likelihood of the tags, by tokens."""
        labels, logits, weight = _token_labels(batch), outputs["logits"], batch["example_weight"]
        tokens = labelled_tokens(labels, weight)
        if self.model.crf is None:
            smoothing = self.config.train.label_smoothing
            return {"loss": Loss(token_cross_entropy_sum(labels, logits, weight, smoothing), tokens)}
        emissions, lengths = at_words(logits, batch["word_starts"])
        tags, _ = at_words(labels, batch["word_starts"])
        likelihood = self.model.crf.log_likelihood(emissions, tags, lengths)
        return {"loss": Loss(-tf.reduce_sum(weight * likelihood), tokens)}

    def evaluator(self) -> EntityEvaluator:
        """Returns token accuracy and entity scores, windows merged."""
        return EntityEvaluator(self.labels)

    # Serving -------------------------------------------------------------------------------------------------

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Returns raw text and token ids; raw text may be as long as that of `encode`, and is read the same way."""
        settings, tokenizer = self.config.model, self.encoder.tokenizer
        words = GraphWords(self.encoder.graph(folder), tokenizer, settings.unit)

        def serve_text(text: tf.Tensor) -> dict[str, tf.Tensor]:
            arrays, counts, truncated = words(text)
            outputs = self.model(arrays, training=False)
            # Windows come in the order of their words: without the padding they are merged.
            real = arrays["word_starts"] > 0
            tags, logs = (tf.boolean_mask(outputs[name], real) for name in ("tags", "log_probabilities"))
            names = tf.RaggedTensor.from_row_lengths(tf.gather(tf.constant(self.labels), tags), counts)
            best = tf.RaggedTensor.from_row_lengths(tf.exp(tf.gather(logs, tags, batch_dims=1)), counts)
            return {
                "tags": tf.strings.reduce_join(names, axis=-1, separator=" "),
                "probabilities": best.to_tensor(),
                "truncated": truncated,
            }

        samples = np.array(SAMPLE_TEXTS, object)
        raw = Signature(
            serve_text, {"text": tf.TensorSpec([None], tf.string)}, {"text": samples}, "raw text to tags", words
        )
        units = [split_units(text, settings.unit) for text in SAMPLE_TEXTS]
        windows = encode_words(tokenizer, units, self.config.data.sequence_length)
        encoded = EncodedTable(_token_columns(windows), **_PADDING)
        return {"serving_default": raw, "predict_ids": ids_signature(self, encoded)}


def _token_columns(windows: Windows) -> dict[str, Any]:
    """Returns the columns the model reads."""
    ids = windows.input_ids
    segments = Ragged(np.zeros_like(ids.values), ids.offsets)
    return {"input_ids": ids, "segment_ids": segments, "word_starts": windows.word_starts}


def _objects(values: Iterable[Any]) -> np.ndarray:
    """Returns a column that stays on the host, whatever its values are."""
    values = list(values)
    column = np.empty(len(values), object)
    for i, value in enumerate(values):
        column[i] = value
    return column


def _token_labels(batch: Batch) -> tf.Tensor:
    """Returns the labels, -1 behind the end of a text, where a table of token ids may have anything."""
    return tf.where(batch["input_mask"] > 0, batch["label_id"], -1)


def _words(encoded: EncodedTable) -> np.ndarray:
    """Returns the number of words of every row."""
    return np.bincount(encoded.row_of, list(map(len, _starts(encoded))), encoded.row_count).astype(np.int64)


def _starts(encoded: EncodedTable) -> list[np.ndarray]:
    """Returns where the words of every window start; a table of token ids pads with 0."""
    starts = encoded.columns["word_starts"]
    return [row[row > 0] for row in (starts[i] for i in range(len(starts)))]


def _true_tags(encoded: EncodedTable) -> np.ndarray:
    """Returns the true tags of all words."""
    labels = encoded.columns["label_id"]
    return np.concatenate([labels[i][starts] for i, starts in enumerate(_starts(encoded))])


def _texts(encoded: EncodedTable) -> list[str]:
    """Returns the text of every row, which all its windows carry."""
    return encoded.columns["text"][np.flatnonzero(np.diff(encoded.row_of, prepend=-1))].tolist()


def _of_words(values: np.ndarray, encoded: EncodedTable) -> np.ndarray:
    """Returns a padded output of all windows as one array over all words; windows come in the order of their words."""
    return np.concatenate([row[: len(starts)] for row, starts in zip(values, _starts(encoded), strict=True)])


VARIANTS = {"bert": BertLabeling}
