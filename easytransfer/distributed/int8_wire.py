"""Sum of a vector over workers with one byte per number on the wire.

Every worker quantizes its vector, sends each other worker that one's piece, adds up the pieces it receives in float32,
and sends the quantized sum of its piece to all. What rounding takes away is returned, to be added to the next vector
(error feedback, arXiv 1901.09847, algorithm 2): sums over many steps lose nothing but the last steps' remainder.
"""

from __future__ import annotations

import tensorflow as tf

from easytransfer.distributed.collectives import Group, all_gather_first, all_to_all

# Numbers that share a scale; its four bytes add 0.4 %.
BLOCK = 1024
LARGEST = 127.0
BYTES_PER_NUMBER = 1 + 4 / BLOCK


def pack(blocks: tf.Tensor) -> tf.Tensor:
    """Quantizes blocks to [-127, 127] times a scale of their own.

    Args:
        blocks: float32 [blocks, BLOCK].

    Returns:
        int8 [blocks, BLOCK + 4], the scale in the last four bytes. It is NaN where a number is not finite.
    """
    scales = tf.reduce_max(tf.abs(blocks), axis=1, keepdims=True) / LARGEST
    scales = tf.where(tf.math.is_finite(scales), scales, float("nan"))
    # A block of zeros has a scale of zero; a NaN must stay.
    numbers = tf.round(blocks / tf.where(tf.equal(scales, 0.0), 1.0, scales))
    bytes_of_scale = tf.reshape(tf.bitcast(scales, tf.int8), [-1, 4])
    return tf.concat([tf.cast(numbers, tf.int8), bytes_of_scale], axis=1)


def unpack(packed: tf.Tensor) -> tf.Tensor:
    """Returns float32 [blocks, BLOCK] of what `pack` returned."""
    scales = tf.bitcast(packed[:, BLOCK:], tf.float32)
    return tf.cast(packed[:, :BLOCK], tf.float32) * scales[:, None]


def int8_sum(vector: tf.Tensor, group: Group, name: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums a vector over the group.

    Args:
        vector: float32 [n]; n is known.
        group: Workers to sum over, at least two.
        name: Of the exchanges.

    Returns:
        The sum, the same on all ranks, and what this rank has yet to send: over all ranks, sum plus remainders is the
        exact sum. Both are NaN, in the same blocks of 1024, where a rank's vector is not finite.
    """
    length, own = vector.shape[0], -(-vector.shape[0] // (group.size * BLOCK))
    blocks = tf.reshape(tf.pad(vector, [[0, own * group.size * BLOCK - length]]), [-1, BLOCK])
    sent = pack(blocks)
    received, _ = all_to_all(sent, tf.fill([group.size], own), group, f"{name}/pieces")
    piece = tf.reduce_sum(tf.reshape(unpack(received), [group.size, own, BLOCK]), axis=0)
    packed = pack(piece)
    total = unpack(all_gather_first(packed, group, f"{name}/sums"))
    before, behind = group.rank * own, (group.size - 1 - group.rank) * own
    rest = blocks - unpack(sent) + tf.pad(piece - unpack(packed), [[before, behind], [0, 0]])
    return tf.reshape(total, [-1])[:length], tf.reshape(rest, [-1])[:length]
