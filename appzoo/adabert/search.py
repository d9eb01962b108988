"""The parts of the search: temperatures, samples with gradients, costs, and which layer learns from which.

Chen et al., AdaBERT: Task-Adaptive BERT Compression with Differentiable Neural Architecture Search, IJCAI 2020
(https://arxiv.org/abs/2001.04246); samples as in Jang et al., https://arxiv.org/abs/1611.01144.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from appzoo.adabert.architecture import EDGES, KEPT, NODES, OPERATIONS, ZERO
from easytransfer.losses.distillation import layer_at_height

FIRST_TEMPERATURE, LAST_TEMPERATURE = 1.0, 0.2
# The smallest number that is drawn above 0.
_TINY = 2.0**-25


def temperature(step: tf.Tensor, decay_steps: int) -> tf.Tensor:
    """Returns 1 at step 0, falling linearly to 0.2 at step `decay_steps`, and 0.2 from there on."""
    done = tf.minimum(tf.cast(step, tf.float32) / decay_steps, 1.0)
    return FIRST_TEMPERATURE + (LAST_TEMPERATURE - FIRST_TEMPERATURE) * done


def gumbel_choice(weights: tf.Tensor, uniform: tf.Tensor, heat: tf.Tensor) -> tf.Tensor:
    """Returns a choice of each row: 1 for one entry and 0 for the others, with the gradient of the soft choice.

    With g = -log(-log u) the soft choice is softmax((weights + g) / heat), and the entry its largest: entry i is drawn
    with probability softmax(weights)_i.

    Args:
        weights: [..., choices].
        uniform: u, of the same shape, in [0, 1).
        heat: The temperature.
    """
    noise = -tf.math.log(-tf.math.log(tf.maximum(uniform, _TINY)))
    soft = tf.nn.softmax((weights + noise) / heat)
    hard = tf.one_hot(tf.argmax(soft, axis=-1), soft.shape[-1])
    return hard + soft - tf.stop_gradient(soft)


def strongest(edges: tf.Tensor) -> tf.Tensor:
    """Returns what `architecture.derive` keeps of a cell, inside a graph: 1 for its edges and operations, 0 elsewhere.

    Args:
        edges: [edges of a cell, operations].
    """
    allowed = tf.constant([float(i != ZERO) for i in range(len(OPERATIONS))])
    weights = tf.nn.softmax(edges) * allowed - (1 - allowed)
    kept = []
    for node in range(NODES):
        own = [i for i, (of, _) in enumerate(EDGES) if of == node]
        best = tf.math.top_k(tf.gather(tf.reduce_max(weights, axis=1), own), KEPT).indices
        kept.append(tf.reduce_sum(tf.one_hot(best, len(own)), axis=0))
    return tf.one_hot(tf.argmax(weights, axis=1), len(OPERATIONS)) * tf.concat(kept, axis=0)[:, tf.newaxis]


def operation_costs(width: int) -> np.ndarray:
    """Returns what each operation costs, float32 [operations]: size plus multiplications and additions of a token.

    Both are shares of the most expensive operation's, so that a cost is from 0 to 2. A convolution over k tokens has
    k width^2 + width weights and two vectors of a normalisation, and 2 k width^2 multiplications and additions; a pool
    has no weights and 3 width.

    Args:
        width: Channels.
    """
    sizes, works = [], []
    for name in OPERATIONS:
        kind, _, tokens = name.rpartition("_")
        if kind.endswith("conv"):
            sizes.append(int(tokens) * width**2 + 3 * width)
            works.append(2 * int(tokens) * width**2)
        else:
            sizes.append(0)
            works.append(int(tokens) * width if kind.endswith("pool") else 0)
    return (np.array(sizes) / max(sizes) + np.array(works) / max(works)).astype(np.float32)


def network_cost(edges: tf.Tensor, depth: tf.Tensor, width: int) -> tf.Tensor:
    """Returns L_E = K / K_max times the mean cost of the edges of a cell, a scalar; see `operation_costs`.

    Args:
        edges: Choices, [edges of a cell, operations].
        depth: Choice of K, [K_max].
        width: Channels.
    """
    cells = tf.reduce_sum(depth * tf.range(1.0, depth.shape[0] + 1.0))
    mean = tf.reduce_mean(tf.linalg.matvec(edges, tf.constant(operation_costs(width))))
    return cells / depth.shape[0] * mean


def layer_table(cells: int, teacher_layers: int) -> np.ndarray:
    """Returns who learns from whom in a network of k cells, float32 [cells, cells, teacher layers + 1].

    Entry (k - 1, i - 1, j) is 1/k where cell i <= k is at the height of layer j = ceil(i N / k) of the teacher's N, and
    0 elsewhere.

    Args:
        cells: K_max.
        teacher_layers: N.
    """
    table = np.zeros((cells, cells, teacher_layers + 1), np.float32)
    for k in range(1, cells + 1):
        for i in range(1, k + 1):
            table[k - 1, i - 1, layer_at_height(i, k, teacher_layers)] = 1 / k
    return table


def layers_distance(
    layer_logits: tf.Tensor, teacher_logits: tf.Tensor, depth: tf.Tensor, table: np.ndarray
) -> tf.Tensor:
    """Returns L_KD of each row [batch]: the mean over the cells of CE(softmax(teacher's probe), logits of the cell).

    Args:
        layer_logits: Of the cells, [batch, K_max, classes].
        teacher_logits: Of the probes on the teacher's embeddings and layers, [batch, N + 1, classes]; no gradient.
        depth: Choice of how many cells there are, [batch, K_max].
        table: See `layer_table`.
    """
    wanted = tf.nn.softmax(tf.stop_gradient(teacher_logits))
    each = -tf.einsum("bjc,bic->bij", wanted, tf.nn.log_softmax(layer_logits))
    return tf.einsum("bij,kij,bk->b", each, tf.constant(table), depth)


def input_masks(mask: tf.Tensor, segments: tf.Tensor, is_pair: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns which tokens each of the two inputs of the first cell has, float32 [batch, tokens, 1].

    One text is both inputs; of a pair each text is one.

    Args:
        mask: [batch, tokens], 1 for tokens.
        segments: [batch, tokens], 1 in the second text.
        is_pair: Whether rows are pairs.
    """
    real = tf.cast(mask, tf.float32)[:, :, tf.newaxis]
    if not is_pair:
        return real, real
    second = tf.cast(segments, tf.float32)[:, :, tf.newaxis]
    return real * (1 - second), real * second
