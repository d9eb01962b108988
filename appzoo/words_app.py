"""Applications on words: vocabulary from the training table, word vectors, one or more networks, a dense layer."""

from __future__ import annotations

import abc
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from appzoo.words_settings import WordSettings
from easytransfer import keras
from easytransfer.app.assets import no_values
from easytransfer.app.contract import App, Assets
from easytransfer.app.inputs.base import Input
from easytransfer.app.inputs.words import WordsInput
from easytransfer.app.targets.labels import LabelTarget, label_target
from easytransfer.deferred import tf
from easytransfer.errors import ConfigError
from easytransfer.run.log import say
from easytransfer.text.word_vectors import read_word_vectors
from easytransfer.text.words import WordVocabulary

if TYPE_CHECKING:
    from appzoo.words_model import Branch


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
            from easytransfer.train import checkpoint

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
        from appzoo.words_model import WordsModel

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
