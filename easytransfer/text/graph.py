"""Tokenizers inside a TensorFlow graph: an exported model takes raw text."""

from __future__ import annotations

import abc
from collections.abc import Mapping

import tensorflow as tf

from easytransfer.errors import ModelError
from easytransfer.text.characters import PAGE, CharacterTable
from easytransfer.text.packing import CLS_FIRST, FIRST, SECOND, Layout

try:
    import tensorflow_text  # noqa: F401 - registers the operators of the kinds
except ImportError as error:
    raise ModelError(
        "tokenizing inside the graph needs tensorflow-text, which cannot be imported",
        received=str(error),
        fix="pip install 'tensorflow-text==2.20.*', the release of the installed TensorFlow",
    ) from error

# Nothing here branches on tensors in Python, and tracing is faster without the source transformation.
no_autograph = tf.autograph.experimental.do_not_convert


class GraphTokenizer(tf.Module, abc.ABC):
    """Encodes strings to padded ids with TensorFlow operators only.

    The ids equal those of the `Tokenizer` it was made of, for any text. The module can be saved as part of a
    SavedModel.

    Args:
        max_length: Bound of a row, special tokens included.
        special_ids: Ids of `pad`, `cls` and `sep`.
        layout: Where the special tokens of a row stand.

    Raises:
        ConfigError: `max_length` leaves no room for text.
    """

    def __init__(self, max_length: int, special_ids: Mapping[str, int], name: str, layout: Layout = CLS_FIRST) -> None:
        super().__init__(name=name)
        layout.room(max_length, paired=False)
        self.max_length, self.layout = max_length, layout
        self.special_ids = {role: special_ids[role] for role in ("pad", "cls", "sep")}

    @abc.abstractmethod
    def pieces(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Returns the piece ids of every text, int32 [B, (pieces)], without special tokens and not truncated."""

    @abc.abstractmethod
    def pieces_with_offsets(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Returns the piece ids of every text and where each piece stands, as `Tokenizer.pieces_with_offsets` does.

        Returns:
            Ids, int32 [B, (pieces)], and spans, int32 [B, (pieces), 2]: start and end in characters (code points) of
            the text; a run of bytes that are not UTF-8 counts as the characters U+FFFD it is decoded to.
        """

    def word_pieces(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Returns the piece ids of words, as `Tokenizer.word_pieces` does."""
        return self.pieces(words)

    @no_autograph
    def __call__(self, text: tf.Tensor, pair: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Encodes texts or pairs of texts.

        Args:
            text: First texts, string [B].
            pair: Second texts, string [B], or None.

        Returns:
            `input_ids`, `input_mask` and `segment_ids`, int32 [B, T]. T is the longest row: at most
            `max_length`, and 1 for an empty batch.
        """
        return self.pack(self.pieces(text), None if pair is None else self.pieces(pair))

    @no_autograph
    def pack(self, first: tf.RaggedTensor, second: tf.RaggedTensor | None = None) -> dict[str, tf.Tensor]:
        """Returns what a call does for pieces, int32 [B, (pieces)]: rows that are cut to `max_length`."""
        room = self.layout.room(self.max_length, second is not None)
        if second is None:
            return self.assemble(heads(first, tf.minimum(first.row_lengths(), room)))
        kept_first, kept_second = longest_first(first.row_lengths(), second.row_lengths(), room)
        return self.assemble(heads(first, kept_first), heads(second, kept_second))

    @no_autograph
    def assemble(self, first: tf.RaggedTensor, second: tf.RaggedTensor | None = None) -> dict[str, tf.Tensor]:
        """Puts pieces, int32 [B, (pieces)], between the special tokens of a row; returns what a call returns."""
        return assembled(self.layout, self.special_ids, first, second)


class GraphTable(tf.Module):
    """Applies a table of characters inside a graph.

    Args:
        table: What becomes of each character.

    Call arguments:
        points: Code points, int32 [B, (n)].

    Returns:
        int32 [B, (m), 4]: character, kind and rank of each element as in `CharacterTable`, and the position in its row
        of the code point that it is of.
    """

    def __init__(self, table: CharacterTable) -> None:
        super().__init__(name="characters")
        self._pages, self._shapes = tf.constant(table.pages), tf.constant(table.shapes)
        self._starts, self._elements = tf.constant(table.starts), tf.constant(table.elements)

    def __call__(self, points: tf.RaggedTensor) -> tf.RaggedTensor:
        """See the class."""
        code = points.values
        block = tf.gather(self._pages, code // PAGE)
        shape = tf.gather(self._shapes, block * PAGE + code % PAGE)
        spans = tf.ragged.range(
            tf.gather(self._starts, shape), tf.gather(self._starts, shape + 1), row_splits_dtype=tf.int64
        )
        elements = tf.gather(self._elements, spans.values)
        source = spans.value_rowids()
        characters = elements[:, 0] * tf.gather(code, source) + elements[:, 1]
        row_start = tf.gather(points.row_splits, points.value_rowids())
        place = tf.cast(tf.range(tf.size(code, tf.int64)) - row_start, tf.int32)
        values = tf.stack([characters, elements[:, 2], elements[:, 3], tf.gather(place, source)], axis=1)
        return tf.RaggedTensor.from_row_splits(values, tf.gather(spans.row_splits, points.row_splits), validate=False)


def longest_first(first: tf.Tensor, second: tf.Tensor, room: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Graph form of `packing.longest_first`."""
    shorter = tf.minimum(tf.minimum(first, second), room // 2)
    kept_first, kept_second = (
        tf.where(first <= second, shorter, room - shorter),
        tf.where(first <= second, room - shorter, shorter),
    )
    fits = first + second <= room
    return tf.where(fits, first, kept_first), tf.where(fits, second, kept_second)


def heads(rows: tf.RaggedTensor, kept: tf.Tensor) -> tf.RaggedTensor:
    """Returns the first `kept[i]` values of every row."""
    starts = rows.row_starts()
    places = tf.ragged.range(starts, starts + kept, row_splits_dtype=tf.int64)
    return places.with_values(tf.gather(rows.values, places.values))


def assembled(
    layout: Layout, special_ids: Mapping[str, int], first: tf.RaggedTensor, second: tf.RaggedTensor | None = None
) -> dict[str, tf.Tensor]:
    """Graph form of `Layout.assemble`: rows of pieces, int32 [B, (pieces)], between special tokens.

    Returns:
        `input_ids`, `input_mask` and `segment_ids`, int32 [B, T], filled up with `pad` of `special_ids`.
    """
    texts, rows = {FIRST: first, SECOND: second}, first.nrows()
    parts, segments = [], []
    for name, segment in layout.parts(second is not None):
        part = texts[name] if name in texts else tf.fill([rows, 1], special_ids[name])
        parts.append(part)
        segments.append(tf.ones_like(part) * segment)
    ids, segment_ids = tf.concat(parts, axis=1), tf.concat(segments, axis=1)
    # At least one column, also for an empty batch: encoders read the first token.
    width = tf.maximum(ids.bounding_shape(axis=1), 1)
    padded = {
        "input_ids": (ids, special_ids["pad"]),
        "input_mask": (tf.ones_like(ids), 0),
        "segment_ids": (segment_ids, 0),
    }
    return {
        name: tf.ensure_shape(value.to_tensor(pad, shape=tf.stack([ids.nrows(), width])), [None, None])
        for name, (value, pad) in padded.items()
    }
