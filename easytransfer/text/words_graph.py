"""The same word ids as `WordVocabulary`, inside a TensorFlow graph, with core operators only."""

from __future__ import annotations

import sys

import numpy as np
import tensorflow as tf

from easytransfer.text.words import CJK_RANGES, PAD_ID, UNK_ID, WordVocabulary, fold

# Nothing here branches on tensors in Python, and tracing is faster without the source transformation.
_no_autograph = tf.autograph.experimental.do_not_convert
_SURROGATES = slice(0xD800, 0xE000)
_SPACE = ord(" ")
_CJK = "[" + "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in CJK_RANGES) + "]"


def changed_characters() -> tuple[np.ndarray, np.ndarray]:
    """Returns the code points that `fold` changes or that are white space, and what they become; int32 [n] each.

    White space of any kind becomes a space. The table is measured on the running Python, so an export keeps the rules
    it was trained with wherever it is served.
    """
    points = np.arange(sys.maxunicode + 1, dtype=np.int32)
    points = np.delete(points, _SURROGATES)
    characters = points.tobytes().decode("utf-32-le")
    folded = np.frombuffer(fold(characters).encode("utf-32-le"), np.int32)
    if len(folded) != len(points):
        raise AssertionError("a character folds to more than one; correct easytransfer.text.words.fold")
    folded = np.where([character.isspace() for character in characters], _SPACE, folded)
    changed = folded != points
    return points[changed], folded[changed].astype(np.int32)


class GraphWords(tf.Module):
    """Encodes strings to padded word ids; they equal those of the vocabulary for any text.

    Bytes that are not UTF-8 become U+FFFD, as in Python's `errors="replace"`.

    Args:
        vocabulary: Words and the way texts are split.

    Example:
        >>> graph = GraphWords(WordVocabulary.build(["good film", "bad film"]))
        >>> graph(tf.constant(["Good fun", "film"]), max_length=8)["input_ids"].numpy().tolist()
        [[8, 1], [6, 0]]
    """

    def __init__(self, vocabulary: WordVocabulary) -> None:
        super().__init__(name="words")
        self.split = vocabulary.split
        words = tf.constant(vocabulary.words)
        entries = tf.lookup.KeyValueTensorInitializer(words, tf.range(len(vocabulary), dtype=tf.int64))
        self._table = tf.lookup.StaticHashTable(entries, default_value=UNK_ID)
        self._changed, self._becomes = map(tf.constant, changed_characters())

    @_no_autograph
    def __call__(self, text: tf.Tensor, max_length: int) -> dict[str, tf.Tensor]:
        """Encodes texts, string [B].

        Returns:
            `input_ids` and `input_mask`, int32 [B, T]; T is the longest row, at most `max_length` and at least 1.
        """
        words = self.words(text)[:, :max_length]
        ids = words.with_values(tf.cast(self._table.lookup(words.values), tf.int32))
        shape = tf.stack([ids.nrows(), tf.maximum(ids.bounding_shape(axis=1), 1)])
        mask = tf.ones_like(ids).to_tensor(0, shape=shape)
        return {
            "input_ids": tf.ensure_shape(ids.to_tensor(PAD_ID, shape=shape), [None, None]),
            "input_mask": tf.ensure_shape(mask, [None, None]),
        }

    @_no_autograph
    def words(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Returns the words of every text, string [B, (words)]."""
        # The space in front keeps a byte order mark from being taken for one.
        points = tf.strings.unicode_decode(tf.strings.join([" ", text]), "UTF-8", errors="replace")
        code = points.values
        place = tf.minimum(tf.searchsorted(self._changed, code), len(self._changed) - 1)
        found = tf.equal(tf.gather(self._changed, place), code)
        folded = points.with_values(tf.where(found, tf.gather(self._becomes, place), code))
        plain = tf.strings.unicode_encode(folded, "UTF-8", errors="replace")
        if self.split == "all":
            plain = tf.strings.regex_replace(plain, "[^ ]", r"\0 ")
        elif self.split == "cjk":
            plain = tf.strings.regex_replace(plain, _CJK, r" \0 ")
        return tf.strings.split(plain)
