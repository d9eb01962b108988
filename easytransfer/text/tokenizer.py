"""What every tokenizer of a pre-trained encoder does; which one it is, the preset says.

A kind of its own is a subclass of `Tokenizer` for training and prediction, and one of `graph.GraphTokenizer` that gives
the same ids inside a TensorFlow graph, for serving. Imports no TensorFlow.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from easytransfer.data.encoded import Ragged
from easytransfer.data.values import is_utf8
from easytransfer.errors import DataError
from easytransfer.run.atomic import atomic_path
from easytransfer.text.packing import CLS_FIRST, Layout, heads, longest_first

if TYPE_CHECKING:
    from easytransfer.text.graph import GraphTokenizer

# Roles of special tokens; each is an attribute with `_id` behind its name.
ROLES = ("pad", "unk", "cls", "sep", "mask")


@dataclass
class Tokens:
    """Encoded rows, without padding.

    Attributes:
        input_ids: Pieces and special tokens as the layout of the tokenizer has them, such as `[CLS] a [SEP]` or
            `[CLS] a [SEP] b [SEP]`, int32.
        segment_ids: Segments by the same layout, such as 0 up to the first [SEP], 1 behind it, int32.
        truncated: Whether pieces of the row were cut off, bool [N].
        unknown: Number of [UNK] pieces kept in the row, int64 [N].
    """

    input_ids: Ragged
    segment_ids: Ragged
    truncated: np.ndarray
    unknown: np.ndarray


class Tokenizer(abc.ABC):
    """Turns text into the ids of pieces.

    Names of special tokens inside the text are ordinary text: `[SEP]` typed by a user does not end a sequence.

    Args:
        vocab: Pieces in the order of their ids.
        special: The special token of each of `ROLES`, all of them in `vocab`.

    Attributes:
        layout: Where the special tokens of a row stand.
        vocab: Pieces in the order of their ids.
        pad_id: Id of the padding; `unk_id`, `cls_id`, `sep_id` and `mask_id` likewise.
    """

    layout: ClassVar[Layout] = CLS_FIRST

    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    def __init__(self, vocab: Sequence[str], special: Iterable[str]) -> None:
        self.vocab = list(vocab)
        ids = {token: number for number, token in enumerate(self.vocab)}
        for role, token in zip(ROLES, special, strict=True):
            setattr(self, f"{role}_id", ids[token])

    # What a kind has to say --------------------------------------------------------------------------------------

    @classmethod
    @abc.abstractmethod
    def from_folder(cls, folder: str | Path, lower_case: bool | None = None) -> Self:
        """Loads the tokenizer of a model folder.

        Args:
            folder: Model folder.
            lower_case: Overrides the casing that the files state.

        Raises:
            ModelError: Files are missing, not valid, or contradict each other.
        """

    @classmethod
    @abc.abstractmethod
    def is_in(cls, folder: Path) -> bool:
        """Returns whether a model folder holds a vocabulary of this kind."""

    @property
    @abc.abstractmethod
    def files(self) -> tuple[str, ...]:
        """Names of the files that `save` writes."""

    @abc.abstractmethod
    def save(self, folder: str | Path) -> None:
        """Writes `files`, from which `from_folder` makes an equal tokenizer; each as a whole or not at all."""

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """SHA-256 over vocabulary and rules: equal digests give equal ids."""

    @abc.abstractmethod
    def pieces(self, texts: Sequence[str]) -> Ragged:
        """Returns the piece ids of every text, int32, without special tokens and not truncated.

        A text that consists of what the rules drop has none.

        Raises:
            DataError: A text holds half of a surrogate pair, or is none.
        """

    @abc.abstractmethod
    def pieces_with_offsets(self, texts: Sequence[str]) -> tuple[Ragged, Ragged]:
        """Returns the ids of `pieces` and where each piece stands in its text.

        Returns:
            Ids, int32, and spans, int32 [pieces, 2]: first character of the text and the one behind the last. A piece
            that stands for no character has an empty span.
        """

    @abc.abstractmethod
    def in_graph(self, max_length: int = 128, folder: Path | None = None) -> GraphTokenizer:
        """Returns the same encoding inside a graph.

        Args:
            max_length: Bound of a row, special tokens included.
            folder: Where `save` has written, which outlives the graph; None keeps files of its own.

        Raises:
            ConfigError: `max_length` leaves no room for text.
        """

    @property
    @abc.abstractmethod
    def continues(self) -> np.ndarray:
        """Whether each piece of the vocabulary continues the word of the piece before it, bool [vocabulary]."""

    @abc.abstractmethod
    def join(self, pieces: Sequence[str]) -> str:
        """Returns the text of pieces."""

    # What all have in common -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.vocab)

    def word_pieces(self, words: Sequence[str]) -> Ragged:
        """Returns the ids of words of texts that were split at white space, each as it is behind a space."""
        return self.pieces(words)

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids of the special tokens by their roles."""
        return {role: getattr(self, f"{role}_id") for role in ROLES}

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 128) -> Tokens:
        """Encodes single texts, or pairs of texts, to at most `max_length` pieces per row.

        Of a pair, the longer text is cut from its end until both have the same length, then both. Where both lose
        pieces and the room is odd, the longer text keeps the odd piece, or the second one when both are equally
        long: this is what `transformers` does (the original gave it to the first in that tie).

        Args:
            texts: First texts, N strings.
            pairs: Second texts, N strings, or None.
            max_length: Bound of a row, special tokens included.

        Raises:
            ConfigError: `max_length` leaves no room for text.
            DataError: A text holds half of a surrogate pair, or is none.
            ValueError: `pairs` differs in length from `texts`.
        """
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} texts but {len(pairs)} pairs")
        self.layout.room(max_length, pairs is not None)  # before the work
        return self.pack(self.pieces(texts), None if pairs is None else self.pieces(pairs), max_length)

    def pack(self, first: Ragged, second: Ragged | None, max_length: int) -> Tokens:
        """Returns rows of pieces, cut and put between special tokens as `encode` does.

        Args:
            first: Pieces of first texts.
            second: Pieces of second texts, or None.
            max_length: Bound of a row, special tokens included.

        Raises:
            ConfigError: `max_length` leaves no room for text.
        """
        room = self.layout.room(max_length, second is not None)
        if second is None:
            kept = np.minimum(first.lengths, room)
            return self._tokens(heads(first, kept), None, first.lengths > kept)
        kept_first, kept_second = longest_first(first.lengths, second.lengths, room)
        cut = (first.lengths > kept_first) | (second.lengths > kept_second)
        return self._tokens(heads(first, kept_first), heads(second, kept_second), cut)

    def assemble(self, first: Ragged, second: Ragged | None = None) -> tuple[Ragged, Ragged]:
        """Puts pieces between the special tokens of a row; see `Layout.assemble`."""
        return self.layout.assemble(self.special_ids, first, second)

    def tokenize(self, text: str) -> list[str]:
        """Returns the pieces of a text, without special tokens."""
        return [self.vocab[number] for number in self.pieces([text]).values]

    def offsets(self, text: str) -> list[tuple[str, int, int]]:
        """Returns every piece of a text with its start and end in characters of that text."""
        ids, spans = self.pieces_with_offsets([text])
        return [(self.vocab[number], *span) for number, span in zip(ids.values, spans.values.tolist(), strict=True)]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns readable text for piece ids; padding, [CLS], [SEP] and [MASK] are left out, [UNK] stays.

        Raises:
            ValueError: An id is not in the vocabulary.
        """
        ids = [int(number) for number in ids]
        wrong = [number for number in ids if not 0 <= number < len(self.vocab)]
        if wrong:
            raise ValueError(f"ids {wrong[:5]} are not in the vocabulary of {len(self.vocab)} tokens")
        left_out = {self.pad_id, self.cls_id, self.sep_id, self.mask_id}
        return self.join([self.vocab[number] for number in ids if number not in left_out])

    def _tokens(self, first: Ragged, second: Ragged | None, cut: np.ndarray) -> Tokens:
        """Returns rows of the pieces that are kept; `cut` says which rows lost some."""
        ids, segments = self.assemble(first, second)
        # Every row has special tokens, so no range of reduceat is empty.
        is_unknown = (ids.values == self.unk_id).astype(np.int64)
        unknown = np.add.reduceat(is_unknown, ids.offsets[:-1]) if len(ids) else np.zeros(0, np.int64)
        return Tokens(ids, segments, cut, unknown)


def not_a_text(texts: Iterable[object]) -> DataError | None:
    """Returns the error for the first of `texts` that is none; readers of tables refuse such rows themselves."""
    wrong = next((text for text in texts if not isinstance(text, str) or not is_utf8(text)), None)
    if wrong is None:
        return None
    fix = "half of a surrogate pair is no character"
    return DataError("not a text", received=ascii(wrong)[:80], accepted="strings", fix=fix)


def write_file(path: Path, text: str) -> None:
    """Writes a text file as a whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
