"""Remembers the piece ids of the chunks between spaces, so that a word met before costs a dictionary look-up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from easytransfer.data.encoded import Ragged

# Characters of remembered chunks after which the memory starts again: half a million English words, about 100 MB.
MAX_CHARACTERS = 1 << 22


class ChunkBank:
    """Tokenizes texts chunk by chunk, where a chunk is what stands between two spaces.

    The result equals tokenizing the whole text whenever no rule looks across a space, which holds for BERT: a space
    always ends a word, and it ends a sequence of combining characters, so NFD reorders nothing across it.
    Words repeat, so after the first rows nearly all work is look-ups; only new chunks reach `encode`.
    Safe to use from several threads.

    Args:
        encode: Turns chunks into lists of piece ids.
        max_characters: Bound of the memory, in characters of remembered chunks.
        split: Cuts a text into chunks whose ids, one after the other, are those of the text.
    """

    def __init__(
        self,
        encode: Callable[[list[str]], Sequence[Sequence[int]]],
        max_characters: int = MAX_CHARACTERS,
        split: Callable[[str], list[str]] = lambda text: text.split(" "),
    ) -> None:
        self._encode, self._split = encode, split
        self._max_characters = max_characters
        self._lock = threading.Lock()
        self._forget()

    def rows(self, texts: Sequence[str]) -> Ragged:
        """Returns the piece ids of every text, int32, without special tokens."""
        chunks = [self._split(text) for text in texts]
        flat = list(chain.from_iterable(chunks))
        with self._lock:
            self._learn(flat)
            pieces = self._bank.take(np.fromiter(map(self._index.__getitem__, flat), np.int64, len(flat)))
        ends = np.cumsum([0, *map(len, chunks)])
        return Ragged(pieces.values, pieces.offsets[ends])

    def _forget(self) -> None:
        self._index: dict[str, int] = {}
        self._bank = Ragged.from_lists([])
        self._characters = 0

    def _learn(self, chunks: list[str]) -> None:
        """Tokenizes the chunks that are not remembered yet."""
        if self._characters > self._max_characters:
            self._forget()
        new = [chunk for chunk in dict.fromkeys(chunks) if chunk not in self._index]
        if not new:
            return
        ids = self._encode(new)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        values = np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum()))
        self._index.update(zip(new, range(len(self._bank), len(self._bank) + len(new)), strict=True))
        self._bank = Ragged(
            np.concatenate([self._bank.values, values]),
            np.concatenate([self._bank.offsets, self._bank.offsets[-1] + np.cumsum(lengths)]),
        )
        self._characters += sum(map(len, new))
