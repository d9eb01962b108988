"""Which characters GPT-2's pattern takes for letters, numbers and white space, measured on the installed `tokenizers`.

The pattern is `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+` (Radford et al.
2019, the code). What it does to a text depends on the kinds of neighbouring characters only, so a table of kinds and
arithmetic on neighbours replace it inside a graph: the regular expressions of TensorFlow cannot look ahead, and know
another version of Unicode.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from tokenizers import Regex, pre_tokenizers

LETTER, NUMBER, WHITE, OTHER = range(4)
_PATTERNS = {LETTER: r"\p{L}+", NUMBER: r"\p{N}+", WHITE: r"\s+", OTHER: r"[^\s\p{L}\p{N}]+"}
# Planes with characters that are assigned; those of the other planes are of the kind OTHER.
PLANES = (0, 1, 2, 3, 14)
_PLANE, _CODE_POINTS = 0x10000, 0x110000
_SURROGATES = range(0xD800, 0xE000)


@dataclass(frozen=True)
class CharacterKinds:
    """The kinds of all characters, as runs of code points.

    Attributes:
        starts: First code point of each run, ascending from 0, int32 [runs].
        kinds: Kind of the run, int32 [runs].
    """

    starts: np.ndarray
    kinds: np.ndarray

    def of(self, codes: np.ndarray) -> np.ndarray:
        """Returns the kinds of code points."""
        return self.kinds[np.searchsorted(self.starts, codes, side="right") - 1]


@lru_cache(maxsize=1)
def character_kinds(planes: tuple[int, ...] = PLANES) -> CharacterKinds:
    """Measures the kinds of the characters of planes; takes about a second."""
    codes = np.concatenate([np.arange(plane * _PLANE, (plane + 1) * _PLANE, dtype=np.int32) for plane in planes])
    codes = codes[(codes < _SURROGATES.start) | (codes >= _SURROGATES.stop)]
    text = codes.astype("<u4").tobytes().decode("utf-32-le")
    runs = _runs("|".join(_PATTERNS.values()), text)
    # Runs of the four kinds are as long as they can be, so the first character says what a run is.
    firsts = [text[start] for start, _ in runs]
    kind_of = {first: kind for kind, pattern in _PATTERNS.items() for first in _matching(pattern, firsts)}
    kinds = np.full(_CODE_POINTS, OTHER, np.int32)
    for (start, end), first in zip(runs, firsts, strict=True):
        kinds[codes[start:end]] = kind_of[first]
    starts = np.flatnonzero(np.diff(kinds, prepend=-1))
    return CharacterKinds(starts.astype(np.int32), kinds[starts])


def _runs(pattern: str, text: str) -> list[tuple[int, int]]:
    return [span for _, span in pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(text)]


def _matching(pattern: str, characters: list[str]) -> str:
    """Returns the characters that a pattern matches."""
    rest = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str("".join(characters))
    unmatched = {character for part, _ in rest for character in part}
    return "".join(character for character in characters if character not in unmatched)
