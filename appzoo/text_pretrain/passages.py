"""Documents to passages that fit the network: whole sentences as far as possible, no piece left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from easytransfer.data.encoded import Ragged

Span = tuple[int, int]
# Ends of sentences: marks with what closes behind them and a space, or Chinese and Japanese ones, which need none.
_END = re.compile(r"""[.!?…]+["'”’»)\]]*\s+|[。！？]+[”’」』）】]*\s*""")


class Pieces(Protocol):
    """What passages need of a tokenizer."""

    def pieces(self, texts: Sequence[str]) -> Ragged:
        """Returns the ids of the pieces of every text."""

    def pieces_with_offsets(self, texts: Sequence[str]) -> tuple[Ragged, Ragged]:
        """Returns them and where each stands, see `Tokenizer.pieces_with_offsets`."""


@dataclass(frozen=True)
class Passage:
    """A part of a document; of a pair `second` follows `first`.

    Attributes:
        first: Text.
        second: Text behind it, empty where passages are no pairs.
    """

    first: str
    second: str = ""


def on_one_line(text: str) -> str:
    """Returns a passage as the network reads it: some tokenizers have a piece for the end of a line, or know none."""
    return text.replace("\n", " ")


def sentence_spans(text: str) -> list[Span]:
    """Returns start and end of every sentence: lines where the text has several, else by their marks; none is empty."""
    text_end = len(text.rstrip())
    ends = [found.end() for found in (re.finditer(r"\n", text) if "\n" in text.strip() else _END.finditer(text))]
    starts = [0, *(end for end in ends if end < text_end)]
    spans = zip(starts, [*starts[1:], len(text)], strict=True)
    # Without the spaces around.
    inner = [(start + _leading(text[start:end]), start + len(text[start:end].rstrip())) for start, end in spans]
    return [(start, end) for start, end in inner if start < end]


def _leading(text: str) -> int:
    return len(text) - len(text.lstrip())


class Cutter:
    """Cuts documents into passages.

    A passage takes sentences as long as they fit; a sentence that is longer than a passage is cut between pieces. What
    becomes of a document depends on the seed and its number alone.

    Args:
        tokenizer: Counts pieces, and says where they stand.
        room: Pieces of text in a passage.
        seed: Seed of all choices.
        short_passages: Share of passages with a room drawn between 2 and `room`, so that the network sees short texts.
        paired: Whether a passage is two neighbouring segments (BERT, arXiv 1810.04805, section A.2).
    """

    def __init__(
        self, tokenizer: Pieces, room: int, *, seed: int, short_passages: float = 0.0, paired: bool = False
    ) -> None:
        self._tokenizer, self._room, self._seed = tokenizer, room, seed
        self._short, self._paired = short_passages, paired

    def cut(self, texts: Sequence[str], numbers: Sequence[int]) -> list[list[Passage]]:
        """Returns the passages of every document, none for one without pieces or, of pairs, with a single one.

        Args:
            texts: Documents.
            numbers: Number of each document in its table.
        """
        spans = [sentence_spans(text) for text in texts]
        flat = [text[start:end] for text, found in zip(texts, spans, strict=True) for start, end in found]
        lengths = self._tokenizer.pieces(flat).lengths.tolist() if flat else []
        found, at = [], 0
        for text, own, number in zip(texts, spans, numbers, strict=True):
            counts, at = lengths[at : at + len(own)], at + len(own)
            units = [unit for span, count in zip(own, counts, strict=True) for unit in self._units(text, span, count)]
            found.append(self._passages(text, units, np.random.Generator(np.random.PCG64([self._seed, int(number)]))))
        return found

    def _units(self, text: str, span: Span, count: int) -> list[tuple[Span, int]]:
        """Returns a sentence with its pieces, in parts where it is longer than a passage."""
        if count <= self._room:
            return [(span, count)] if count else []
        return self._parts(text, span, self._room)

    def _parts(self, text: str, span: Span, most: int) -> list[tuple[Span, int]]:
        """Returns a text in parts of `most` pieces."""
        start = span[0]
        _, places = self._tokenizer.pieces_with_offsets([text[start : span[1]]])
        begins = places.values[::most, 0].tolist()
        # Pieces of one character may begin at the same place: a part must not be empty.
        begins = [0, *(b for a, b in zip(begins, begins[1:], strict=False) if b > a)]
        ends = [*begins[1:], span[1] - start]
        counts = [len(places.values[i * most : (i + 1) * most]) for i in range(len(begins))]
        return [((start + a, start + b), count) for a, b, count in zip(begins, ends, counts, strict=True)]

    def _passages(self, text: str, units: list[tuple[Span, int]], draw: np.random.Generator) -> list[Passage]:
        found: list[Passage] = []
        while units:
            room = int(draw.integers(2, self._room + 1)) if draw.random() < self._short else self._room
            taken = total = 0
            while taken < len(units) and (not taken or total + units[taken][1] <= room):
                total += units[taken][1]
                taken += 1
            passage = self._passage(text, units[:taken], draw)
            found.extend([passage] if passage else [])
            units = units[taken:]
        return found

    def _passage(self, text: str, units: list[tuple[Span, int]], draw: np.random.Generator) -> Passage | None:
        (start, _), (_, end) = units[0][0], units[-1][0]
        if not self._paired:
            return Passage(text[start:end])
        if len(units) == 1:
            # A sentence alone is cut between two of its pieces.
            count = units[0][1]
            units = self._parts(text, units[0][0], int(draw.integers(1, count))) if count > 1 else units
            if len(units) == 1:
                return None
            cut = units[1][0][0]
        else:
            cut = units[int(draw.integers(1, len(units)))][0][0]
        return Passage(text[start:cut].rstrip(), text[cut:end])
