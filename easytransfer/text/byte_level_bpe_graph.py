"""The same piece ids as `ByteLevelBpe`, inside a TensorFlow graph, with core operators only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from easytransfer.text.bpe_model import BYTE_SYMBOLS, BpeFiles
from easytransfer.text.graph import GraphTokenizer, no_autograph
from easytransfer.text.packing import SEP_TWICE
from easytransfer.text.word_runs import WHITE, character_kinds

_SPACE, _APOSTROPHE = ord(" "), ord("'")
# English endings that stand behind an apostrophe.
_ONE_LETTER, _TWO_LETTERS = "stmd", ("re", "ve", "ll")
# A pair that no merge joins.
_NEVER = np.iinfo(np.int32).max


class _Characters(NamedTuple):
    """The characters of all texts, one after the other.

    Attributes:
        code: Code points, int32 [characters].
        kind: Their kinds, int32 [characters].
        splits: Where each text begins and the last one ends, int64 [B + 1].
        added: Characters put before each text, int64 [B].
    """

    code: tf.Tensor
    kind: tf.Tensor
    splits: tf.Tensor
    added: tf.Tensor


class GraphByteLevelBpe(GraphTokenizer):
    """Encodes strings to padded ids with TensorFlow operators only; the ids are those of `ByteLevelBpe`.

    Bytes that are not UTF-8 become U+FFFD.

    Args:
        files: Vocabulary, merges and rules.
        special_ids: Ids of `pad`, `cls` and `sep`.
        max_length: Bound of a row, special tokens included.

    Raises:
        ConfigError: `max_length` leaves no room for text.
    """

    def __init__(self, files: BpeFiles, special_ids: Mapping[str, int], max_length: int = 128) -> None:
        super().__init__(max_length, special_ids, name="byte_level_bpe", layout=SEP_TWICE)
        self._prefix = files.add_prefix_space
        kinds = character_kinds()
        self._starts, self._kinds = tf.constant(kinds.starts), tf.constant(kinds.kinds)
        self._merges = _Merges(files)

    @no_autograph
    def pieces(self, text: tf.Tensor) -> tf.RaggedTensor:
        """See `GraphTokenizer`."""
        return self._encoded(self._characters(text, self._prefix))[0]

    @no_autograph
    def word_pieces(self, words: tf.Tensor) -> tf.RaggedTensor:
        """See `GraphTokenizer`."""
        return self._encoded(self._characters(words, True))[0]

    @no_autograph
    def pieces_with_offsets(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """See `GraphTokenizer`; white space around a piece does not belong to it."""
        characters = self._characters(text, self._prefix)
        ids, begin, ends = self._encoded(characters)
        total = tf.size(characters.code, tf.int64)
        behind = tf.concat([begin[1:], ends[-1:]], 0)[: tf.size(begin)]
        begin = tf.searchsorted(ends, begin, side="right", out_type=tf.int64)
        end = tf.searchsorted(ends, behind, side="left", out_type=tf.int64) + 1
        words = tf.reshape(tf.where(tf.not_equal(characters.kind, WHITE)), [-1])
        next_word = tf.gather(tf.concat([words, [total]], 0), tf.searchsorted(words, begin))
        begin = tf.minimum(next_word, end)
        end = tf.maximum(tf.gather(tf.concat([[-1], words], 0), tf.searchsorted(words, end)) + 1, begin)
        origin = tf.gather(characters.splits[:-1] + characters.added, ids.value_rowids())
        spans = tf.maximum(tf.stack([begin, end], axis=1) - origin[:, None], 0)
        return ids, ids.with_values(tf.cast(spans, tf.int32))

    def _characters(self, text: tf.Tensor, prefix: bool) -> _Characters:
        """Returns the characters of texts, with a space before those that begin with none where `prefix` is set."""
        # The space in front also keeps a byte order mark from being taken for one.
        points = tf.strings.unicode_decode(tf.strings.join([" ", text]), "UTF-8", errors="replace")
        points = points.with_row_splits_dtype(tf.int64)
        first = points.row_starts()
        place = tf.range(tf.size(points.values, tf.int64)) - tf.gather(first, points.value_rowids())
        added = tf.zeros_like(first)
        if prefix:
            # Of a text of nothing the character behind is that of the next one, or none.
            second = tf.gather(tf.concat([points.values, [_SPACE]], 0), first + 1)
            added = tf.cast((points.row_lengths() > 1) & tf.not_equal(second, _SPACE), tf.int64)
        kept = tf.ragged.boolean_mask(points, points.with_values(place >= tf.gather(1 - added, points.value_rowids())))
        run = tf.searchsorted(self._starts, kept.values, side="right") - 1
        return _Characters(kept.values, tf.gather(self._kinds, run), kept.row_splits, added)

    def _encoded(self, characters: _Characters) -> tuple[tf.RaggedTensor, tf.Tensor, tf.Tensor]:
        """Returns ids [B, (pieces)], the first byte of each piece among those of all texts, and where characters end.

        Args:
            characters: The texts.

        Returns:
            int32 [B, (pieces)], int64 [all pieces], int64 [characters].
        """
        flat = tf.io.decode_raw(tf.strings.unicode_encode(characters.code, "UTF-8", errors="replace"), tf.uint8)
        size = 1 + tf.reduce_sum(tf.cast(characters.code[:, None] >= [0x80, 0x800, 0x10000], tf.int64), axis=1)
        ends = tf.cumsum(size)
        first_byte = tf.boolean_mask(ends - size, _begins(characters))
        begins = tf.scatter_nd(first_byte[:, None], tf.ones_like(first_byte), tf.shape(flat, tf.int64)[:1]) > 0
        ids, place = self._merges.pieces(tf.cast(flat, tf.int32), begins)
        row_bytes = tf.gather(tf.concat([[0], ends], 0), characters.splits)
        splits = tf.searchsorted(place, row_bytes, out_type=tf.int64)
        return tf.RaggedTensor.from_row_splits(ids, splits, validate=False), place, ends


def _begins(characters: _Characters) -> tf.Tensor:
    """Returns which characters begin a match of GPT-2's pattern, bool [characters]; see `word_runs`."""
    code, kind, splits = characters.code, characters.kind, characters.splits
    count = tf.size(code, tf.int64)
    # Without texts of nothing every row start is that of a character.
    starts = tf.boolean_mask(splits[:-1], splits[:-1] < splits[1:])
    is_first = tf.scatter_nd(starts[:, None], tf.ones_like(starts), count[None]) > 0

    def before(values: tf.Tensor, steps: int = 1) -> tf.Tensor:
        return tf.concat([tf.zeros_like(values[:steps]), values], 0)[: tf.size(values)]

    def behind(values: tf.Tensor, steps: int = 1) -> tf.Tensor:
        return tf.concat([values[steps:], tf.zeros_like(values[:steps])], 0)

    is_last = tf.concat([is_first[1:], [True]], 0)[: tf.size(code)]
    white, white_before = tf.equal(kind, WHITE), tf.equal(before(kind), WHITE)
    space_before = tf.equal(before(code), _SPACE)
    other_kind = tf.not_equal(kind, before(kind))
    # White space that ends before a character: its last one stands alone, or before the character if it is a space.
    last_white = white & white_before & ~is_last & ~tf.equal(behind(kind), WHITE)
    begins = tf.where(white, ~white_before | last_white, tf.where(white_before, ~space_before, other_kind))
    begins = begins | is_first
    # An apostrophe that begins a match of its own takes an ending with it.
    free = tf.equal(code, _APOSTROPHE) & begins & ~is_last
    one = free & tf.reduce_any(tf.equal(behind(code)[:, None], list(map(ord, _ONE_LETTER))), axis=1)
    follows = ~is_last & ~behind(is_last) & free
    pairs = [tf.equal(behind(code), ord(a)) & tf.equal(behind(code, 2), ord(b)) for a, b in _TWO_LETTERS]
    two = follows & tf.reduce_any(tf.stack(pairs), axis=0)
    ending = one | two
    return (begins & ~before(ending)) | (before(one, 2) | before(two, 3)) | is_first


class _Merges(tf.Module):
    """Merges the bytes of words, lowest rank first.

    Args:
        files: Vocabulary and merges.
    """

    def __init__(self, files: BpeFiles) -> None:
        super().__init__(name="merges")
        ids = {piece: number for number, piece in enumerate(files.vocab)}
        self._size = len(ids)
        self._byte_ids = tf.constant([ids[symbol] for symbol in BYTE_SYMBOLS], tf.int32)
        made = np.array([ids[a + b] for a, b in files.merges], np.int32)
        keys = np.array([ids[a] * self._size + ids[b] for a, b in files.merges], np.int64)
        order = np.argsort(keys)
        self._count = len(keys)
        # The last key is of no pair, so that a search always finds one.
        self._keys = tf.constant(np.append(keys[order], np.iinfo(np.int64).max), tf.int64)
        self._ranks = tf.constant(np.append(order, _NEVER), tf.int32)
        self._made = tf.constant(np.append(made, 0), tf.int32)
        self._joined = tf.constant(_joined_bytes(files))
        # All equal pairs of a word may be merged at once where no merge is older than what it is made of.
        last_of = {a + b: number for number, (a, b) in enumerate(files.merges)}
        self._at_once = all(
            last_of.get(part, -1) < number for number, merge in enumerate(files.merges) for part in merge
        )

    def pieces(self, values: tf.Tensor, begins: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the ids of all words and the place of the first byte of each, int32 and int64 [pieces].

        Args:
            values: Bytes of all words, int32 [bytes].
            begins: Whether a word begins at each, bool [bytes].
        """
        pairs = tf.concat([tf.zeros_like(values[:1]), values[:-1]], 0)[: tf.size(values)] * 256 + values
        # What stands on both sides of two bytes that are neighbours in no piece can never be joined.
        word = tf.cumsum(tf.cast(begins | ~tf.gather(self._joined, pairs), tf.int32))
        place, symbol = tf.range(tf.size(values, tf.int64)), tf.gather(self._byte_ids, values)
        done = (tf.zeros([0], tf.int32), tf.zeros([0], tf.int64))
        shapes = (tf.TensorShape([None]),) * 5
        *_, ids, where = tf.while_loop(
            lambda symbol, *_: tf.size(symbol) > 0, self._step, (symbol, word, place, *done), shapes
        )
        # Words are done at different times; their places bring them into order.
        dense = tf.scatter_nd(where[:, None], ids + 1, tf.shape(values, tf.int64)[:1])
        return tf.boolean_mask(dense, dense > 0) - 1, tf.reshape(tf.where(dense > 0), [-1])

    def _step(
        self, symbol: tf.Tensor, word: tf.Tensor, place: tf.Tensor, ids: tf.Tensor, where: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """Merges the pair of lowest rank in every word; puts words without one to those that are done."""
        key = tf.cast(symbol[:-1], tf.int64) * self._size + tf.cast(symbol[1:], tf.int64)
        found = tf.searchsorted(self._keys, key)
        hit = tf.equal(tf.gather(self._keys, found), key) & tf.equal(word[:-1], word[1:])
        rank = tf.concat([tf.where(hit, tf.gather(self._ranks, found), _NEVER), [_NEVER]], 0)
        # Words have numbers that ascend; those that are done are gone.
        word = tf.cumsum(tf.cast(tf.concat([[True], tf.not_equal(word[1:], word[:-1])], 0), tf.int32)) - 1
        lowest = tf.gather(tf.math.segment_min(rank, word), word)
        open_ = lowest < _NEVER
        chosen = open_ & tf.equal(rank, lowest)
        chosen = _alternate(chosen) if self._at_once else _first_of_each(chosen, word)
        symbol = tf.where(chosen, tf.gather(self._made, tf.minimum(rank, self._count)), symbol)
        kept = ~tf.concat([[False], chosen[:-1]], 0)
        done, going = ~open_, open_ & kept
        return (
            *(tf.boolean_mask(values, going) for values in (symbol, word, place)),
            tf.concat([ids, tf.boolean_mask(symbol, done)], 0),
            tf.concat([where, tf.boolean_mask(place, done)], 0),
        )


def _alternate(chosen: tf.Tensor) -> tf.Tensor:
    """Returns every second of neighbouring pairs: of three equal symbols in a row the first two become one."""
    place = tf.range(tf.size(chosen, tf.int64))
    others = tf.reshape(tf.where(~chosen), [-1])
    run_start = tf.gather(tf.concat([[-1], others], 0), tf.searchsorted(others, place)) + 1
    return chosen & tf.equal((place - run_start) % 2, 0)


def _first_of_each(chosen: tf.Tensor, word: tf.Tensor) -> tf.Tensor:
    """Returns the first chosen pair of every word."""
    place = tf.range(tf.size(chosen))
    first = tf.math.segment_min(tf.where(chosen, place, _NEVER), word)
    return tf.equal(place, tf.gather(first, word))


def _joined_bytes(files: BpeFiles) -> np.ndarray:
    """Returns which two bytes are neighbours in a piece that merges make, bool [256 * 256]."""
    byte_of = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}
    joined = np.zeros((256, 256), bool)
    for first, second in files.merges:
        joined[byte_of[first[-1]], byte_of[second[0]]] = True
    return joined.reshape(-1)
