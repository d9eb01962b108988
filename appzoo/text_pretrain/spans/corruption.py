"""Which spans of a text are left out, and what is to be written in their place, inside a graph.

Raffel et al. 2020, arXiv 1910.10683, sections 3.1.4 and 3.3.4; counts and rounding are those of its published code
(`random_spans_noise_mask` and `random_spans_helper`).
"""

from __future__ import annotations

import tensorflow as tf

from easytransfer.text.hiding import Draws
from easytransfer.train.task import Batch

# Behind every number that a draw gives.
_LAST = 2.0


def span_counts(pieces: int, density: float, mean_length: float) -> tuple[int, int]:
    """Returns how many of the pieces of a text are left out, and in how many spans.

    Args:
        pieces: Of the text.
        density: Share that is left out.
        mean_length: Of a span.
    """
    noise = min(max(round(pieces * density), 1), max(pieces - 1, 1))
    return noise, min(max(round(noise / mean_length), 1), max(pieces - noise, 1))


def text_length(most: int, density: float, mean_length: float) -> int:
    """Returns the pieces of the longest text whose remains, a sentinel for every span and an end are `most` at most."""
    pieces = 1
    while True:
        noise, spans = span_counts(pieces + 1, density, mean_length)
        if pieces + 1 - noise + spans + 1 > most:
            return pieces
        pieces += 1


class SpanRemover:
    """Leaves spans out of rows: in their place a sentinel each, and the spans behind their sentinels as the target.

    Of n pieces, round(n * density) are left out in round(of them / mean_length) spans, one of each at least. A row
    begins with what stays and ends with a span; all such rows are equally likely. A row of less than two pieces is left
    as it is, and its target is empty.

    Args:
        most: Most pieces of a row.
        density: Share that is left out.
        mean_length: Of a span.
        first_sentinel: Id of the first sentinel; those of the others go down from there.
        eos_id: Id of the end.
    """

    def __init__(self, most: int, density: float, mean_length: float, *, first_sentinel: int, eos_id: int) -> None:
        self._most, self._density, self._mean = most, density, mean_length
        self._first, self._end = first_sentinel, eos_id
        noise, self.spans = span_counts(most, density, mean_length)
        # Pieces of the longest remains and the longest target, ends included.
        self.input_length = most - noise + self.spans + 1
        self.target_length = noise + self.spans + 1

    def remove(self, batch: Batch, draws: Draws) -> Batch:
        """Returns the batch with spans of `input_ids` left out.

        Args:
            batch: `input_ids` and `input_mask`, int32 [rows, pieces].
            draws: Random numbers of the rows.

        Returns:
            Also `encoder_ids` and `encoder_mask`, int32 [rows, pieces], and `target_ids` and `target_mask`,
            int32 [rows, target_length]; 0 behind the end.
        """
        ids, pieces = batch["input_ids"], tf.reduce_sum(batch["input_mask"], axis=1)
        is_noise = self.noise(pieces, tf.shape(ids)[1], draws)
        real = batch["input_mask"] > 0
        before = tf.pad(is_noise[:, :-1], [[0, 0], [1, 0]])
        first = tf.cast(is_noise & ~before, tf.int32)
        # Which span a place is in, or behind.
        span = tf.cumsum(first, axis=1) - 1
        stays = real & (~is_noise | (first > 0))
        shown = tf.where(first > 0, self._first - span, ids)
        width = tf.minimum(tf.shape(ids)[1] + 1, self.input_length)
        left = tf.cumsum(tf.cast(stays, tf.int32), axis=1)
        encoder_ids, encoder_mask = self._ended(_placed(shown, stays, left - 1, width), left[:, -1:])
        order = tf.cumsum(tf.cast(is_noise, tf.int32), axis=1) - 1
        width = self.target_length
        target = _placed(ids, is_noise, order + span + 1, width)
        target += _placed(self._first - span, first > 0, order + span, width)
        written = order[:, -1:] + 1 + span[:, -1:] + 1
        target_ids, target_mask = self._ended(target, written)
        nothing = written == 0
        return {
            **batch,
            "encoder_ids": encoder_ids,
            "encoder_mask": encoder_mask,
            "target_ids": tf.ensure_shape(tf.where(nothing, 0, target_ids), [None, width]),
            "target_mask": tf.ensure_shape(tf.where(nothing, 0, target_mask), [None, width]),
        }

    def noise(self, pieces: tf.Tensor, length: tf.Tensor, draws: Draws) -> tf.Tensor:
        """Returns which pieces are left out, bool [rows, length], for rows of so many `pieces`, int32 [rows]."""
        number = tf.cast(pieces, tf.float32)
        noise = tf.cast(tf.round(number * self._density), tf.int32)
        noise = tf.minimum(tf.maximum(noise, 1), tf.maximum(pieces - 1, 1))
        spans = tf.cast(tf.round(tf.cast(noise, tf.float32) / self._mean), tf.int32)
        spans = tf.minimum(tf.maximum(spans, 1), tf.maximum(pieces - noise, 1))
        kept = self._parts(tf.maximum(pieces - noise, 0), spans, draws)
        left_out = self._parts(noise, spans, draws)
        ends = tf.cumsum(tf.reshape(tf.stack([kept, left_out], axis=2), [-1, 2 * self.spans]), axis=1)
        place = tf.broadcast_to(tf.range(length), [tf.shape(pieces)[0], length])
        part = tf.searchsorted(ends, place, side="right")
        return (part % 2 == 1) & (place < pieces[:, tf.newaxis]) & (pieces >= 2)[:, tf.newaxis]

    def _parts(self, total: tf.Tensor, parts: tf.Tensor, draws: Draws) -> tf.Tensor:
        """Returns the lengths of non-empty parts of `total` things, all equally likely, int32 [rows, spans].

        Behind the last part stand zeros.
        """
        place = tf.range(1, self._most)
        keys = tf.where(place < total[:, tf.newaxis], draws.uniform(self._most - 1), _LAST)
        rank = tf.argsort(tf.argsort(keys, axis=1, stable=True), axis=1, stable=True)
        # A part begins at the first thing, and at those that the smallest numbers were drawn for.
        part = tf.pad(tf.cumsum(tf.cast(rank < parts[:, tf.newaxis] - 1, tf.int32), axis=1), [[0, 0], [1, 0]])
        real = tf.cast(tf.range(self._most) < total[:, tf.newaxis], tf.int32)
        rows = tf.shape(total)[0]
        number = part + self.spans * tf.range(rows)[:, tf.newaxis]
        sizes = tf.math.unsorted_segment_sum(tf.reshape(real, [-1]), tf.reshape(number, [-1]), rows * self.spans)
        return tf.reshape(sizes, [rows, self.spans])

    def _ended(self, ids: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns rows with an end behind their `count` pieces, int32 [rows, 1], and their masks."""
        place = tf.range(tf.shape(ids)[1])
        return tf.where(place == count, self._end, ids), tf.cast(place <= count, tf.int32)


def _placed(values: tf.Tensor, chosen: tf.Tensor, places: tf.Tensor, width: tf.Tensor | int) -> tf.Tensor:
    """Returns the chosen values of every row at their places, int32 [rows, width], 0 elsewhere."""
    rows = tf.shape(values)[0]
    number = tf.where(chosen, places, 0) + width * tf.range(rows)[:, tf.newaxis]
    chosen_values = tf.where(chosen, values, 0)
    found = tf.math.unsorted_segment_sum(tf.reshape(chosen_values, [-1]), tf.reshape(number, [-1]), rows * width)
    return tf.reshape(found, [rows, width])
