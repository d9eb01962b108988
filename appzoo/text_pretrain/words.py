"""Which pieces make a word where no mark says so, as in Chinese: a list of words, or blanks between them.

Whole words in Chinese: Cui et al. 2021, "Pre-Training with Whole Word Masking for Chinese BERT", arXiv 1906.08101,
which takes them from a segmenter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import tensorflow as tf

from easytransfer.data.encoded import Ragged
from easytransfer.data.lines import plain_lines
from easytransfer.errors import DataError
from easytransfer.run.atomic import atomic_path
from easytransfer.run.log import say
from easytransfer.text.tokenizer import Tokenizer

# Pieces of a word of the list, at most: longer ones are texts, and would rarely fit into what is hidden.
LONGEST = 16
# So many pieces say how texts are written.
_ENOUGH = 1000
# White space as `str.split` has it.
_BLANKS = np.array([n for n in range(0x3001) if chr(n).isspace()], np.int32)


class WordList:
    """Words in pieces, found in rows from left to right, at every place the longest one.

    Pieces that belong to no word of the list are left as the tokenizer has them. Words of one piece say nothing and
    are left out, and so are those with unknown pieces or with more than `LONGEST`.

    Args:
        words: Words of any language, as they stand in texts.
        tokenizer: Of the rows.
        where: What the words are from, for messages.

    Attributes:
        words: Those that are used.
        digest: SHA-256 of them.

    Raises:
        DataError: None can be used.
    """

    FILE = "words.txt"

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer, where: str) -> None:
        words = list(dict.fromkeys(words))
        pieces = tokenizer.pieces(words)
        unknown = [bool((pieces[row] == tokenizer.unk_id).any()) for row in range(len(words))]
        usable = (pieces.lengths > 1) & (pieces.lengths <= LONGEST) & ~np.asarray(unknown, bool)
        self.words = [word for word, used in zip(words, usable, strict=True) if used]
        if not self.words:
            raise DataError(
                f"{where} has no word of 2 to {LONGEST} known pieces", received=f"{len(words)} words",
                fix="write a word a line, in the language of the model",
            )  # fmt: skip
        self.digest = hashlib.sha256("\n".join(self.words).encode()).hexdigest()
        self._size = len(tokenizer)
        self._longest = int(pieces.lengths[usable].max())
        self._grow([pieces[row].tolist() for row in np.flatnonzero(usable)])

    @classmethod
    def from_file(cls, path: str | Path, tokenizer: Tokenizer) -> Self:
        """Reads a word a line; what follows behind a blank, such as a frequency, is left out.

        Raises:
            DataError: The file is missing, no UTF-8 text, or has no usable word.
        """
        words = []
        try:
            for number, line, problem in plain_lines(str(path)):
                if problem:
                    raise DataError(f"{path}:{number}: {problem[1]}", fix="convert the file to UTF-8")
                words += line.split()[:1]
        except ValueError as error:
            raise DataError(str(error)) from None
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}", fix="name the file by model.word_list") from None
        found = cls(words, tokenizer, str(path))
        say(f"{path}: {len(found.words):,} of {len(words):,} words have 2 to {LONGEST} known pieces and are used")
        return found

    def save(self, folder: Path) -> None:
        """Writes the words that are used, a word a line."""
        with atomic_path(folder / self.FILE) as partial:
            partial.write_text("\n".join([*self.words, ""]), encoding="utf-8")

    def _grow(self, rows: Sequence[Sequence[int]]) -> None:
        """Makes the tree of words: node 0 is the root, an edge is its node and the piece that follows."""
        edges: dict[int, int] = {}
        ends = {0}
        for row in rows:
            node = 0
            for piece in row:
                node = edges.setdefault(node * self._size + piece, len(edges) + 1)
            ends.add(node)
        keys = np.array(sorted(edges), np.int64)
        self._edges, self._nodes = tf.constant(keys), tf.constant([edges[key] for key in keys.tolist()], tf.int64)
        # The root is no word.
        self._is_word = tf.constant([node in ends and node > 0 for node in range(len(edges) + 1)])

    def boundaries(self, ids: tf.Tensor, begins: tf.Tensor, most: int) -> tf.Tensor:
        """Returns where words of the list, and pieces outside of them, begin.

        Args:
            ids: Pieces, int32 [rows, pieces].
            begins: Where a word may begin, bool [rows, pieces].
            most: Most pieces of a row.

        Returns:
            bool [rows, pieces]; False inside of a word of the list.
        """
        reach = self._reach(ids, begins)
        rows, length = tf.unstack(tf.shape(ids))
        end = length + 1
        place = tf.range(end)[tf.newaxis]
        # From every place to the one behind the word there; the one behind the row stays.
        to = tf.minimum(place + tf.pad(reach, [[0, 0], [0, 1]]), length)
        seen = tf.cast(tf.broadcast_to(place == 0, [rows, end]), tf.int32)
        # All places that are come to from the first one, twice as far in every turn.
        for _ in range(most.bit_length()):
            number = to + end * tf.range(rows)[:, tf.newaxis]
            reached = tf.math.unsorted_segment_max(tf.reshape(seen, [-1]), tf.reshape(number, [-1]), rows * end)
            seen = tf.maximum(seen, tf.reshape(reached, [rows, end]))
            to = tf.gather(to, to, batch_dims=1)
        return seen[:, :length] > 0

    def _reach(self, ids: tf.Tensor, begins: tf.Tensor) -> tf.Tensor:
        """Returns the pieces of the longest word that begins at every place, 1 where there is none."""
        node, reach = tf.where(begins, tf.zeros_like(ids, tf.int64), -1), tf.ones_like(ids)
        for depth in range(self._longest):
            following = tf.pad(ids[:, depth:], [[0, 0], [0, depth]])[:, : tf.shape(ids)[1]]
            # Behind the end stands nothing.
            inside = tf.range(tf.shape(ids)[1]) + depth < tf.shape(ids)[1]
            key = node * self._size + tf.cast(following, tf.int64)
            found = tf.searchsorted(self._edges, tf.reshape(key, [-1]))
            at = tf.reshape(tf.minimum(found, tf.size(self._edges) - 1), tf.shape(ids))
            is_edge = (node >= 0) & inside & (tf.gather(self._edges, at) == key)
            node = tf.where(is_edge, tf.gather(self._nodes, at), -1)
            is_word = tf.gather(self._is_word, tf.maximum(node, 0)) & (node >= 0)
            reach = tf.where(is_word, depth + 1, reach)
        return reach


def inside_words(texts: tf.Tensor, spans: tf.RaggedTensor) -> tf.RaggedTensor:
    """Returns which pieces stand in the word of the piece before them, words being what blanks separate.

    Args:
        texts: string [texts].
        spans: First character of every piece and the one behind its last, int32 [texts, (pieces), 2].

    Returns:
        int32 [texts, (pieces)], 1 inside of a word.
    """
    points = tf.strings.unicode_decode(texts, "UTF-8", errors="replace")
    blank = tf.reduce_any(points.values[:, tf.newaxis] == _BLANKS, axis=1)
    starts = tf.cast(~blank & tf.concat([[True], blank[:-1]], axis=0), tf.int32)
    # A text begins a word, whatever ends the one before.
    first = points.row_starts()[tf.cast(points.row_lengths(), tf.bool)]
    starts = tf.tensor_scatter_nd_max(starts, first[:, tf.newaxis], tf.ones_like(first, tf.int32))
    # Number of the word of every character; behind it 0, for texts without one.
    words = tf.concat([tf.cumsum(starts), [0]], axis=0)
    text_of = spans.value_rowids()
    # A piece is of the word that its last character is of; one that stands for no character goes with the next.
    last = tf.cast(tf.maximum(spans.values[:, 1] - 1, spans.values[:, 0]), tf.int64)
    last = tf.minimum(last, tf.maximum(tf.gather(points.row_lengths(), text_of) - 1, 0))
    word = tf.gather(words, tf.minimum(tf.gather(points.row_starts(), text_of) + last, tf.size(words, tf.int64) - 1))
    same = (word[1:] == word[:-1]) & (text_of[1:] == text_of[:-1])
    return spans.with_values(tf.cast(tf.concat([[False], same], axis=0)[: tf.size(word)], tf.int32))


def marks_of(texts: Sequence[str], spans: Ragged) -> Ragged:
    """Returns what `inside_words` does for texts in memory."""
    ragged = tf.RaggedTensor.from_row_splits(spans.values, spans.offsets)
    return Ragged(inside_words(tf.constant(list(texts), tf.string), ragged).values.numpy(), spans.offsets)


def check_blanks(inside: Ragged) -> None:
    """Refuses texts whose words are not separated by blanks; `inside` is what `marks_of` returns.

    Raises:
        DataError: Most of the pieces stand in words of more than `LONGEST`, which would never be hidden.
    """
    begins = np.append(np.flatnonzero(inside.values == 0), len(inside.values))
    lengths = np.diff(begins)
    if len(inside.values) > _ENOUGH and lengths[lengths > LONGEST].sum() > len(inside.values) / 2:
        raise DataError(
            f"most of the texts stand in words of more than {LONGEST} pieces",
            fix="separate words by blanks, or name them by model.word_list and leave out model.words_by_blanks",
        )
