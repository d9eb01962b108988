"""How many pieces of one or two texts go into a row of bounded length, between special tokens."""

from __future__ import annotations

import numpy as np

from easytransfer.data.encoded import Ragged
from easytransfer.errors import ConfigError


def text_room(max_length: int, paired: bool, between: int = 1) -> int:
    """Returns how many pieces of text fit beside the special tokens, `between` of them between the texts of a pair.

    Raises:
        ConfigError: None fits.
    """
    room = max_length - (2 + between if paired else 2)
    if room < 1:
        accepted = f"{3 + between} or more"
        raise ConfigError("the maximum length leaves no room for text", received=max_length, accepted=accepted)
    return room


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


def heads(rows: Ragged, kept: np.ndarray) -> np.ndarray:
    """Returns the first `kept[i]` values of every row, one after the other."""
    lengths = rows.lengths
    place = np.arange(rows.offsets[-1]) - np.repeat(rows.offsets[:-1], lengths)
    return rows.values[place < np.repeat(kept, lengths)]
