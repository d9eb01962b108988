"""Where special tokens stand around one or two texts, and how many pieces go into a row of bounded length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from easytransfer.data.encoded import Ragged
from easytransfer.errors import ConfigError

# Names of the texts of a row among its parts; other parts are roles of special tokens.
FIRST, SECOND = "first", "second"


@dataclass(frozen=True)
class Layout:
    """Where special tokens and texts stand in a row, and which segment each belongs to.

    The one place that knows: tokenizers, graphs, applications and networks ask it.

    Attributes:
        single: Parts of a row of one text in their order, (`first` or the role of a special token, segment).
        pair: The same of a row of two texts, with `second` among them.

    Example:
        >>> Layout.of("cls:0 first:0 sep:0", "cls:0 first:0 sep:0 second:1 sep:1")
    """

    single: tuple[tuple[str, int], ...]
    pair: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, single: str, pair: str) -> Self:
        """Reads a layout from words `part:segment`."""
        rows = ([word.split(":") for word in row.split()] for row in (single, pair))
        return cls(*(tuple((name, int(segment)) for name, segment in row) for row in rows))

    def parts(self, paired: bool) -> tuple[tuple[str, int], ...]:
        """Returns the parts of a row of one text or two."""
        return self.pair if paired else self.single

    def specials(self, paired: bool) -> int:
        """Returns how many special tokens a row has."""
        return sum(name not in (FIRST, SECOND) for name, _ in self.parts(paired))

    def before(self, text: str, paired: bool) -> int:
        """Returns how many special tokens stand before `first` or `second`; the pieces of other texts come on top."""
        names = [name for name, _ in self.parts(paired)]
        return sum(name != FIRST for name in names[: names.index(text)])

    @property
    def ends_with_cls(self) -> bool:
        """Whether the token that stands for a whole row is its last one instead of its first one."""
        return self.single[-1][0] == "cls"

    def room(self, max_length: int, paired: bool) -> int:
        """Returns how many pieces of text fit beside the special tokens.

        Raises:
            ConfigError: None does.
        """
        room = max_length - self.specials(paired)
        if room < 1:
            least = f"{self.specials(paired=True) + 1} or more"
            raise ConfigError("the maximum length leaves no room for text", received=max_length, accepted=least)
        return room

    def assemble(self, special_ids: Mapping[str, int], first: Ragged, second: Ragged | None) -> tuple[Ragged, Ragged]:
        """Puts pieces between special tokens.

        Args:
            special_ids: Ids of special tokens by role.
            first: Pieces of first texts that are kept.
            second: The same of second texts; None for one text a row.

        Returns:
            Ids and segments of every row, int32.
        """
        texts, parts = {FIRST: first, SECOND: second}, self.parts(second is not None)
        one = np.ones(len(first), np.int64)
        lengths = np.stack([one if name not in texts else texts[name].lengths for name, _ in parts], axis=1)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths.sum(axis=1))])
        starts = offsets[:-1, None] + np.cumsum(lengths, axis=1) - lengths
        ids, segments = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int32)
        for number, (name, segment) in enumerate(parts):
            places = ranges(starts[:, number], lengths[:, number]) if name in texts else starts[:, number]
            ids[places] = texts[name].values if name in texts else special_ids[name]
            segments[places] = segment
        return Ragged(ids, offsets), Ragged(segments, offsets)


# BERT (Devlin et al. 2019, arXiv 1810.04805, section 3).
CLS_FIRST = Layout.of("cls:0 first:0 sep:0", "cls:0 first:0 sep:0 second:1 sep:1")
# RoBERTa does not tell texts apart (Liu et al. 2019, arXiv 1907.11692, section 4.2), and its code writes [SEP] twice.
SEP_TWICE = Layout.of("cls:0 first:0 sep:0", "cls:0 first:0 sep:0 sep:0 second:0 sep:0")
# XLNet (Yang et al. 2019, arXiv 1906.08237, section 2.5): the token that stands for a row is its last one.
CLS_LAST = Layout.of("first:0 sep:0 cls:2", "first:0 sep:0 second:1 sep:1 cls:2")


def longest_first(first: np.ndarray, second: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many pieces of each text stay, [N] each, so that both together fit into `room`.

    The shorter text keeps up to half of the room, the longer one the rest; see `Tokenizer.encode`.
    """
    shorter = np.minimum(np.minimum(first, second), room // 2)
    first_is_shorter = first <= second
    fits = first + second <= room
    return (
        np.where(fits, first, np.where(first_is_shorter, shorter, room - shorter)),
        np.where(fits, second, np.where(first_is_shorter, room - shorter, shorter)),
    )


def heads(rows: Ragged, kept: np.ndarray) -> Ragged:
    """Returns the first `kept[i]` values of every row."""
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64)])
    return Ragged(rows.values[ranges(rows.offsets[:-1], kept)], offsets)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns start, start + 1, ... start + length - 1 for every pair, end to end."""
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    return np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)
