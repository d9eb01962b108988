"""What the text rules of tokenizers do to every single Unicode character, as one small table.

BERT's rules look at one character at a time, except that NFD sorts neighbouring combining characters. So the table plus
that sort is the whole of text cleaning and word splitting, and a TensorFlow graph that applies it cannot differ from
`tokenizers` by Unicode version, locale or regular-expression dialect. The table is measured on the installed
`tokenizers` rather than written down, for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from tokenizers import normalizers, pre_tokenizers

from easytransfer.text.vocabulary import Rules

# What an output element is to word splitting.
LETTER, ALONE, SPACE, BREAK = range(4)
PAGE = 256
_CODE_POINTS = 0x110000
_SURROGATES = range(0xD800, 0xE000)
# Combining characters live in the first two planes; nothing outside them takes part in reordering.
_COMBINING = range(0x20000)
# Stands between characters under test: no rule changes it, it ends a word in none, and nothing sorts across it.
_FENCE = "0"
# The same where compatible characters are decomposed, which makes digits of others.
_PRIVATE = "\ue000"
# Combining marks of the lowest (1) and the highest (240) class in use.
_LOWEST_MARK, _HIGHEST_MARK = "\u0334", "\u0345"

Element = tuple[int, int, int, int]
_SAME: tuple[Element, ...] = ((1, 0, LETTER, 0),)
_SPACED: tuple[Element, ...] = ((0, 32, SPACE, 0), (1, 0, LETTER, 0), (0, 32, SPACE, 0))
_GONE: tuple[Element, ...] = ()


@dataclass(frozen=True)
class CharacterTable:
    """Maps a code point to the elements it becomes.

    The elements of code point c are `elements[starts[s] : starts[s + 1]]` with
    `s = shapes[pages[c // PAGE] * PAGE + c % PAGE]`.

    Attributes:
        pages: Which block of `shapes` describes 256 code points, int32 [4352].
        shapes: Number of the character's list of elements, int32 [blocks * 256].
        starts: Where each list of elements starts, int32 [lists + 1].
        elements: int32 [n, 4]: factor, addend, kind, rank. The element is the character `factor * c + addend`.
            Kind LETTER joins its neighbours to a word, ALONE is a word by itself (punctuation), SPACE separates
            words, BREAK vanishes after sorting. Rank 0 is a starter; runs of others are sorted by rank, stably.
    """

    pages: np.ndarray
    shapes: np.ndarray
    starts: np.ndarray
    elements: np.ndarray

    @property
    def sorts(self) -> bool:
        """Whether any element takes part in the sorting of combining characters."""
        return bool(self.elements[:, 3].any())


@lru_cache(maxsize=4)
def character_table(rules: Rules) -> CharacterTable:
    """Measures the table of `rules` on the installed `tokenizers`; takes about two seconds."""
    return table_of(_Measure(rules).page)


def table_of(page_of: Callable[[list[str]], list[tuple[Element, ...]]]) -> CharacterTable:
    """Returns the table of all characters.

    Args:
        page_of: Returns the elements of each of the characters it is given: 256 in a row, or none where they are
            surrogates, which are no characters.
    """
    shape_numbers: dict[tuple[Element, ...], int] = {_SAME: 0, _SPACED: 1, _GONE: 2}
    blocks: dict[bytes, int] = {}
    pages = np.zeros(_CODE_POINTS // PAGE, np.int32)
    for page in range(len(pages)):
        # Decoding UTF-8 never yields a surrogate.
        characters = [] if page * PAGE in _SURROGATES else [chr(page * PAGE + i) for i in range(PAGE)]
        lists = page_of(characters) or [_GONE] * PAGE
        block = np.array([shape_numbers.setdefault(entry, len(shape_numbers)) for entry in lists], np.int32)
        pages[page] = blocks.setdefault(block.tobytes(), len(blocks))
    shapes = np.concatenate([np.frombuffer(block, np.int32) for block in blocks])
    starts = np.cumsum([0, *map(len, shape_numbers)], dtype=np.int32)
    elements = np.array([element for entry in shape_numbers for element in entry], np.int32).reshape(-1, 4)
    return CharacterTable(pages, shapes, starts, elements)


@lru_cache(maxsize=4)
def piece_table(lower_case: bool, keep_accents: bool) -> CharacterTable:
    """Measures what happens to characters before a SentencePiece model reads them; see `SentencePiece`.

    White space becomes a space, of the kind SPACE. Without accents a character is decomposed (NFKD) and combining marks
    are dropped, so nothing is left that NFKD would sort: characters can be looked at one by one.
    """
    steps = [] if keep_accents else [normalizers.NFKD(), normalizers.StripAccents()]
    steps += [normalizers.Lowercase()] if lower_case else []
    change = normalizers.Sequence(steps)

    def page(characters: list[str]) -> list[tuple[Element, ...]]:
        text = "".join(characters)
        if change.normalize_str(text) == text and not any(map(str.isspace, characters)):
            return [_SAME] * len(characters)
        return [_replaced(c, result) for c, result in zip(characters, _each(change, characters, _PRIVATE), strict=True)]

    return table_of(page)


def _replaced(character: str, result: str) -> tuple[Element, ...]:
    """Returns the elements of a character that becomes `result`."""
    # Python counts four separators of files and records as white space, Unicode does not.
    if character.isspace() and character not in "\x1c\x1d\x1e\x1f":
        return ((0, ord(" "), SPACE, 0),)
    if len(result) == 1 and result != " ":
        return ((1, ord(result) - ord(character), LETTER, 0),)
    return tuple((0, ord(c), SPACE if c == " " else LETTER, 0) for c in result)


def bert_normalizer(rules: Rules) -> normalizers.BertNormalizer:
    """Returns the normalizer that applies `rules`."""
    return normalizers.BertNormalizer(
        clean_text=rules.clean,
        handle_chinese_chars=rules.split_cjk,
        strip_accents=rules.strips_accents,
        lowercase=rules.lower_case,
    )


class _Measure:
    """Asks `tokenizers` what it does to characters, a page at a time."""

    def __init__(self, rules: Rules) -> None:
        self._whole = bert_normalizer(rules)
        self._strips = rules.strips_accents
        steps = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
        self._clean = normalizers.BertNormalizer(
            **steps | {"clean_text": rules.clean, "handle_chinese_chars": rules.split_cjk}
        )
        self._fold = normalizers.BertNormalizer(
            **steps | {"strip_accents": self._strips, "lowercase": rules.lower_case}
        )
        self._decompose = normalizers.NFD() if self._strips else None
        self._splitter = pre_tokenizers.BertPreTokenizer()
        self._ranks, self._combining = self._measure_ranks() if self._strips else ({}, set())

    def page(self, characters: list[str]) -> list[tuple[Element, ...]]:
        """Returns the elements of every character of a page; uniform pages are answered by one question each."""
        text = "".join(characters)
        if text and self._ranks.keys().isdisjoint(characters):
            result = self._whole.normalize_str(text)
            if result == text and len(self._splitter.pre_tokenize_str(text)) == 1:
                return [_SAME] * PAGE
            if result == "".join(f" {c} " for c in characters) and self._kinds(characters) == [LETTER] * PAGE:
                return [_SPACED] * PAGE
        if not self._clean.normalize_str(text):
            return [_GONE] * len(characters)
        cleaned = _each(self._clean, characters)
        decomposed = _each(self._decompose, cleaned) if self._decompose else cleaned
        parts = sorted(set("".join(decomposed)))
        folded = dict(zip(parts, _each(self._fold, parts), strict=True))
        outputs = sorted(set("".join(folded.values())))
        kinds = dict(zip(outputs, self._kinds(outputs), strict=True))
        return [self._elements(c, parts, folded, kinds) for c, parts in zip(characters, decomposed, strict=True)]

    def _elements(
        self, character: str, decomposed: str, folded: dict[str, str], kinds: dict[str, int]
    ) -> tuple[Element, ...]:
        letters = sum(kinds[output] != SPACE for part in decomposed for output in folded[part])
        entries: list[Element] = []
        for part in decomposed:
            rank = self._ranks.get(part, 0)
            for output in folded[part]:
                # One letter is stored as its distance, so that runs of alphabets and whole scripts share a list.
                relative = letters == 1 and kinds[output] != SPACE
                addend = ord(output) - ord(character) if relative else ord(output)
                entries.append((int(relative), addend, kinds[output], rank))
            if not folded[part] and part not in self._combining:
                # A dropped mark that is itself a starter still keeps its neighbours from being sorted.
                entries.append((0, 0, BREAK, 0))
        return tuple(entries)

    def _kinds(self, characters: list[str]) -> list[int]:
        """Classifies each character by what it does between two letters."""
        width = 4
        text = " ".join(f"{_FENCE}{character}{_FENCE}" for character in characters)
        kinds = [SPACE] * len(characters)
        for _, (start, end) in self._splitter.pre_tokenize_str(text):
            if end - start == 3:
                kinds[start // width] = LETTER
            elif start % width == 1:
                kinds[start // width] = ALONE
        return kinds

    def _measure_ranks(self) -> tuple[dict[str, int], set[str]]:
        """Returns the order of the combining characters that survive accent stripping, and all that NFD sorts."""
        candidates = [chr(c) for c in _COMBINING if c not in _SURROGATES and chr(c) != _FENCE]
        nfd = normalizers.NFD()
        before = _each(nfd, [_HIGHEST_MARK + c for c in candidates])
        behind = _each(nfd, [c + _LOWEST_MARK for c in candidates])
        moves = {
            c
            for c, left, right in zip(candidates, before, behind, strict=True)
            if left == c + _HIGHEST_MARK or right == _LOWEST_MARK + c
        }
        moves |= {_LOWEST_MARK, _HIGHEST_MARK}
        stays = [c for c in sorted(moves) if self._fold.normalize_str(c)]
        pairs = [c + other for c in stays for other in stays]
        swapped = np.array([a != b for a, b in zip(_each(nfd, pairs), pairs, strict=True)]).reshape(len(stays), -1)
        return {c: 1 + int(count) for c, count in zip(stays, swapped.sum(1), strict=True)}, moves


def _each(normalizer: normalizers.Normalizer, texts: list[str], fence: str = _FENCE) -> list[str]:
    """Normalizes many short texts in one call; nothing but `fence` may become `fence`."""
    if not texts:
        return []
    plain = ["" if text == fence else text for text in texts]
    results = normalizer.normalize_str(fence + fence.join(plain) + fence)[1:-1].split(fence)
    return [fence if text == fence else result for text, result in zip(texts, results, strict=True)]
