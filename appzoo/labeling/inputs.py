"""The words of a text as windows of token ids, in tables and in requests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from appzoo.encoder import Encoder, EncoderTokens
from appzoo.labeling.data import Unit, Windows, encode_words, split_units
from easytransfer.app.inputs.base import Encoded, Tensors
from easytransfer.data.encoded import HostColumn
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.run.log import warn

if TYPE_CHECKING:
    from appzoo.labeling.graph import GraphWindows


@dataclass(kw_only=True)
class EncodedWords(Encoded):
    """The columns of a chunk, and the windows they are made of, which tell where each word stands."""

    windows: Windows


class WordWindows(EncoderTokens):
    """`input_ids`, `input_mask`, `segment_ids` [windows, tokens] and `word_starts` [windows, words] of texts.

    A text is one window, or several where it is long: examples of one row. `word_starts` has the first pieces of
    the words that the window answers for, by their numbers among those of the text from 1, 0 behind the last. `place`
    (number of the row in the whole table, number of the window in the row, windows of the row) and `text` stay on the
    host.

    Args:
        encoder: Of the job.
        column: Table column with the text.
        tags: Table column with a tag for every word, read like the words: as a text or as a list; None = no such one.
        unit: What has a tag.
    """

    _windows: GraphWindows | None = None

    def __init__(self, encoder: Encoder, column: str, tags: str | None, unit: Unit) -> None:
        super().__init__(encoder, column)
        self.tags, self.unit = tags, unit

    @property
    def before(self) -> int:
        """Number of special tokens before the text."""
        return self.tokenizer.layout.before("first", paired=False)

    def text_columns(self) -> dict[str, ListForm]:
        """Returns text and tags, which may be lists of words."""
        return {name: "words" for name in (self.first, self.tags) if name}

    def words(self, text: str) -> list[str]:
        """Returns the words or characters of a text that have tags."""
        return split_units(text, self.unit)

    def encode(self, chunk: RowChunk) -> EncodedWords:
        """Encodes the words; with `noTruncate`, rows with a word too long for any window are bad rows."""
        texts = chunk.columns[self.first]
        windows = encode_words(self.tokenizer, list(map(self.words, texts)), self.max_length)
        self._tell_cut(chunk, np.flatnonzero(windows.cut))
        ids, row_of = windows.input_ids, windows.row_of
        places = (values.tolist() for values in (chunk.index[row_of], windows.window, np.bincount(row_of)[row_of]))
        columns = {
            "input_ids": ids,
            "segment_ids": windows.segment_ids,
            "word_starts": windows.word_starts,
            "place": HostColumn.of(zip(*places, strict=True)),
            "text": HostColumn.of(texts[row] for row in row_of),
        }
        counts = {
            "windows": np.bincount(row_of, minlength=len(texts)),
            "truncated": windows.cut > 0,
            "tokens": np.bincount(row_of, ids.lengths, len(texts)).astype(np.int64),
            "unknown": windows.unknown,
        }
        return EncodedWords(columns, counts, row_of, windows=windows)

    def _tell_cut(self, chunk: RowChunk, rows: np.ndarray) -> None:
        """Rejects rows that lose pieces, or warns of the first of them."""
        reason = f"too long: a word has more pieces than sequenceLength={self.max_length} has room for"
        if self._no_truncate:
            for row in rows:
                chunk.reject(int(row), self.first, reason)
        elif len(rows):
            warn(f"{chunk.origin(int(rows[0]))}: {reason}; the rest of it is left out ({len(rows)} such rows here)")

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns ids, mask, segments and places of words."""
        return {**super().specs(), "word_starts": tf.TensorSpec([None, None], tf.int32)}

    def from_request(self, tensors: Tensors) -> Tensors:
        """Encodes raw texts; beside the arrays `is_word` [windows, words], `word_count` and `truncated` [texts]."""
        arrays, counts, truncated = self._windows(tensors["text"])
        return {**arrays, "is_word": arrays["word_starts"] > 0, "word_count": counts, "truncated": truncated}

    def serving_module(self, folder: Path) -> tf.Module:
        """Returns the same encoding in a graph."""
        from appzoo.labeling.graph import GraphWindows

        self._windows = GraphWindows(self.encoder.graph(folder), self.tokenizer.unk_id, self.unit)
        return self._windows
