"""Applications on words: vocabulary from the training table, word vectors, one or more networks, a dense layer."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.words_settings import WordSettings
from easytransfer import keras
from easytransfer.app.assets import no_values
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.app.inputs.words import WordsInput
from easytransfer.app.targets.labels import LabelTarget, label_target
from easytransfer.errors import ConfigError
from easytransfer.layers.dropout import Dropout
from easytransfer.run.log import say
from easytransfer.text.word_vectors import read_word_vectors
from easytransfer.text.words import WordVocabulary
from easytransfer.train import checkpoint

HEAD_DEVIATION = 0.02


class WordsApp(App):
    """A network on word vectors, trained from scratch.

    A subclass names its texts and its networks. The vocabulary comes from the training table, or from the run that
    `init_checkpoint_path` starts from, whose weights belong to its words.
    """

    vocabulary: WordVocabulary
    target: LabelTarget

    @abc.abstractmethod
    def texts(self) -> dict[str, tuple[str, int]]:
        """Returns column and most words of each text, by the suffix of its `input_ids`; `""` for a single one."""

    @abc.abstractmethod
    def branches(self) -> list[Branch]:
        """Returns the networks; their features stand side by side before the last layer."""

    def build_inputs(self, assets: Assets) -> list[Input]:
        """Returns the texts, their words from the training table or from a trained run.

        Raises:
            ConfigError: There is neither a training table nor a run to take the words from.
            ModelError: The run holds no vocabulary.
        """
        self.vocabulary, strict = self._find_vocabulary(assets), self.config.data.no_truncate
        return [
            WordsInput(column, self.vocabulary, length, suffix=suffix, no_truncate=strict)
            for suffix, (column, length) in self.texts().items()
        ]

    def build_target(self, assets: Assets) -> LabelTarget:
        """Returns classes or a number."""
        return label_target(self.config, assets)

    def _find_vocabulary(self, assets: Assets) -> WordVocabulary:
        model, start = self._words, self.config.train.init_checkpoint_path
        if assets.folder is not None:
            return WordVocabulary.load(assets.folder, model.split_characters)
        if start:
            return WordVocabulary.load(checkpoint.resolve(start).parent, model.split_characters)
        if assets.values is no_values or self.config.data.output_table:
            # Ids of words that nobody remembers are of no use.
            raise ConfigError(
                f"{self.config.model_name} takes its words from a training table and there is none",
                fix="train first, and give the run folder as checkpointPath: its words are used",
            )
        return WordVocabulary.build(
            chain.from_iterable(assets.values(column) for column, _ in self.texts().values()),
            max_size=model.max_vocab_size,
            min_count=model.min_word_count,
            split=model.split_characters,
        )

    @property
    def _words(self) -> WordSettings:
        model: WordSettings = self.config.model
        return model

    def build_network(self, assets: Assets) -> keras.Model:
        """Builds word vectors, networks and head; with a folder the weights are restored afterwards."""
        network = WordsModel(
            self._start_vectors() if assets.folder is None else None,
            len(self.vocabulary),
            self._words.embedding_size,
            not self._words.fix_embedding,
            self.branches(),
            self.target.num_outputs,
            tuple(self.texts()),
        )
        tokens = tf.ones([1, 4], tf.int32)
        network({f"{name}{suffix}": tokens for name in ("input_ids", "input_mask") for suffix in self.texts()})
        return network

    def _start_vectors(self) -> np.ndarray | None:
        path = self._words.pretrain_word_embedding_name_or_path
        if not path:
            return None
        words = self.vocabulary.words
        vectors, found = read_word_vectors(path, words, self._words.embedding_size, self.config.runtime.seed)
        say(f"word vectors: {found:,} of {len(words):,} words are in {path}")
        return vectors


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

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns word vectors (none when they are fixed), networks, and the last dense layer."""
        networks = [variable for branch in self.branches for variable in branch.trainable_variables]
        return [self.embedding.trainable_variables, networks, self.head.trainable_variables]

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
