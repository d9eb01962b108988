"""Patterns: how a text becomes a row with a mask, and verbalizers: which words at the mask stand for which label.

Imports no TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from easytransfer.text.packing import FIRST, SECOND, Layout
from easytransfer.text.tokenizer import Tokenizer

TEXT, TEXT2, MASK, PROMPT = "{text}", "{text2}", "[MASK]", "[P]"
_PLACE = re.compile(r"(\{text2?\}|\[MASK\]|\[P\])")
_BRACES = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True)
class Part:
    """A piece of a pattern.

    Attributes:
        text: `TEXT`, `TEXT2`, `MASK`, `PROMPT`, or words.
        is_word: Whether it is words.
        spaced: Whether it stands behind white space.
    """

    text: str
    is_word: bool
    spaced: bool


def parts_of(pattern: str) -> list[Part]:
    """Returns the parts of a pattern, in their order.

    Raises:
        ValueError: It has not one {text} and one [MASK], or names another place.
    """
    found, spaced = [], False
    for piece in _PLACE.split(pattern):
        is_word = _PLACE.fullmatch(piece) is None
        if is_word and (unknown := _BRACES.search(piece)):
            raise ValueError(f"pattern: {unknown[0]} is no place; accepted: {TEXT}, {TEXT2}, {MASK}, {PROMPT}")
        if text := piece.strip():
            found.append(Part(text, is_word, spaced or piece[0].isspace()))
            spaced = False
        spaced = spaced or (bool(piece) and piece[-1].isspace())
    for place, least in ((TEXT, 1), (MASK, 1), (TEXT2, 0)):
        count = sum(part.text == place for part in found)
        if not least <= count <= 1:
            raise ValueError(f"pattern: {pattern!r} has {place} {count} times; it must be there once")
    return found


def verbalizer_of(spec: str | None, labels: Sequence[str]) -> list[str]:
    """Returns the words that stand for each label; without a specification the names of the labels themselves.

    Args:
        spec: `label:words,label:words`.
        labels: Names of the classes.

    Raises:
        ValueError: A label has no words or several, or is unknown.
    """
    if spec is None:
        return list(labels)
    words: dict[str, str] = {}
    for entry in spec.split(","):
        label, colon, text = (part.strip() for part in entry.rpartition(":"))
        if not colon or not label or not text:
            raise ValueError(f"verbalizer: {entry.strip()!r} is not label:words")
        if label in words:
            raise ValueError(f"verbalizer: the label {label!r} has words twice")
        words[label] = text
    if unknown := [label for label in words if label not in labels]:
        raise ValueError(f"verbalizer: {unknown[0]!r} is no label; labels: {', '.join(labels)}")
    if missing := [label for label in labels if label not in words]:
        raise ValueError(f"verbalizer: the label {missing[0]!r} has no words")
    return [words[label] for label in labels]


def verbalizer_pieces(words: Sequence[str], labels: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Returns the pieces of the words of each label, as they are behind a space.

    Raises:
        ValueError: Words have no pieces or unknown ones, or two labels have the same.
    """
    split = [tokenizer.word_pieces(text.split()).values.tolist() for text in words]
    for label, text, pieces in zip(labels, words, split, strict=True):
        if not pieces or tokenizer.unk_id in pieces:
            raise ValueError(f"verbalizer: {text!r} of the label {label!r} is not in the vocabulary; take other words")
    for number, pieces in enumerate(split):
        if pieces in split[:number]:
            raise ValueError(
                f"verbalizer: the labels {labels[split.index(pieces)]!r} and {labels[number]!r} have the same pieces "
                f"({words[number]!r})"
            )
    return split


@dataclass(frozen=True)
class PatternLayout:
    """Where everything of a pattern stands in a row, for one tokenizer.

    Attributes:
        layout: The row's, with the pieces of the pattern as if they were special tokens.
        ids: Ids of all parts by name.
        slots: What says of each part what the network does there: -i for the i-th mask, i for the i-th prompt, 0 else.
        spaced: Which texts stand behind white space.
        prompts: Number of trainable prompts.
    """

    layout: Layout
    ids: dict[str, int]
    slots: dict[str, int]
    spaced: dict[str, bool]
    prompts: int

    @classmethod
    def of(cls, pattern: str, tokenizer: Tokenizer, masks: int) -> PatternLayout:
        """Reads a pattern.

        Args:
            pattern: See `parts_of`.
            tokenizer: Of the encoder.
            masks: Masks that stand for [MASK]: as many as the longest words of a label have pieces.
        """
        names: list[str] = []
        ids, slots = dict(tokenizer.special_ids), dict.fromkeys(tokenizer.special_ids, 0)
        spaced, prompts = {}, 0
        for part in parts_of(pattern):
            if part.text in (TEXT, TEXT2):
                name = FIRST if part.text == TEXT else SECOND
                names.append(name)
                spaced[name] = part.spaced
                continue
            if part.is_word:
                pieces = tokenizer.pieces([f" {part.text}" if part.spaced else part.text]).values.tolist()
                marks = [0] * len(pieces)
            elif part.text == MASK:
                pieces, marks = [tokenizer.mask_id] * masks, list(range(-1, -masks - 1, -1))
            else:
                prompts += 1
                # Stands for a vector that has no piece.
                pieces, marks = [tokenizer.unk_id], [prompts]
            for piece, mark in zip(pieces, marks, strict=True):
                name = f"pattern_{len(names)}"
                names.append(name)
                ids[name], slots[name] = piece, mark
        row = tuple(
            (name, segment)
            for part, segment in tokenizer.layout.single
            for name in (names if part == FIRST else [part])
        )
        return cls(Layout(row, row), ids, slots, spaced, prompts)
