"""Applications on words: vocabulary from the training table, word vectors, one or more networks, a dense layer."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.serving import ids_signature
from appzoo.target_app import TargetApp
from appzoo.words_settings import WordSettings
from easytransfer import keras
from easytransfer.app.contract import Cells, no_cells
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.errors import ConfigError
from easytransfer.export.servable import Signature
from easytransfer.layers.dropout import Dropout
from easytransfer.run.log import say
from easytransfer.text.word_vectors import read_word_vectors
from easytransfer.text.words import VOCAB_FILE, WordIds, WordVocabulary
from easytransfer.text.words_graph import GraphWords
from easytransfer.train import checkpoint

HEAD_DEVIATION = 0.02
# Rows every export is checked on: plain, empty, non-ASCII, control characters, longer than any limit.
SAMPLE_TEXTS = ("as promised", "", "ΟΔΥΣΣΕΥΣ Überraschend, 质量不错 👍", "tabs\tand\x07bells", "very " * 600 + "long")


class WordsApp(TargetApp):
    """A network on word vectors, trained from scratch.

    A subclass names its texts and its networks. The vocabulary comes from the training table, or from the run that
    `init_checkpoint_path` starts from, whose weights belong to its words.
    """

    asset_files: ClassVar[tuple[str, ...]] = (VOCAB_FILE, "label_mapping.json")
    vocabulary: WordVocabulary

    @abc.abstractmethod
    def texts(self) -> dict[str, tuple[str, int]]:
        """Returns column and most words of each text, by the suffix of its `input_ids`; `""` for a single one."""

    @abc.abstractmethod
    def branches(self) -> list[Branch]:
        """Returns the networks; their features stand side by side before the last layer."""

    # Preparation ---------------------------------------------------------------------------------------------

    def prepare(self, folder: Path | None, cells: Cells = no_cells) -> None:
        """Makes the vocabulary from the training table and reads the label names, or reads both from `folder`.

        Raises:
            ConfigError: There is neither a training table nor a run to take the words from.
            ModelError: `folder` holds no vocabulary.
        """
        model, start = self._words, self.config.train.init_checkpoint_path
        if folder is None and start:
            self.vocabulary = WordVocabulary.load(checkpoint.resolve(start).parent, model.split_characters)
        elif folder is not None:
            self.vocabulary = WordVocabulary.load(folder, model.split_characters)
        elif cells is no_cells or self.config.data.output_table:
            # Ids of words that nobody remembers are of no use.
            raise ConfigError(
                f"{self.config.model_name} takes its words from a training table and there is none",
                fix="train first, and give the run folder as checkpointPath: its words are used",
            )
        else:
            self.vocabulary = WordVocabulary.build(
                chain.from_iterable(cells(column) for column in self.input_columns()),
                max_size=model.max_vocab_size,
                min_count=model.min_word_count,
                split=model.split_characters,
            )
        self.prepare_target(folder, cells)

    @property
    def _words(self) -> WordSettings:
        model: WordSettings = self.config.model
        return model

    def save_assets(self, folder: Path) -> None:
        """Writes the words and the label map."""
        self.vocabulary.save(folder)
        super().save_assets(folder)

    def build_model(self, folder: Path | None = None) -> keras.Model:
        """Builds word vectors, networks and head; `folder` means that the weights are restored afterwards."""
        self.model = WordsModel(
            self._start_vectors() if folder is None else None,
            len(self.vocabulary),
            self._words.embedding_size,
            not self._words.fix_embedding,
            self.branches(),
            self.target.num_outputs,
            tuple(self.texts()),
        )
        tokens = tf.ones([1, 4], tf.int32)
        self.model({f"{name}{suffix}": tokens for name in ("input_ids", "input_mask") for suffix in self.texts()})
        return self.model

    def _start_vectors(self) -> np.ndarray | None:
        path = self._words.pretrain_word_embedding_name_or_path
        if not path:
            return None
        words = self.vocabulary.words
        vectors, found = read_word_vectors(path, words, self._words.embedding_size, self.config.runtime.seed)
        say(f"word vectors: {found:,} of {len(words):,} words are in {path}")
        return vectors

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns word vectors (none when `fix_embedding`), networks, and the last dense layer."""
        model = self.model
        networks = [variable for branch in model.branches for variable in branch.trainable_variables]
        return [model.embedding.trainable_variables, networks, model.head.trainable_variables]

    # Rows ----------------------------------------------------------------------------------------------------

    def input_columns(self) -> list[str]:
        """Returns the text columns."""
        return [column for column, _ in self.texts().values()]

    def encode(self, chunk: RowChunk, with_labels: bool) -> EncodedTable:
        """Looks words up and reads labels; unknown labels and, with noTruncate, long texts are bad rows."""
        found = {
            suffix: self.vocabulary.encode(chunk.columns[column], max_length=length)
            for suffix, (column, length) in self.texts().items()
        }
        if self.config.data.no_truncate:
            self._reject_long(chunk, found)
        values = self.read_labels(chunk) if with_labels else []
        kept = np.flatnonzero(chunk.accepted)
        self._count(found.values(), kept)
        encoded = self._table({suffix: words.ids.take(kept) for suffix, words in found.items()})
        if with_labels:
            encoded.columns["label_id"] = self.target.array([values[row] for row in kept])
        return encoded

    def _table(self, ids: dict[str, Any]) -> EncodedTable:
        columns = {f"input_ids{suffix}": column for suffix, column in ids.items()}
        return EncodedTable(columns, masks={f"input_mask{suffix}": f"input_ids{suffix}" for suffix in ids})

    def _reject_long(self, chunk: RowChunk, found: dict[str, WordIds]) -> None:
        for suffix, (column, length) in self.texts().items():
            for row in np.flatnonzero(found[suffix].truncated):
                chunk.reject(int(row), column, f"too long: more than {length} words")

    def _count(self, found: Iterable[WordIds], kept: np.ndarray) -> None:
        found = list(found)
        self.text_counts.update(
            rows=len(kept),
            truncated=int(np.any([words.truncated[kept] for words in found], axis=0).sum()),
            tokens=sum(int(words.ids.lengths[kept].sum()) for words in found),
            unknown=sum(int(words.unknown[kept].sum()) for words in found),
        )

    # Serving -------------------------------------------------------------------------------------------------

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Returns raw text (`text`, or `text_a` and `text_b`), word ids, and the tf.Example forms."""
        graph, texts = GraphWords(self.vocabulary), self.texts()

        def serve(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            batch = {}
            for suffix, (_, length) in texts.items():
                words = graph(inputs[f"text{suffix}"], length)
                batch |= {f"{name}{suffix}": value for name, value in words.items()}
            return self.answer(self.model(batch, training=False)["logits"])

        turns = [SAMPLE_TEXTS, SAMPLE_TEXTS[::-1]]
        samples = {f"text{suffix}": np.array(turns[number], object) for number, suffix in enumerate(texts)}
        raw = Signature(serve, dict.fromkeys(samples, tf.TensorSpec([None], tf.string)), samples, "raw text", graph)
        ids = {
            suffix: self.vocabulary.encode(turns[number], max_length=length).ids
            for number, (suffix, (_, length)) in enumerate(texts.items())
        }
        signatures = {"serving_default": raw, "predict_ids": ids_signature(self, self._table(ids))}
        return {**signatures, **self.target.signatures(raw)}


class Branch(keras.layers.Layer):
    """A network, dropout on its features and, if wanted, a dense layer with ReLU.

    Args:
        name: Name of the layer, which is part of the names of its weights.
        encoder: Takes word vectors of every text, then the mask of every text; returns features [batch, n].
        dropout_rate: Dropout on the features.
        hidden_size: Units of the dense layer; None leaves it out.

    Call arguments:
        inputs: What `encoder` takes.

    Returns:
        [batch, hidden_size], or [batch, n] without the dense layer.
    """

    def __init__(
        self, name: str, encoder: keras.layers.Layer, dropout_rate: float, hidden_size: int | None = None
    ) -> None:
        super().__init__(name=name)
        self.encoder = encoder
        self.dropout = Dropout(dropout_rate, name="features_dropout")
        self.projection = None if hidden_size is None else _dense(hidden_size, activation="relu", name="projection")

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns the features of the batch."""
        features = self.dropout(self.encoder(inputs, training=training), training=training)
        return features if self.projection is None else self.projection(features)


class WordsModel(keras.Model):
    """Word vectors, networks side by side, dense layer.

    Args:
        vectors: Start values of the word vectors [words, size]; None draws them.
        num_words: Words of the vocabulary.
        embedding_size: Length of a word vector.
        trainable: Whether the word vectors are trained.
        branches: Networks.
        num_outputs: Classes, or 1 for a score.
        suffixes: Endings of the names of each text's inputs.

    Call arguments:
        batch: `input_ids` and `input_mask` of each text, its suffix behind, [batch, words].

    Returns:
        `logits` float32 [batch, num_outputs].
    """

    def __init__(
        self,
        vectors: np.ndarray | None,
        num_words: int,
        embedding_size: int,
        trainable: bool,
        branches: Sequence[Branch],
        num_outputs: int,
        suffixes: Sequence[str],
    ) -> None:
        super().__init__(name="words")
        start = _normal() if vectors is None else keras.initializers.Constant(vectors)
        self.embedding = keras.layers.Embedding(
            num_words, embedding_size, embeddings_initializer=start, trainable=trainable, name="word_vectors"
        )
        self.branches = list(branches)
        self.head = _dense(num_outputs, dtype="float32", name="head")
        self._suffixes = tuple(suffixes)

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """Returns `{"logits": [batch, num_outputs]}`."""
        with tf.control_dependencies([check for suffix in self._suffixes for check in self._checks(batch, suffix)]):
            vectors = [self.embedding(batch[f"input_ids{suffix}"]) for suffix in self._suffixes]
        inputs = [*vectors, *(batch[f"input_mask{suffix}"] for suffix in self._suffixes)]
        features = [branch(inputs, training=training) for branch in self.branches]
        return {"logits": self.head(tf.cast(tf.concat(features, axis=-1), tf.float32))}

    def _checks(self, batch: dict[str, tf.Tensor], suffix: str) -> list[tf.Operation]:
        """Returns the checks of one text: a GPU reads zeros for a word that is not there."""
        ids, mask, words = batch[f"input_ids{suffix}"], batch[f"input_mask{suffix}"], self.embedding.input_dim
        found = {
            f"word ids must lie in [0, {words})": (ids >= 0) & (ids < words),
            "input_mask must be 0 or 1": (mask == 0) | (mask == 1),
        }
        checks = (tf.debugging.Assert(tf.reduce_all(true), [message]) for message, true in found.items())
        return [check for check in checks if check is not None]


def _normal() -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=HEAD_DEVIATION)


def _dense(units: int, **settings: Any) -> keras.layers.Dense:
    return keras.layers.Dense(units, kernel_initializer=_normal(), **settings)
