"""Questions to windows of token ids: `[CLS] question [SEP] piece of the context [SEP]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from appzoo.text_comprehension.questions import Asked, Gold
from easytransfer.app.inputs.base import Column, Encoded
from easytransfer.data.encoded import HostColumn, Ragged
from easytransfer.errors import ConfigError
from easytransfer.text.tokenizer import Tokenizer

# Places of a window beside those of the question and of what stands between the texts: two special tokens and one token
# of the context.
_LEAST_ROOM = 3


@dataclass(frozen=True, eq=False)
class Window:
    """One example: a question with one piece of its context.

    Attributes:
        asked: The question.
        first: Number of the first token of the piece among those of the context.
        spans: Start and end in characters of the context of every token of the piece, int [tokens, 2].
        offset: Position in the sequence of the first of these tokens.
        widest: Whether no other window of the question shows more context around the token, bool [tokens].
    """

    asked: Asked
    first: int
    spans: np.ndarray
    offset: int
    widest: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Returns the window as what JSON has."""
        arrays = {"spans": self.spans.tolist(), "widest": self.widest.astype(int).tolist()}
        return {"asked": self.asked.to_json(), "first": self.first, "offset": self.offset, **arrays}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Window:
        """Returns the window of `to_json`."""
        asked, spans = Asked.from_json(value["asked"]), np.array(value["spans"], np.int32).reshape(-1, 2)
        return cls(asked, value["first"], spans, value["offset"], np.array(value["widest"], bool))

    @property
    def length(self) -> int:
        """Tokens of the whole sequence, special tokens included."""
        return self.offset + len(self.spans) + 1

    def positions(self, answer: tuple[int, int] | None) -> tuple[int, int]:
        """Returns where an answer stands in the sequence; twice the position 0 of [CLS] when it is not all there.

        Args:
            answer: First and last token of the context, None for no answer.
        """
        if answer is None or answer[0] < self.first or answer[1] >= self.first + len(self.spans):
            return 0, 0
        return answer[0] - self.first + self.offset, answer[1] - self.first + self.offset


@dataclass(kw_only=True)
class EncodedQuestions(Encoded):
    """The windows of questions as examples: the arrays of the model, and on the host `window`, see `Window.to_json`.

    Attributes:
        windows: Window of every example.
        query_lengths: Tokens of every question, those that are cut off too, int [questions].
        spans: Start and end in characters of every token of the context of each question, int [tokens, 2].
    """

    windows: list[Window]
    query_lengths: np.ndarray
    spans: list[np.ndarray]


class WindowEncoder:
    """Cuts contexts into overlapping windows (BERT for SQuAD, arXiv 1810.04805, section 4.2).

    Args:
        tokenizer: Tokenizer of the encoder.
        sequence_length: Tokens of a window at most, special tokens included.
        max_query_length: Tokens of the question that are kept.
        doc_stride: Tokens from the start of one window to the start of the next, never more than a window holds.
        history_turns: Earlier answers that are marked, each in examples of its own; None without history.

    Raises:
        ConfigError: A window has no room for the context behind the longest question.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        sequence_length: int,
        max_query_length: int,
        doc_stride: int,
        history_turns: int | None = None,
    ) -> None:
        least = max_query_length + tokenizer.between + _LEAST_ROOM
        if sequence_length < least:
            raise ConfigError(
                "sequenceLength leaves no room for the context behind a question of max_query_length tokens",
                received=sequence_length,
                accepted=f"at least {least}",
                fix="raise sequenceLength or lower max_query_length",
            )
        self.tokenizer = tokenizer
        self.sequence_length, self.max_query_length, self.doc_stride = sequence_length, max_query_length, doc_stride
        self.history_turns = history_turns

    def encode(self, asked: Sequence[Asked]) -> EncodedQuestions:
        """Encodes questions; each different context is tokenized once."""
        queries = self.tokenizer.pieces([one.question for one in asked])
        contexts = dict.fromkeys(one.context for one in asked)
        text_of = {text: number for number, text in enumerate(contexts)}
        ids, spans = self.tokenizer.pieces_with_offsets(list(contexts))
        windows: list[Window] = []
        lists: dict[str, list[np.ndarray]] = {"input_ids": [], "segment_ids": []}
        if self.history_turns is not None:
            lists["history_answer_marker"] = []
        rows: list[int] = []
        spans_of = [spans[text_of[one.context]] for one in asked]
        for row, one in enumerate(asked):
            query = queries[row][: self.max_query_length]
            for window, arrays in self._examples(one, query, ids[text_of[one.context]], spans_of[row]):
                windows.append(window)
                rows.append(row)
                for name, values in arrays.items():
                    lists[name].append(values)
        columns: dict[str, Column] = {name: Ragged.from_lists(values) for name, values in lists.items()}
        columns["window"] = HostColumn.of(window.to_json() for window in windows)
        row_of, lengths = np.array(rows, np.int64), queries.lengths
        counts = self._counts(columns["input_ids"], row_of, lengths)
        return EncodedQuestions(columns, counts, row_of, windows=windows, query_lengths=lengths, spans=spans_of)

    def _counts(self, ids: Ragged, row_of: np.ndarray, query_lengths: np.ndarray) -> dict[str, np.ndarray]:
        row_of_token, questions = np.repeat(row_of, ids.lengths), len(query_lengths)
        return {
            "truncated": query_lengths > self.max_query_length,
            "tokens": np.bincount(row_of_token, minlength=questions),
            "unknown": np.bincount(row_of_token[ids.values == self.tokenizer.unk_id], minlength=questions),
        }

    def _examples(
        self, asked: Asked, query: np.ndarray, ids: np.ndarray, spans: np.ndarray
    ) -> Iterator[tuple[Window, dict[str, np.ndarray]]]:
        """Yields every window of a question with its arrays, once for each remembered turn.

        Args:
            asked: The question.
            query: Its tokens, int [query tokens].
            ids: Tokens of its context, int [tokens].
            spans: Start and end of each of them in characters, int [tokens, 2].
        """
        # What the special tokens and the question leave of the sequence.
        room = self.sequence_length - len(query) - 2 - self.tokenizer.between
        starts = window_starts(len(ids), room, self.doc_stride)
        widest = widest_windows(starts, len(ids), room)
        tokenizer, offset = self.tokenizer, len(query) + 1 + self.tokenizer.between
        between = [tokenizer.sep_id] * tokenizer.between
        for turn in self._turns(asked):
            marked = np.zeros(len(ids), np.int32)
            if turn is not None and (span := token_span(spans, turn)) is not None:
                marked[span[0] : span[1] + 1] = 1
            for start, flags in zip(starts, widest, strict=True):
                piece = slice(start, start + room)
                window = Window(asked, start, spans[piece], offset, flags)
                sequence = [[tokenizer.cls_id], query, between, ids[piece], [tokenizer.sep_id]]
                arrays = {"input_ids": np.concatenate(sequence).astype(np.int32)}
                is_context = np.arange(window.length) >= offset
                arrays["segment_ids"] = is_context.astype(np.int32) * tokenizer.second_segment
                if self.history_turns is not None:
                    arrays["history_answer_marker"] = np.concatenate([np.zeros(offset), marked[piece], [0]])
                yield window, arrays

    def _turns(self, asked: Asked) -> Sequence[Gold | None]:
        if self.history_turns is None or not asked.history:
            return [None]
        return asked.history[-self.history_turns :]


def token_span(spans: np.ndarray, gold: Gold) -> tuple[int, int] | None:
    """Returns the first and last token that hold a character of an answer, None when there is none."""
    inside = np.flatnonzero((spans[:, 1] > gold.start) & (spans[:, 0] < gold.end))
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def window_starts(tokens: int, room: int, stride: int) -> list[int]:
    """Returns the first token of every window of `room` tokens; the last one reaches the end of the context."""
    stride = min(stride, room)
    return [0, *range(stride, tokens - room + stride, stride)] if tokens > room else [0]


def widest_windows(starts: Sequence[int], tokens: int, room: int) -> list[np.ndarray]:
    """Returns for every window which of its tokens have no more context in another one, bool [tokens of the window].

    The context of a token is the smaller of the numbers of tokens before and behind it in the window, and to break
    ties a hundredth of the window's tokens; the first of equal windows has it.
    """
    if len(starts) == 1:
        return [np.ones(tokens, bool)]
    place = np.arange(tokens)
    first = np.array(starts)[:, None]
    end = np.minimum(first + room, tokens)
    context = 100 * np.minimum(place - first, end - 1 - place) + (end - first)
    best = np.where((place >= first) & (place < end), context, -1).argmax(axis=0)
    return [best[start : start + room] == number for number, start in enumerate(starts)]
