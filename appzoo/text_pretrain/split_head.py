"""Cross entropy over a vocabulary whose rows the workers of a group share."""

from __future__ import annotations

import tensorflow as tf

from easytransfer.distributed.collectives import Group, all_gather_first, copy_to, reduce_from

# One worker, which has the whole vocabulary.
ALONE = Group("alone", (0,), 0)


def split_cross_entropy(
    states: tf.Tensor, table: tf.Tensor, bias: tf.Tensor, ids: tf.Tensor, group: Group
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the cross entropy of hidden pieces and what is guessed; each worker looks at its part of the vocabulary.

    Logits, the largest array of a pre-training, are [rows, pieces, vocabulary / group size] on each worker; of a piece
    three numbers are exchanged, and in the backward pass the gradients of states, table and bias (Shoeybi et al. 2019,
    "Megatron-LM", arXiv 1909.08053, section 3).

    Args:
        states: What the table is multiplied with, [rows, pieces, width], the same on all workers.
        table: Word embeddings [vocabulary, width], whole on all workers.
        bias: Of the logits [vocabulary].
        ids: Pieces that are right, int32 [rows, pieces].
        group: The workers; a group of one computes everything.

    Returns:
        Cross entropies float32 and the pieces with the largest logits int32, [rows, pieces].
    """
    if group.size == 1:
        logits = tf.einsum("bth,vh->btv", states, tf.cast(table, states.dtype))
        logits = tf.cast(logits, tf.float32) + tf.cast(bias, tf.float32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(ids, logits)
        return losses, tf.argmax(logits, axis=-1, output_type=tf.int32)
    vocabulary = table.shape[0]
    share = -(-vocabulary // group.size)
    begin = min(group.rank * share, vocabulary)
    end = min(begin + share, vocabulary)
    # Gradients of states are sums over all parts; of table and bias each worker has those of its rows.
    states = copy_to(states, group, "vocabulary/states")
    own = copy_to(tf.convert_to_tensor(table), group, "vocabulary/table")[begin:end]
    own_bias = copy_to(tf.convert_to_tensor(bias), group, "vocabulary/bias")[begin:end]
    logits = tf.einsum("bth,vh->btv", states, tf.cast(own, states.dtype))
    logits = tf.cast(logits, tf.float32) + tf.cast(own_bias, tf.float32)
    best = tf.stop_gradient(tf.reduce_max(logits, axis=-1))
    guess = tf.argmax(logits, axis=-1, output_type=tf.int32) + begin
    facts = tf.stack([best, tf.cast(guess, tf.float32)])[tf.newaxis]
    every = tf.stop_gradient(all_gather_first(facts, group, "vocabulary/best"))
    top = tf.reduce_max(every[:, 0], axis=0)
    # Of equal ones the first, as `argmax` has it. Numbers of pieces are exact in float32.
    guesses = tf.gather(
        tf.transpose(every[:, 1], [1, 2, 0]), tf.argmax(every[:, 0], axis=0, output_type=tf.int32), batch_dims=2
    )
    total = reduce_from(tf.reduce_sum(tf.exp(logits - top[..., tf.newaxis]), axis=-1), group, "vocabulary/sum")
    here = (ids >= begin) & (ids < end)
    chosen = tf.gather(logits, tf.where(here, ids - begin, 0), batch_dims=2)
    chosen = reduce_from(tf.where(here, chosen, 0.0), group, "vocabulary/chosen")
    return tf.math.log(total) + top - chosen, tf.cast(guesses, tf.int32)
