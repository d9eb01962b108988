"""Texts to the ids of a SentencePiece model with TensorFlow operators only.

Of TF Text only the SentencePiece operators are used, which TensorFlow Serving links; characters are changed by core
operators and the measured table of `easytransfer.text.characters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf
import tensorflow_text

from easytransfer.text.characters import SPACE, piece_table
from easytransfer.text.graph import GraphTable, GraphTokenizer, no_autograph
from easytransfer.text.packing import CLS_FIRST, Layout
from easytransfer.text.piece_model import PieceRules


class _Prepared(NamedTuple):
    """Texts as the model reads them, each with a space behind it.

    Attributes:
        texts: The texts, string [B].
        characters: Their code points, int32 [B, (characters)].
        start: First character of the original text that each is of, int32 [all characters].
        stop: The one behind the last, the same.
        space: Whether it is white space, bool [all characters].
    """

    texts: tf.Tensor
    characters: tf.RaggedTensor
    start: tf.Tensor
    stop: tf.Tensor
    space: tf.Tensor


class GraphSentencePiece(GraphTokenizer):
    """Encodes strings to padded ids with TensorFlow operators only; the ids are those of `SentencePiece`.

    Args:
        model: Serialized model.
        rules: What happens to a text before the model reads it.
        special_ids: Ids of `pad`, `cls` and `sep`.
        max_length: Bound of a row, special tokens included.
        layout: Where the special tokens of a row stand.
        joins_quotes: Two grave accents or apostrophes become a quotation mark.

    Raises:
        ConfigError: `max_length` leaves no room for text.
    """

    def __init__(
        self,
        model: bytes,
        rules: PieceRules,
        special_ids: Mapping[str, int],
        max_length: int = 128,
        layout: Layout = CLS_FIRST,
        joins_quotes: bool = True,
    ) -> None:
        super().__init__(max_length, special_ids, "sentencepiece", layout)
        self._quotes = "`'" if joins_quotes else ""
        self._table = GraphTable(piece_table(rules.lower_case, rules.keep_accents))
        self._pieces = tensorflow_text.SentencepieceTokenizer(model=model, out_type=tf.int32)

    @no_autograph
    def pieces(self, text: tf.Tensor) -> tf.RaggedTensor:
        """See `GraphTokenizer`."""
        return _by_rows(self._pieces.tokenize(self._prepared(text).texts))

    @no_autograph
    def pieces_with_offsets(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """See `GraphTokenizer`; white space around a piece does not belong to it."""
        prepared = self._prepared(text)
        ids, begin, end = map(_by_rows, self._pieces.tokenize_with_offsets(prepared.texts))
        # The operator counts bytes of each text; `ends` says in which byte of all texts each character ends.
        size = 1 + tf.reduce_sum(tf.cast(prepared.characters.values[:, None] >= [0x80, 0x800, 0x10000], tf.int64), 1)
        ends = tf.cumsum(size)
        row_of = ids.value_rowids()
        before = tf.gather(tf.concat([[0], ends], 0), tf.gather(prepared.characters.row_splits, row_of))
        last = tf.gather(prepared.characters.row_splits, row_of + 1) - 1
        places = [tf.cast(part.values, tf.int64) + before for part in (begin, end)]
        first, behind = (
            tf.minimum(tf.searchsorted(ends, part, side="right", out_type=tf.int64), last) for part in places
        )
        return ids, ids.with_values(_spans(prepared, first, behind))

    def _prepared(self, text: tf.Tensor) -> _Prepared:
        """Returns the texts as the model reads them; the space behind each ends what the text has typed twice."""
        points = tf.strings.unicode_decode(tf.strings.join([text, " "]), "UTF-8", errors="replace")
        points = points.with_row_splits_dtype(tf.int64)
        code, splits = points.values, points.row_splits
        start = tf.cast(tf.range(tf.size(code, tf.int64)) - tf.gather(splits, points.value_rowids()), tf.int32)
        stop, kept = start + 1, tf.ones_like(code, tf.bool)
        # Two of either are typed for one quotation mark.
        for quote in self._quotes:
            first = _typed_twice(tf.equal(code, ord(quote)))
            second = tf.concat([[False], first], 0)[: tf.size(first)]
            code = tf.where(first, ord('"'), code)
            stop, kept = stop + tf.cast(first, tf.int32), kept & ~second
        kept_before = tf.concat([[0], tf.cumsum(tf.cast(kept, tf.int64))], 0)
        points = tf.RaggedTensor.from_row_splits(
            tf.boolean_mask(code, kept), tf.gather(kept_before, splits), validate=False
        )
        elements = self._table(points)
        characters = elements.with_values(elements.values[:, 0])
        place = tf.gather(points.row_splits, elements.value_rowids()) + tf.cast(elements.values[:, 3], tf.int64)
        start, stop = (tf.gather(tf.boolean_mask(part, kept), place) for part in (start, stop))
        texts = tf.strings.unicode_encode(characters, "UTF-8", errors="replace")
        return _Prepared(texts, characters, start, stop, tf.equal(elements.values[:, 1], SPACE))


def _spans(prepared: _Prepared, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Returns where pieces stand in the original texts, int32 [pieces, 2]; white space around them left out.

    Args:
        prepared: The texts as the model reads them.
        begin: First character of each piece among those of all texts, int64 [pieces].
        end: The one behind its last, the same.
    """
    words = tf.reshape(tf.where(~prepared.space), [-1])
    total = tf.size(prepared.space, tf.int64)
    next_word = tf.gather(tf.concat([words, [total]], 0), tf.searchsorted(words, begin))
    word_end = tf.gather(tf.concat([[-1], words], 0), tf.searchsorted(words, end)) + 1
    begin = tf.minimum(next_word, end)
    end = tf.maximum(word_end, begin)
    at = tf.gather(prepared.start, begin)
    behind = tf.gather(prepared.stop, tf.maximum(end - 1, 0))
    return tf.stack([at, tf.where(end > begin, behind, at)], axis=1)


def _typed_twice(is_quote: tf.Tensor) -> tf.Tensor:
    """Returns which characters are the first of a pair: of a run of three the first two are one. The last never is.

    Args:
        is_quote: Which characters are the one in question, bool [characters].
    """
    place = tf.range(tf.size(is_quote, tf.int64))
    others = tf.reshape(tf.where(~is_quote), [-1])
    run_start = tf.gather(tf.concat([[-1], others], 0), tf.searchsorted(others, place)) + 1
    following = tf.concat([is_quote[1:], [False]], 0)[: tf.size(is_quote)]
    return is_quote & following & tf.equal((place - run_start) % 2, 0)


def _by_rows(rows: tf.RaggedTensor) -> tf.RaggedTensor:
    return rows.with_row_splits_dtype(tf.int64)
