"""Which pieces of a text a network has to guess, chosen anew in every step, inside the graph.

BERT, arXiv 1810.04805, section 3.1; whole words as in its later release; neighbouring words together as in SpanBERT
(arXiv 1907.10529) and ALBERT (arXiv 1909.11942, section 4.1, which takes n of them with a chance of 1 / n).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import tensorflow as tf

from easytransfer.layers.draws import unit_fraction
from easytransfer.text.tokenizer import Tokenizer

Batch = dict[str, tf.Tensor]

# Of the pieces to guess, so many are replaced by the mask and by a random piece; the others stay as they are.
_MASKED, _RANDOM = 0.8, 0.1
# Behind every number that a draw gives.
_LAST = 2.0


class Draws(Protocol):
    """Where random numbers come from."""

    def uniform(self, columns: int) -> tf.Tensor:
        """Returns fresh numbers in [0, 1), float32 [rows, columns]."""


class Boundaries(Protocol):
    """Knows words that a tokenizer does not mark, as those of Chinese."""

    def boundaries(self, ids: tf.Tensor, begins: tf.Tensor, most: int) -> tf.Tensor:
        """Returns which of the pieces that could begin a word do, bool [rows, pieces]."""


class TextDraws:
    """Numbers that depend on the pieces of a row and the seed alone, for evaluation, prediction and serving.

    Args:
        ids: Pieces, int32 [rows, pieces].
        mask: 1 for real ones, int32 [rows, pieces].
        seed: Seed.
    """

    def __init__(self, ids: tf.Tensor, mask: tf.Tensor, seed: int) -> None:
        place = tf.range(1, tf.shape(ids)[1] + 1)
        mixed = _mixed(ids * _ODD[0] + place * _ODD[1] + seed % 2**31)
        self._rows, self._calls = tf.reduce_sum(mixed * mask, axis=1), 0

    def uniform(self, columns: int) -> tf.Tensor:
        """Returns fresh numbers in [0, 1), float32 [rows, columns]."""
        self._calls += 1
        place = tf.range(columns) * _ODD[2] + self._calls * _ODD[3]
        return unit_fraction(_mixed(_mixed(self._rows[:, tf.newaxis] + place[tf.newaxis])))


# Odd numbers whose bits look random; int32 products wrap around.
_ODD = (0x2C1B3C6D, 0x297A2D39, 0x1B56C4E9, 0x7FEB352D)


def _mixed(bits: tf.Tensor) -> tf.Tensor:
    """Returns int32 numbers with every bit depending on all bits of the given ones (an xor-shift-multiply hash)."""
    for shift, factor in ((16, _ODD[3]), (15, _ODD[0]), (16, _ODD[1])):
        bits = tf.bitwise.bitwise_xor(bits, _shifted(bits, shift)) * factor
    return tf.bitwise.bitwise_xor(bits, _shifted(bits, 16))


def _shifted(bits: tf.Tensor, shift: int) -> tf.Tensor:
    """Returns the bits shifted to the right, zeros behind them: TensorFlow repeats the sign."""
    return tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, shift), 2 ** (32 - shift) - 1)


class WordHider:
    """Hides pieces of rows and says which they were.

    Of a row with n pieces, special ones included, max(1, round(n * share)) are hidden, `most` at most: words in random
    order as long as they fit, so that whole words fall a little short of the share. Words that are longer than what is
    to be hidden are not chosen. Special pieces are neither hidden nor drawn. With `independent` each word is hidden
    with a chance of `share` whatever becomes of the others, one at least and no more pieces than `most`.

    Args:
        tokenizer: Of the rows.
        share: Share of the pieces to hide.
        most: Most pieces to hide in a row.
        max_length: Most pieces of a row.
        whole_word: Whether the pieces of a word are hidden together.
        max_ngram: Most neighbouring words that are hidden together.
        independent: Whether each word has a chance of its own instead of a row a number of pieces.
        words: Further words whose pieces are hidden together, None for those of the tokenizer alone.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        share: float,
        most: int,
        max_length: int,
        whole_word: bool = True,
        max_ngram: int = 1,
        independent: bool = False,
        words: Boundaries | None = None,
    ) -> None:
        self._share, self._most, self._max_length, self._mask_id = share, most, max_length, tokenizer.mask_id
        self._independent = independent
        is_special = np.isin(np.arange(len(tokenizer)), list(tokenizer.special_ids.values()))
        self._is_special = tf.constant(is_special)
        self._ordinary = tf.constant(np.flatnonzero(~is_special), tf.int32)
        self._continues = tf.constant(tokenizer.continues & whole_word)
        self._words, self._whole_word = words, whole_word
        chances = 1 / np.arange(1, max_ngram + 1)
        self._ngram_ends = tf.constant(np.cumsum(chances / chances.sum())[:-1], tf.float32)

    def hide(self, batch: Batch, draws: Draws) -> Batch:
        """Returns the batch with pieces of `input_ids` hidden.

        Args:
            batch: `input_ids` and `input_mask`, int32 [rows, pieces]; if there, `inside_word` of the same shape, 1 for
                pieces that are hidden together with the one before.
            draws: Random numbers of the rows.

        Returns:
            Also `hidden_positions` and `hidden_ids`, int32 [rows, most], in text order and 0 behind the last,
            and `hidden_weights` float32, 1 for real ones.
        """
        ids, length = batch["input_ids"], tf.shape(batch["input_ids"])[1]
        candidate = (batch["input_mask"] > 0) & ~tf.gather(self._is_special, ids)
        group = self._groups(batch, candidate, draws)
        size = _of_group(tf.math.unsorted_segment_sum, tf.cast(candidate, tf.int32), group, self._max_length)
        wanted = self._wanted(batch["input_mask"])
        keys = tf.gather(draws.uniform(self._max_length), group, batch_dims=1)
        keys = tf.where(candidate & (size <= wanted), keys, _LAST)
        if self._independent:
            keys = tf.where((keys < self._share) | (keys == tf.reduce_min(keys, axis=1, keepdims=True)), keys, _LAST)
        # Pieces of a group have one key, so that they stay side by side; it is chosen if its last piece is among those
        # wanted.
        rank = tf.argsort(tf.argsort(keys, axis=1, stable=True), axis=1, stable=True)
        last = _of_group(tf.math.unsorted_segment_max, tf.where(candidate, rank, -1), group, self._max_length)
        chosen = (keys < _LAST) & (last < wanted)
        places = tf.sort(tf.where(chosen, tf.range(length)[tf.newaxis], length), axis=1)
        places = tf.pad(places, [[0, 0], [0, self._most]], constant_values=self._max_length)[:, : self._most]
        places = tf.ensure_shape(places, [None, self._most])
        real = places < length
        positions = tf.where(real, places, 0)
        # Widths that are rounded up may go beyond the longest row, where there is padding alone.
        beyond = [[0, 0], [0, tf.maximum(length - self._max_length, 0)]]
        fate, other = (tf.pad(draws.uniform(self._max_length), beyond)[:, :length] for _ in range(2))
        count = tf.size(self._ordinary)
        random = tf.gather(self._ordinary, tf.cast(other * tf.cast(count, tf.float32), tf.int32) % count)
        shown = tf.where(fate < _MASKED, self._mask_id, tf.where(fate < _MASKED + _RANDOM, random, ids))
        return {
            **batch,
            "input_ids": tf.where(chosen, shown, ids),
            "hidden_positions": positions,
            "hidden_ids": tf.where(real, tf.gather(ids, positions, batch_dims=1), 0),
            "hidden_weights": tf.cast(real, tf.float32),
        }

    def _wanted(self, mask: tf.Tensor) -> tf.Tensor:
        """Returns how many pieces of each row are to be hidden at most, int32 [rows, 1]."""
        pieces = tf.cast(tf.reduce_sum(mask, axis=1, keepdims=True), tf.float32)
        wanted = tf.cast(tf.round(pieces * self._share), tf.int32)
        return tf.fill(tf.shape(wanted), self._most) if self._independent else tf.clip_by_value(wanted, 1, self._most)

    def _groups(self, batch: Batch, candidate: tf.Tensor, draws: Draws) -> tf.Tensor:
        """Returns for every piece the number of what is hidden together with it, below `max_length`."""
        ids = batch["input_ids"]
        before = tf.pad(candidate[:, :-1], [[0, 0], [1, 0]])
        inside = tf.gather(self._continues, ids)
        if self._whole_word and "inside_word" in batch:
            inside |= batch["inside_word"] > 0
        starts = candidate & ~(inside & before)
        if self._words is not None:
            starts &= self._words.boundaries(ids, starts, self._max_length)
        word = tf.maximum(tf.cumsum(tf.cast(starts, tf.int32), axis=1) - 1, 0)
        if not self._ngram_ends.shape[0]:
            return word
        # Lengths of the n-grams one after the other; a word belongs to the first one that ends behind it.
        drawn = tf.reshape(draws.uniform(self._max_length), [-1])
        lengths = 1 + tf.reshape(tf.searchsorted(self._ngram_ends, drawn, "right"), [-1, self._max_length])
        return tf.searchsorted(tf.cumsum(lengths, axis=1), word, "right")


def _of_group(reduce: Callable[..., tf.Tensor], values: tf.Tensor, group: tf.Tensor, groups: int) -> tf.Tensor:
    """Returns for every piece what `reduce` makes of the values [rows, pieces] of its group."""
    rows = tf.shape(group)[0]
    number = group + groups * tf.range(rows)[:, tf.newaxis]
    return tf.gather(reduce(values, number, rows * groups), number)
