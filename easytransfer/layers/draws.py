"""Random numbers of the rows of a batch that depend only on (seed, step, row), whoever computes the row."""

from __future__ import annotations

from collections.abc import Sequence

from easytransfer.deferred import tf

# Of a random number: what the fraction of a float32 holds.
_BITS = 24


class RowDraws:
    """Uniform random numbers for the rows of one micro-batch, or of a worker's share of it.

    A row's numbers are a function of the seed, of how many draws came before, and of the row's place in the global
    micro-batch: a resumed run repeats them, and N workers draw for their rows what one worker would draw for them.

    Args:
        seed: int32 [2], different in every micro-batch, the same on every worker.
        rows: Rows here, a scalar.
        first: Place of the first row in the global micro-batch.
        stride: Places from one row to the next: how many shares the micro-batch is cut into.

    Example:
        >>> RowDraws(tf.constant([1, 2]), tf.constant(4)).uniform(3).shape
        TensorShape([4, 3])
    """

    def __init__(self, seed: tf.Tensor, rows: tf.Tensor, first: tf.Tensor | int = 0, stride: int = 1) -> None:
        self.rows = rows
        self._seed, self._first, self._stride = seed, first, stride
        self._calls = 0

    def uniform(self, columns: int) -> tf.Tensor:
        """Returns fresh numbers in [0, 1), float32 [rows, columns]."""
        # All places are drawn and the own ones taken: a place's numbers must not depend on how many others there are,
        # which holds for Philox, whose output for a shape begins with the output for any smaller number of rows.
        every = self._numbers([self.rows * self._stride, columns])
        return tf.gather(every, self._first + self._stride * tf.range(self.rows))

    def shared(self, *shape: int) -> tf.Tensor:
        """Returns fresh numbers in [0, 1) that are the same on all workers, float32 of `shape`; none is a scalar."""
        return self._numbers(shape)

    def _numbers(self, shape: Sequence[tf.Tensor | int]) -> tf.Tensor:
        """Returns numbers in [0, 1) that are the same with and without XLA, for any seed."""
        self._calls += 1
        # XLA's default algorithm is another one.
        key = tf.random.experimental.stateless_fold_in(self._seed, self._calls, alg="philox")
        bits = tf.random.stateless_uniform(shape, key, minval=None, maxval=None, dtype=tf.int32, alg="philox")
        return unit_fraction(bits)


def unit_fraction(bits: tf.Tensor) -> tf.Tensor:
    """Returns random int32 bits as float32 in [0, 1), the same with and without XLA.

    `stateless_uniform` for floats is not: it draws the same bits, but makes a fraction of the upper ones under XLA and
    of the lower ones elsewhere.
    """
    # As many bits as float32 holds exactly; the sign that the shift repeats is cut off.
    kept = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 32 - _BITS), 2**_BITS - 1)
    return tf.cast(kept, tf.float32) * 2.0**-_BITS
