"""From words to token ids: sub-word alignment, and overlapping windows in which every word has one place.

A row whose pieces do not fit is cut into windows that start every half of the room. A word is answered for by the
window whose middle is nearest, which is the one where the smaller of its contexts is largest; the other windows show
it as context only. All of this is arithmetic on piece positions, so `graph.py` repeats it inside a serving graph.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np

from easytransfer.data.encoded import Ragged
from easytransfer.data.label_names import class_name
from easytransfer.text.packing import ranges
from easytransfer.text.tokenizer import Tokenizer

Unit = Literal["word", "character"]
# Only the space separates: other white space may be a character that carries a tag.
UNITS = {"word": re.compile("[^ ]+"), "character": re.compile("[^ ]")}


def split_units(text: str, unit: Unit) -> list[str]:
    """Returns the words or characters of a text that carry tags."""
    return UNITS[unit].findall(text)


def split_tags(cell: Any) -> list[str]:
    """Returns the tags in a cell: the words of a text, or the items of a list."""
    return list(map(class_name, split_units(cell, "word") if isinstance(cell, str) else cell))


def unit_offsets(text: str, unit: Unit) -> list[tuple[int, int]]:
    """Returns the first character and the one behind the last of every unit of `split_units`."""
    return [found.span() for found in UNITS[unit].finditer(text)]


@dataclass
class Windows:
    """Rows of words as model input, one entry per window.

    Attributes:
        input_ids: Pieces between the special tokens of the tokenizer, such as `[CLS] pieces [SEP]`, int32.
        segment_ids: Their segments, int32.
        word_starts: Number of the first piece of each word that the window answers for among the pieces of the window,
            from 1, int32: behind one special token that is its place. Over the windows of a row these are all its
            words, in order.
        word_pieces: Pieces of these words, int64; same offsets as `word_starts`.
        row_of: Row of each window, int64.
        window: Number of each window in its row, int64.
        cut: Words per row that lost pieces because they alone overlap two windows too far, int64 [rows].
        unknown: [UNK] pieces per row, int64 [rows].
        before: Special tokens before the pieces.
    """

    input_ids: Ragged
    segment_ids: Ragged
    word_starts: Ragged
    word_pieces: np.ndarray
    row_of: np.ndarray
    window: np.ndarray
    cut: np.ndarray
    unknown: np.ndarray
    before: int

    def token_labels(self, tags: np.ndarray, all_pieces: bool) -> Ragged:
        """Returns the label of every position of `input_ids`, -1 where it has none, int32.

        Args:
            tags: Tag ids of all words of all rows, int [words].
            all_pieces: Label every piece of a word instead of the first.
        """
        window = np.repeat(np.arange(len(self.word_starts)), self.word_starts.lengths)
        first = self.input_ids.offsets[window] + self.word_starts.values - 1 + self.before
        pieces = self.word_pieces if all_pieces else np.ones_like(self.word_pieces)
        values = np.full(len(self.input_ids.values), -1, np.int32)
        values[ranges(first, pieces)] = np.repeat(tags, pieces)
        return Ragged(values, self.input_ids.offsets)


def encode_words(tokenizer: Tokenizer, rows: Sequence[Sequence[str]], max_length: int) -> Windows:
    """Encodes rows of words to windows of at most `max_length` pieces.

    Each word is tokenized on its own, so that pieces and words cannot be misaligned; a word the tokenizer drops
    (control characters) becomes [UNK].

    Args:
        tokenizer: Tokenizer of the encoder.
        rows: Words of every row.
        max_length: Bound of a window, special tokens included.

    Raises:
        ConfigError: `max_length` leaves no room for text.
    """
    room = tokenizer.layout.room(max_length, paired=False)
    stride = room - room // 2
    words = np.fromiter(map(len, rows), np.int64, len(rows))
    row_of_word = np.repeat(np.arange(len(rows)), words)
    pieces = _with_unknown(tokenizer.word_pieces(list(chain.from_iterable(rows))), tokenizer.unk_id)
    total = np.bincount(row_of_word, pieces.lengths, len(rows)).astype(np.int64)
    # Longer than the overlap of two windows, a word might be whole in neither.
    cut = (total > room)[row_of_word] & (pieces.lengths > max(room // 2, 1))
    if cut.any():
        kept = np.where(cut, max(room // 2, 1), pieces.lengths)
        pieces = Ragged(pieces.values[ranges(pieces.offsets[:-1], kept)], _offsets(kept))
        total = np.bincount(row_of_word, kept, len(rows)).astype(np.int64)

    last_start = np.maximum(total - room, 0)
    windows = 1 - (-last_start // stride)
    row_starts = _offsets(total)[:-1]
    starts = pieces.offsets[:-1] - row_starts[row_of_word]
    owner, place = _owners(starts, pieces.lengths, last_start[row_of_word], windows[row_of_word], room, stride)

    first_window = _offsets(windows)
    row_of = np.repeat(np.arange(len(rows)), windows)
    number = np.arange(first_window[-1]) - first_window[row_of]
    begin = np.minimum(number * stride, last_start[row_of])
    length = np.minimum(total[row_of], room)
    word_counts = np.bincount(first_window[row_of_word] + owner, minlength=len(row_of))
    unknown = np.add.reduceat(np.append(pieces.values == tokenizer.unk_id, False).astype(np.int64), row_starts)
    inside = Ragged(pieces.values[ranges(row_starts[row_of] + begin, length)], _offsets(length))
    input_ids, segment_ids = tokenizer.assemble(inside)
    return Windows(
        input_ids=input_ids,
        segment_ids=segment_ids,
        word_starts=Ragged((1 + place).astype(np.int32), _offsets(word_counts)),
        word_pieces=pieces.lengths,
        row_of=row_of,
        window=number,
        cut=np.bincount(row_of_word, cut, len(rows)).astype(np.int64),
        unknown=np.where(total > 0, unknown, 0),
        before=tokenizer.layout.before("first", paired=False),
    )


def _owners(
    starts: np.ndarray, lengths: np.ndarray, last_start: np.ndarray, windows: np.ndarray, room: int, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each word the number of the window with the nearest middle, and the word's place in it.

    Window k starts at k * stride, the last one at `last_start`. Middles are compared times two, to stay with integers.
    """
    middle = 2 * starts + lengths - room
    regular = np.clip((middle + stride) // (2 * stride), 0, np.maximum(windows - 2, 0))
    is_last = np.abs(middle - 2 * last_start) < np.abs(middle - 2 * regular * stride)
    owner = np.where(is_last, windows - 1, regular)
    return owner, starts - np.where(owner == windows - 1, last_start, owner * stride)


def _with_unknown(pieces: Ragged, unknown_id: int) -> Ragged:
    """Gives words without pieces one [UNK]."""
    empty = pieces.lengths == 0
    values = np.insert(pieces.values, pieces.offsets[:-1][empty], unknown_id)
    return Ragged(values, _offsets(np.maximum(pieces.lengths, 1)))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
