"""Random numbers of the rows of a batch that depend only on (seed, step, row), whoever computes the row."""

from __future__ import annotations

import tensorflow as tf


class RowDraws:
    """Uniform random numbers for the rows of one micro-batch, or of a worker's share of it.

    A row's numbers are a function of the seed, of how many draws came before, and of the row's place in the global
    micro-batch: a resumed run repeats them, and N workers draw for their rows what one worker would draw for them.

    Args:
        seed: int32 [2], not negative, different in every micro-batch, the same on every worker.
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
        every = tf.random.stateless_uniform([self.rows * self._stride, columns], seed=self._next(), alg="philox")
        return tf.gather(every, self._first + self._stride * tf.range(self.rows))

    def shared(self) -> tf.Tensor:
        """Returns one fresh number in [0, 1) that is the same on all workers, a float32 scalar."""
        return tf.random.stateless_uniform([], seed=self._next(), alg="philox")

    def _next(self) -> tf.Tensor:
        self._calls += 1
        # XLA's default algorithm is another one, and it takes negative seeds for other numbers.
        key = tf.random.experimental.stateless_fold_in(self._seed, self._calls, alg="philox")
        return tf.bitwise.bitwise_and(key, 2**31 - 1)
