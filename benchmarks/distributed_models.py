"""The models of `distributed.py`. Rows are drawn from a seed and kept in the graph: reading them costs nothing.

Every model has `losses(rows)`, summed over the rows, the variables it trains, and the sizes the report needs. Layers
that can be split over workers are split over `group`; with a group of one they are ordinary Keras layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.distributed.collectives import Group
from easytransfer.distributed.layers import ShardedClassifier, ShardedEmbedding
from modelzoo.bert.backbone import BertBackbone
from modelzoo.bert.config import BertConfig

Rows = dict[str, Any]

LAYERS, WIDTH, HEADS = 4, 256, 4
# The 30,522 words of BERT and two more, so that four workers can split the table.
WORDS = 30_524
LABELS = 4
MASKED = 8
# A number no larger than this many different global batches keeps the loss falling during a run.
BATCHES = 16
PROBE = 2_500_000
FLOAT = 4


def _encoder(words: int, tokens: int) -> BertBackbone:
    config = BertConfig(
        vocab_size=words,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=tokens,
    )
    return BertBackbone(config, seed=1)


def _uniform(seed: int) -> keras.initializers.Initializer:
    return keras.initializers.RandomUniform(-0.05, 0.05, seed=seed)


def _cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


class Model:
    """What the subjects train.

    Attributes:
        variables: Trained variables.
        looked_up: Tables of which the gradient has only the rows looked up, with the rows of one example.
        split: Variables that are parts, and those that the sharded subject would split.
        tied: Table whose gradient is dense but arrives as looked-up rows behind all rows.
    """

    variables: list[tf.Variable]
    looked_up: tuple[tuple[tf.Variable, int], ...] = ()
    split: tuple[tf.Variable, ...] = ()
    tied: tf.Variable | None = None

    def losses(self, rows: Rows) -> tf.Tensor:
        """Returns the loss summed over the rows."""
        raise NotImplementedError

    def shared_bytes(self, batch: int, workers: int) -> float:
        """Returns the bytes a worker sends per step for the split variables, with `batch` rows over all workers."""
        return 0.0


class TextClassifier(Model):
    """Model a: BERT encoder, one label per text."""

    def __init__(self, settings: dict[str, Any], group: Group) -> None:
        self.backbone = _encoder(WORDS, settings["tokens"])
        self.head = keras.layers.Dense(LABELS, kernel_initializer=_uniform(2))
        self.head.build([None, WIDTH])
        self.variables = self.backbone.trainable_variables + self.head.trainable_variables
        self.looked_up = ((self.backbone.input_embeddings, settings["tokens"]),)

    @staticmethod
    def rows(settings: dict[str, Any], random: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns arrays [batches * rows, ...]."""
        count = BATCHES * settings["batch"]
        ids = random.integers(1, WORDS, [count, settings["tokens"]], dtype=np.int32)
        return {"input_ids": ids, "labels": random.integers(0, LABELS, count, dtype=np.int32)}

    def losses(self, rows: Rows) -> tf.Tensor:
        """See `Model`."""
        words = {"input_ids": rows["input_ids"], "input_mask": tf.ones_like(rows["input_ids"])}
        pooled = self.backbone(words, training=True, pooled_only=True)["pooled_output"]
        return _cross_entropy(self.head(pooled), rows["labels"])


class TiedClassifier(ShardedClassifier):
    """`ShardedClassifier` whose kernel is the transposed table of a `ShardedEmbedding`."""

    def __init__(self, embedding: ShardedEmbedding, group: Group) -> None:
        super().__init__(embedding.rows, group)
        self.embedding = embedding

    def build(self, shape: Any) -> None:
        """Creates the bias; the kernel is the table."""
        self.bias = self.add_part("bias", (self.classes,), "zeros", axis=0)
        self.built = True

    @property
    def kernel(self) -> tf.Tensor:
        """This worker's columns."""
        return tf.transpose(self.embedding.table)


class MaskedWords(Model):
    """Model b: BERT encoder that guesses masked words; its word table is also the output matrix."""

    def __init__(self, settings: dict[str, Any], group: Group) -> None:
        # The encoder gets its word vectors from outside; its own table has two rows that nobody reads.
        self.encoder = _encoder(2, settings["tokens"]).encoder
        self.tokens = settings["tokens"]
        self.head = None
        if group.size > 1:
            self.embedding = ShardedEmbedding(WORDS, WIDTH, group, _uniform(2), name="words")
            self.embedding.build([None, None])
            self.head = TiedClassifier(self.embedding, group)
            self.head.build([None, WIDTH])
            table, bias = self.embedding.table, self.head.bias
        else:
            self.embedding = keras.layers.Embedding(WORDS, WIDTH, _uniform(2), name="words")
            self.embedding.build([None, None])
            table, bias = self.embedding.embeddings, tf.Variable(tf.zeros([WORDS]), name="bias")
        self.bias = bias
        unused = {id(self.encoder.get_embedding_table()), *map(id, self.encoder.pooler_layer.trainable_variables)}
        trained = [variable for variable in self.encoder.trainable_variables if id(variable) not in unused]
        self.variables = [table, *trained, bias]
        self.split, self.tied = (table, bias), table

    @staticmethod
    def rows(settings: dict[str, Any], random: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns arrays [batches * rows, ...]."""
        count = BATCHES * settings["batch"]
        ids = random.integers(1, WORDS, [count, settings["tokens"]], dtype=np.int32)
        places = np.argsort(random.random(ids.shape), axis=1)[:, :MASKED].astype(np.int32)
        labels = np.take_along_axis(ids, places, 1)
        np.put_along_axis(ids, places, 0, 1)
        return {"input_ids": ids, "places": places, "labels": labels}

    def losses(self, rows: Rows) -> tf.Tensor:
        """See `Model`."""
        ids = rows["input_ids"]
        words = {
            "input_word_ids": ids,
            "input_mask": tf.ones_like(ids),
            "input_type_ids": tf.zeros_like(ids),
            "input_word_embeddings": self.embedding(ids),
        }
        states = self.encoder(words, training=True)["sequence_output"]
        features = tf.reshape(tf.gather(states, rows["places"], batch_dims=1), [-1, WIDTH])
        labels = tf.reshape(rows["labels"], [-1])
        if self.head is not None:
            return tf.reduce_sum(self.head.losses_of(features, labels))
        return _cross_entropy(tf.matmul(features, self.variables[0], transpose_b=True) + self.bias, labels)

    def shared_bytes(self, batch: int, workers: int) -> float:
        """See `Model`."""
        others, share = workers - 1, batch / workers
        vectors = share * self.tokens * WIDTH * FLOAT
        # Ids one way; the vectors one way, their gradients back.
        words = others * (share * self.tokens * FLOAT + 2 * vectors)
        return words + _head_bytes(batch * MASKED, WIDTH, workers)


class ManyClasses(Model):
    """Model c: two dense layers and a classifier with very many classes."""

    def __init__(self, settings: dict[str, Any], group: Group) -> None:
        self.width = settings["features"]
        self.body = [
            keras.layers.Dense(self.width, activation="relu", kernel_initializer=_uniform(seed)) for seed in (2, 3)
        ]
        for layer in self.body:
            layer.build([None, self.width])
        initializer, classes = _uniform(4), settings["classes"]
        self.sharded = group.size > 1
        if self.sharded:
            self.head = ShardedClassifier(classes, group, initializer, name="classes")
        else:
            self.head = keras.layers.Dense(classes, kernel_initializer=initializer, name="classes")
        self.head.build([None, self.width])
        self.split = tuple(self.head.trainable_variables)
        self.variables = [v for layer in (*self.body, self.head) for v in layer.trainable_variables]

    @staticmethod
    def rows(settings: dict[str, Any], random: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns arrays [batches * rows, ...]."""
        count = BATCHES * settings["batch"]
        features = random.standard_normal([count, settings["features"]], dtype=np.float32)
        return {"features": features, "labels": random.integers(0, settings["classes"], count, dtype=np.int32)}

    def losses(self, rows: Rows) -> tf.Tensor:
        """See `Model`."""
        x = rows["features"]
        for layer in self.body:
            x = layer(x)
        if self.sharded:
            return tf.reduce_sum(self.head.losses_of(x, rows["labels"]))
        return _cross_entropy(self.head(x), rows["labels"])

    def shared_bytes(self, batch: int, workers: int) -> float:
        """See `Model`."""
        return _head_bytes(batch, self.width, workers)


class Probe(Model):
    """10 MB of gradients that cost nothing to compute, to compare the exchanges themselves."""

    def __init__(self, settings: dict[str, Any], group: Group) -> None:
        self.variables = [tf.Variable(tf.zeros([PROBE]), name="weight")]

    @staticmethod
    def rows(settings: dict[str, Any], random: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns arrays [batches * rows, ...]."""
        return {"scale": random.random(BATCHES * settings["batch"], dtype=np.float32)}

    def losses(self, rows: Rows) -> tf.Tensor:
        """See `Model`."""
        return tf.reduce_sum(rows["scale"]) * (1.0 + tf.reduce_mean(self.variables[0]))


def _head_bytes(rows: int, width: int, workers: int) -> float:
    """Bytes a worker sends for `ShardedClassifier` with `rows` rows over all workers."""
    others, share = workers - 1, rows / workers
    gathered = others * share * (width + 2) * FLOAT  # features; labels and weights
    softmax = 3 * others * rows * FLOAT  # largest logit, sum of exponentials, logit of the label
    scattered = others / workers * rows * width * FLOAT  # gradient of the features
    return gathered + softmax + scattered


MODELS: dict[str, type[Model]] = {"a": TextClassifier, "b": MaskedWords, "c": ManyClasses, "probe": Probe}
