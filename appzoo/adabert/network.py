"""The network of a search, in which every edge has all operations, and the one that is derived from it."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from appzoo.adabert.architecture import EDGES, INPUTS, NODES, OPERATIONS, Architecture
from appzoo.adabert.search import input_masks, strongest
from appzoo.layer_probes import Probes
from easytransfer import keras
from easytransfer.layers.dropout import Dropout
from easytransfer.layers.plain import get_initializer
from easytransfer.train.weights import TRAINING_ONLY

TEACHER_PROBES = f"{TRAINING_ONLY}_teacher_probes"
_EPSILON = 1e-6


class Convolution(keras.layers.Layer):
    """ReLU, a convolution over tokens of as many channels, and layer normalisation.

    Departs from the paper: batch normalisation there, which sees padding and other rows.

    Args:
        width: Channels.
        tokens: Width of the filters.
        dilation: Tokens from one that a filter sees to the next.
        name: Name of the layer.

    Call arguments:
        x: [batch, tokens, width], 0 where there is no token.

    Returns:
        [batch, tokens, width].
    """

    def __init__(self, width: int, tokens: int, dilation: int, name: str) -> None:
        super().__init__(name=name)
        self.convolution = keras.layers.Conv1D(
            width, tokens, padding="same", dilation_rate=dilation, name="convolution"
        )
        self.normalization = keras.layers.LayerNormalization(epsilon=_EPSILON, name="layer_norm")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return self.normalization(self.convolution(tf.nn.relu(x)))


def max_pool(x: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """Returns the largest of each token and its neighbours.

    Args:
        x: [batch, tokens, width].
        real: [batch, tokens, 1], 1 for tokens; others are not looked at.
    """
    shown = tf.where(real > 0, x, tf.fill(tf.shape(x), x.dtype.min))
    return tf.where(real > 0, tf.nn.max_pool1d(shown, 3, 1, "SAME"), tf.zeros_like(x))


def avg_pool(x: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """Returns the mean of each token and those of its neighbours that are there; arguments as of `max_pool`."""
    total, count = (3 * tf.nn.avg_pool1d(tf.pad(v, [[0, 0], [1, 1], [0, 0]]), 3, 1, "VALID") for v in (x * real, real))
    return tf.math.divide_no_nan(total, count) * real


class Cell(keras.layers.Layer):
    """Three nodes, each a weighted sum of operations on the inputs of the cell and the nodes before it.

    Its output is the sum of the nodes, weighted by a softmax that is trained.

    Args:
        edges: Node, source and names of operations of every edge.
        width: Channels.
        name: Name of the layer.

    Call arguments:
        inputs: Both inputs, [batch, tokens, width].
        real: [batch, tokens, 1], 1 for tokens.
        choices: Factor of every operation of every edge, [edges, operations]; None where each edge has one.

    Returns:
        [batch, tokens, width], 0 where there is no token.
    """

    def __init__(self, edges: Sequence[tuple[int, int, Sequence[str]]], width: int, name: str) -> None:
        super().__init__(name=name)
        self._edges = [(node, source, tuple(names)) for node, source, names in edges]
        self.convolutions: dict[str, Convolution] = {}
        for node, source, names in self._edges:
            for operation in names:
                kind, _, tokens = operation.rpartition("_")
                if kind.endswith("conv"):
                    place, dilation = f"{operation}_{source}_to_{node}", 2 if kind.startswith("dilated") else 1
                    self.convolutions[place] = Convolution(width, int(tokens), dilation, place)

    def build(self, shape: tf.TensorShape) -> None:
        """Makes the weights of the nodes in the output."""
        self.node_weights = self.add_weight("node_weights", [NODES], initializer="zeros")
        super().build(shape)

    def call(self, inputs: Sequence[tf.Tensor], real: tf.Tensor, choices: tf.Tensor | None = None) -> tf.Tensor:
        """See the class."""
        states = list(inputs)
        for node in range(NODES):
            parts = []
            for number, (of, source, names) in enumerate(self._edges):
                for place, operation in enumerate(names if of == node else ()):
                    value = self._operate(operation, source, node, states[source], real)
                    if value is not None:
                        parts.append(value if choices is None else value * choices[number, place])
            states.append(tf.add_n(parts) * real if parts else tf.zeros_like(states[0]))
        shares = tf.nn.softmax(self.node_weights)
        return tf.add_n([states[INPUTS + node] * shares[node] for node in range(NODES)])

    def _operate(self, operation: str, source: int, node: int, x: tf.Tensor, real: tf.Tensor) -> tf.Tensor | None:
        """Returns what an operation makes of its source, None for zero."""
        if operation in ("identity", "zero"):
            return x if operation == "identity" else None
        if operation == "max_pool_3":
            return max_pool(x, real)
        if operation == "avg_pool_3":
            return avg_pool(x, real)
        return self.convolutions[f"{operation}_{source}_to_{node}"](x)


class SearchWeights(keras.layers.Layer):
    """What decides the network: weights of the operations on the edges of all cells, and of the numbers of cells.

    Args:
        cells: Most cells.
    """

    def __init__(self, cells: int) -> None:
        super().__init__(name=f"{TRAINING_ONLY}_architecture", dtype="float32")
        self.edges = self.add_weight(f"{self.name}/edges", [len(EDGES), len(OPERATIONS)], initializer="zeros")
        self.depth = self.add_weight(f"{self.name}/depth", [cells], initializer="zeros")


class AdaBertModel(keras.Model):
    """Embeddings of tokens, positions and segments, cells over tokens, and logits behind every cell.

    Args:
        sizes: Rows of the table of tokens, most tokens, width of the embeddings, width of the cells.
        cells: Most cells of a search.
        architecture: A derived network, which has cells of its own; None for a search.
        num_outputs: Classes.
        is_pair: Whether rows are pairs: then each text is one input of the first cell.
        dropout_rate: Dropout on the embeddings, and before each dense layer.
        teacher: Number of probes on the teacher, and width of what they look at; none where there are no probes.

    Call arguments:
        batch: `input_ids`, `input_mask`, `segment_ids`, each int [batch, tokens].
        choices: Of a search: factors of operations [edges, operations], and of numbers of cells [cells]. None takes
            the strongest ones.

    Returns:
        `logits` float32 [batch, classes]; `layer_logits` [batch, cells, classes]; and, for every row the same, `depth`
        [batch, cells], the factors of numbers of cells.
    """

    def __init__(
        self,
        sizes: tuple[int, int, int, int],
        cells: int,
        architecture: Architecture | None,
        num_outputs: int,
        is_pair: bool,
        dropout_rate: float,
        teacher: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(name="adabert")
        words, positions, embedding, width = sizes
        self._is_pair, self._positions = is_pair, positions
        self.words, self.positions, self.segments = (
            keras.layers.Embedding(rows, embedding, embeddings_initializer=get_initializer(), name=name)
            for rows, name in ((words, "words"), (positions, "positions"), (2, "segments"))
        )
        self.embedding_norm = keras.layers.LayerNormalization(epsilon=_EPSILON, name="embedding_layer_norm")
        self.embedding_dropout = Dropout(dropout_rate, name="embedding_dropout")
        self.projection = keras.layers.Dense(width, name="projection")
        self.search_weights = SearchWeights(cells) if architecture is None else None
        edges = [(node, source, OPERATIONS) for node, source in EDGES]
        if architecture is not None:
            edges, cells = [(node, source, (name,)) for node, source, name in architecture.edges], architecture.cells
        self.cells = [Cell(edges, width, f"cell_{number}") for number in range(1, cells + 1)]
        self.norms = [
            keras.layers.LayerNormalization(epsilon=_EPSILON, name=f"cell_{number}_layer_norm")
            for number in range(1, cells + 1)
        ]
        self.dropout = Dropout(dropout_rate, name="head_dropout")
        self.heads = Probes(cells, num_outputs, "heads")
        self.teacher_probes = None
        if teacher[0]:
            self.teacher_probes = Probes(teacher[0], num_outputs, TEACHER_PROBES)
            self.teacher_probes(tf.zeros([1, *teacher]))

    def strongest(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the choices that a derivation makes, as `choices` of a call."""
        depth = self.search_weights.depth
        return strongest(tf.convert_to_tensor(self.search_weights.edges)), tf.one_hot(tf.argmax(depth), depth.shape[0])

    def call(
        self,
        batch: dict[str, tf.Tensor],
        training: bool = False,
        choices: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> dict[str, tf.Tensor]:
        """See the class."""
        count = len(self.cells)
        edges, depth = None, tf.one_hot(count - 1, count)
        if self.search_weights is not None:
            edges, depth = self.strongest() if choices is None else choices
        x, mask = self._embedded(batch, training), batch["input_mask"]
        first, second = input_masks(mask, batch["segment_ids"], self._is_pair)
        real = tf.cast(tf.cast(mask, tf.float32)[:, :, tf.newaxis], x.dtype)
        edges = None if edges is None else tf.cast(edges, x.dtype)
        states, pooled = [x * tf.cast(first, x.dtype), x * tf.cast(second, x.dtype)], []
        for cell, norm in zip(self.cells, self.norms, strict=True):
            states = [states[1], norm(cell(states, real, edges)) * real]
            total = tf.reduce_sum(tf.cast(states[1], tf.float32), axis=1)
            pooled.append(tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(real, tf.float32), axis=1)))
        found = self.heads(self.dropout(tf.stack(pooled, axis=1), training=training))
        rows = tf.shape(found)[0]
        logits = tf.einsum("bkc,k->bc", found, depth)
        return {"logits": logits, "layer_logits": found, "depth": tf.tile(depth[tf.newaxis], [rows, 1])}

    def _embedded(self, batch: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
        """Returns [batch, tokens, width]; batches may be padded beyond the last position."""
        ids = batch["input_ids"]
        places = tf.minimum(tf.range(tf.shape(ids)[1]), self._positions - 1)
        total = self.words(ids) + self.positions(places)[tf.newaxis] + self.segments(batch["segment_ids"])
        return self.projection(self.embedding_dropout(self.embedding_norm(total), training=training))
