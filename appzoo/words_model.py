"""The network on word vectors: one or more networks side by side, then a dense layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import Dropout

HEAD_DEVIATION = 0.02


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
