"""The same piece ids as `WordPiece`, inside a TensorFlow graph.

Of TF Text only the WordPiece operator is used, which TensorFlow Serving links; words are split by core operators and
the measured table of `easytransfer.text.characters`.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
import tensorflow_text

from easytransfer.text.characters import BREAK, LETTER, SPACE, character_table
from easytransfer.text.graph import GraphTable, GraphTokenizer, no_autograph
from easytransfer.text.vocabulary import SPECIAL_TOKENS, UNK, Rules, check_vocabulary, read_vocab_file

# Private-use characters, one of which stands for words that are too long to be looked up.
_PRIVATE_USE = range(0xE000, 0xF900)


class GraphWordPiece(GraphTokenizer):
    """Encodes strings to padded ids with TensorFlow operators only.

    The ids equal those of `WordPiece` with the same vocabulary, rules and length, for any text. The module can be
    saved as part of a SavedModel; the vocabulary file goes to its `assets/` folder. Bytes that are not UTF-8 are
    dropped.

    Args:
        vocab_file: One token per line.
        lower_case: Casing of the model.
        max_length: Bound of a row, special tokens included.
        rules: All text rules, in place of `lower_case`.

    Attributes:
        special_ids: Ids of `pad`, `cls` and `sep`.

    Raises:
        ModelError: The vocabulary is not one of BERT.
        ConfigError: `max_length` leaves no room for text.

    Example:
        >>> encoder = GraphWordPiece("minilm/vocab.txt", lower_case=True, max_length=128)
        >>> encoder(tf.constant(["so good", "so very good"]))["input_ids"].shape
        TensorShape([2, 5])
    """

    def __init__(
        self, vocab_file: str | Path, lower_case: bool = True, max_length: int = 128, *, rules: Rules | None = None
    ) -> None:
        vocab = read_vocab_file(vocab_file)
        check_vocabulary(vocab, vocab_file)
        pad, _, cls_, sep, _ = (vocab.index(token) for token in SPECIAL_TOKENS)
        super().__init__(max_length, {"pad": pad, "cls": cls_, "sep": sep}, name="wordpiece")
        rules = Rules(lower_case=lower_case) if rules is None else rules
        self.vocab_file = tf.saved_model.Asset(str(vocab_file))
        self._max_word_chars = rules.max_word_chars
        table = character_table(rules)
        self._sorts, self._table = table.sorts, GraphTable(table)
        used = set("".join(vocab))
        self._too_long = next(chr(c) for c in _PRIVATE_USE if chr(c) not in used)
        self._pieces = tensorflow_text.FastWordpieceTokenizer(
            vocab,
            unknown_token=UNK,
            token_out_type=tf.int32,
            no_pretokenization=True,
            # Words are bounded in characters, as in `WordPiece`; the bound in bytes must never act.
            max_bytes_per_word=max(100, 4 * rules.max_word_chars),
        )

    @no_autograph
    def pieces(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Returns the piece ids of every text, int32 [B, (pieces)], without special tokens and not truncated."""
        words = self.words(text)
        return words.with_values(self._pieces.tokenize(self._known_words(words.values))).merge_dims(1, 2)

    @no_autograph
    def pieces_with_offsets(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Returns the piece ids of every text and where each piece stands, the same as `WordPiece` finds.

        Only in a run of combining characters that are not in canonical order may a piece be placed a few characters
        off, inside of that run.

        Returns:
            Ids, int32 [B, (pieces)], and spans, int32 [B, (pieces), 2]: start and end in characters (code points) of
            the text; a run of bytes that are not UTF-8 counts as the characters U+FFFD it is decoded to.
        """
        letters, words_of, source = self._letters(text)
        words = tf.strings.unicode_encode(letters, "UTF-8", errors="replace")
        known = self._known_words(words)
        ids, begin, end = self._pieces.tokenize_with_offsets(known)
        # The tokenizer counts bytes inside a word; `ends` says in which byte of all words each letter ends.
        sizes = tf.reduce_sum(tf.cast(letters.values[:, None] >= [0, 0x80, 0x800, 0x10000], tf.int64), axis=1)
        ends = tf.cumsum(sizes)
        word = tf.gather(tf.concat([[0], ends], 0), letters.row_splits)
        which = ids.value_rowids()
        replaced = tf.gather(tf.not_equal(known, words), which)
        begin = tf.where(replaced, tf.constant(0, tf.int64), tf.cast(begin.values, tf.int64)) + tf.gather(word, which)
        end = tf.where(replaced, tf.gather(word, which + 1), tf.gather(word, which) + tf.cast(end.values, tf.int64))
        first, last = tf.searchsorted(ends, begin, side="right"), tf.searchsorted(ends, end, side="left")
        spans = tf.stack([tf.gather(source, first), tf.gather(source, last) + 1], axis=1)
        rows = tf.gather(ids.row_splits, words_of)
        return (
            tf.RaggedTensor.from_row_splits(ids.values, rows, validate=False),
            tf.RaggedTensor.from_row_splits(spans, rows, validate=False),
        )

    def _known_words(self, words: tf.Tensor) -> tf.Tensor:
        """Replaces words too long to be looked up by one that is unknown."""
        return tf.where(tf.strings.length(words, unit="UTF8_CHAR") > self._max_word_chars, self._too_long, words)

    @no_autograph
    def words(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Returns the cleaned, folded and split words of every text, string [B, (words)]."""
        letters, splits, _ = self._letters(text)
        words = tf.strings.unicode_encode(letters, "UTF-8", errors="replace")
        return tf.RaggedTensor.from_row_splits(words, splits, validate=False)

    def _letters(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor, tf.Tensor]:
        """Returns the characters of every word [words, (letters)], the word splits of the rows [B + 1], and the
        position in its text of the character each letter comes from, int32 [all letters].
        """
        # The space in front makes every row start with a starter and a word break, so that all rows can be treated
        # as one sequence.
        points = tf.strings.unicode_decode(tf.strings.join([" ", text]), "UTF-8", errors="replace")
        elements = self._table(points)
        if self._sorts:
            elements = _sort_combining(elements)
        characters, kinds = elements.values[:, 0], elements.values[:, 1]
        visible = tf.not_equal(kinds, SPACE)
        joins = tf.equal(kinds, LETTER)
        joins_previous = tf.logical_and(joins, tf.concat([[False], joins[:-1]], 0)[: tf.size(joins)])
        begins = tf.logical_and(visible, tf.logical_not(joins_previous))
        shown = tf.boolean_mask(characters, visible)
        word_starts = tf.reshape(tf.where(tf.boolean_mask(begins, visible)), [-1])
        ends = tf.concat([word_starts, tf.shape(shown, tf.int64)], 0)
        # Before the first start there is nothing, so `ends` begins with 0 unless there is no word at all.
        letters = tf.RaggedTensor.from_row_splits(shown, ends, validate=False)
        counts = tf.concat([[0], tf.cumsum(tf.cast(begins, tf.int64))], 0)
        # The space in front is no character of the text.
        source = tf.boolean_mask(elements.values[:, 3] - 1, visible)
        return letters, tf.gather(counts, elements.row_splits), source


def _sort_combining(elements: tf.RaggedTensor) -> tf.RaggedTensor:
    """Sorts runs of combining characters by rank, as NFD does, and drops the BREAK elements.

    The rows need not be kept apart: each starts with a space, which is a starter.
    """
    values = elements.values
    rank = values[:, 2]
    run = tf.cumsum(tf.cast(tf.equal(rank, 0), tf.int64))
    key = run * 256 + tf.cast(rank, tf.int64)
    unsorted = tf.reduce_any(key[1:] < key[:-1])
    # The positions stay in their order: `tokenizers` counts the characters of a sorted run from where it begins.
    characters, place = values[:, :3], values[:, 3:]
    characters = tf.cond(unsorted, lambda: tf.gather(characters, tf.argsort(key, stable=True)), lambda: characters)
    values = tf.concat([characters, place], axis=1)
    stays = tf.not_equal(values[:, 1], BREAK)
    counts = tf.concat([[0], tf.cumsum(tf.cast(stays, tf.int64))], 0)
    return tf.RaggedTensor.from_row_splits(
        tf.boolean_mask(values, stays), tf.gather(counts, elements.row_splits), validate=False
    )
