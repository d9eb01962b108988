"""The encoding of `data.py` inside a TensorFlow graph, so that an exported model takes raw text of any length."""

from __future__ import annotations

import tensorflow as tf

from appzoo.labeling.data import Unit
from easytransfer.text.graph import GraphTokenizer


class GraphWindows(tf.Module):
    """Splits texts into words or characters and encodes them to windows; equal to `encode_words` for any text.

    Args:
        graph: Tokenizer inside the graph.
        unknown_id: Id of what no piece stands for.
        unit: What carries a tag.
    """

    def __init__(self, graph: GraphTokenizer, unknown_id: int, unit: Unit) -> None:
        super().__init__(name="word_windows")
        self._graph, self._unit, self._unk = graph, unit, unknown_id
        self._room = graph.layout.room(graph.max_length, paired=False)

    def __call__(self, text: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Encodes texts, string [B].

        Returns:
            The model's input arrays, int32 [windows, ...]; the number of words of each text, int64 [B]; and whether a
            word of the text lost pieces, bool [B].
        """
        units = self._units(text)
        room, stride, texts = self._room, self._room - self._room // 2, units.nrows()
        row_of_word = units.value_rowids()
        pieces, lengths, total, cut = self._pieces(units.values, row_of_word, texts)

        last_start = tf.maximum(total - room, 0)
        windows = 1 + (last_start + stride - 1) // stride
        row_starts = tf.cumsum(total, exclusive=True)
        starts = pieces.row_starts() - tf.gather(row_starts, row_of_word)
        first_window = tf.cumsum(windows, exclusive=True)
        last, count = tf.gather(last_start, row_of_word), tf.gather(windows, row_of_word)
        # See `data._owners`.
        middle = 2 * starts + lengths - room
        regular = tf.clip_by_value((middle + stride) // (2 * stride), 0, tf.maximum(count - 2, 0))
        owner = tf.where(tf.abs(middle - 2 * last) < tf.abs(middle - 2 * regular * stride), count - 1, regular)
        place = 1 + starts - tf.where(tf.equal(owner, count - 1), last, owner * stride)

        row_of = tf.repeat(tf.range(texts), windows)
        number = tf.range(tf.reduce_sum(windows)) - tf.gather(first_window, row_of)
        begin = tf.gather(row_starts, row_of) + tf.minimum(number * stride, tf.gather(last_start, row_of))
        inside = tf.ragged.range(begin, begin + tf.minimum(tf.gather(total, row_of), room), row_splits_dtype=tf.int64)
        word_starts = tf.RaggedTensor.from_value_rowids(
            tf.cast(place, tf.int32), tf.gather(first_window, row_of_word) + owner, tf.size(row_of, tf.int64)
        )
        arrays = self._arrays(inside.with_values(tf.gather(pieces.values, inside.values)), word_starts)
        return arrays, units.row_lengths(), cut

    def _units(self, text: tf.Tensor) -> tf.RaggedTensor:
        if self._unit == "word":
            units = tf.strings.split(text, " ")
            return tf.ragged.boolean_mask(units, tf.not_equal(units, ""))
        units = tf.strings.unicode_split(text, "UTF-8")
        return tf.ragged.boolean_mask(units, tf.not_equal(units, " "))

    def _pieces(
        self, units: tf.Tensor, row_of_word: tf.Tensor, texts: tf.Tensor
    ) -> tuple[tf.RaggedTensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the pieces of every word, their numbers, the pieces of each text, and the texts with cut words."""
        pieces = self._graph.word_pieces(units)
        missing = tf.cast(tf.equal(pieces.row_lengths(), 0), tf.int64)
        unknown = tf.RaggedTensor.from_row_lengths(tf.fill([tf.reduce_sum(missing)], self._unk), missing)
        pieces = tf.concat([pieces, unknown], axis=1)
        lengths, most = pieces.row_lengths(), tf.constant(max(self._room // 2, 1), tf.int64)
        total = tf.math.unsorted_segment_sum(lengths, row_of_word, texts)
        cut = tf.gather(total > self._room, row_of_word) & (lengths > most)
        kept = tf.where(cut, most, lengths)
        pieces = tf.ragged.boolean_mask(pieces, tf.ragged.range(lengths) < kept[:, tf.newaxis])
        total = tf.math.unsorted_segment_sum(kept, row_of_word, texts)
        return pieces, kept, total, tf.math.unsorted_segment_sum(tf.cast(cut, tf.int32), row_of_word, texts) > 0

    def _arrays(self, pieces: tf.RaggedTensor, word_starts: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        return {**self._graph.assemble(pieces), "word_starts": _dense(word_starts, 0)}


def _dense(rows: tf.RaggedTensor, pad: int) -> tf.Tensor:
    """Pads to the longest row; at least one column, also for an empty batch."""
    width = tf.maximum(rows.bounding_shape(axis=1), 1)
    return tf.ensure_shape(rows.to_tensor(pad, shape=tf.stack([rows.nrows(), width])), [None, None])
