"""Questions to windows of token ids: `[CLS] question [SEP] piece of the context [SEP]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from appzoo.text_comprehension.questions import Asked, Gold
from easytransfer.data.encoded import Ragged
from easytransfer.text.wordpiece import WordPiece


@dataclass(frozen=True, eq=False)
class Window:
    """One example: a question with one piece of its context.

    Attributes:
        asked: The question.
        spans: Start and end in characters of the context of every token of the piece, int [tokens, 2].
        offset: Position in the sequence of the first of these tokens.
        widest: Whether no other window of the question shows more context around the token, bool [tokens].
    """

    asked: Asked
    spans: np.ndarray
    offset: int
    widest: np.ndarray

    @property
    def length(self) -> int:
        """Tokens of the whole sequence, special tokens included."""
        return self.offset + len(self.spans) + 1


class WindowEncoder:
    """Cuts contexts into overlapping windows (BERT for SQuAD, arXiv 1810.04805, section 4.2).

    Args:
        tokenizer: Tokenizer of the encoder.
        sequence_length: Tokens of a window at most, special tokens included.
        max_query_length: Tokens of the question that are kept.
        doc_stride: Tokens from the start of one window to the start of the next, never more than a window holds.
        history_turns: Earlier answers that are marked, each in examples of its own; None without history.
    """

    def __init__(
        self,
        tokenizer: WordPiece,
        sequence_length: int,
        max_query_length: int,
        doc_stride: int,
        history_turns: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_query_length, self.doc_stride = max_query_length, doc_stride
        self.history_turns = history_turns
        self._length = sequence_length
        self._texts: dict[str, int] = {}

    def read(self, asked: Sequence[Asked]) -> None:
        """Tokenizes questions and contexts, each different text once; `encode` takes rows of these."""
        self.asked = list(asked)
        self.queries = self.tokenizer.pieces([one.question for one in asked])
        contexts = dict.fromkeys(one.context for one in asked)
        self._texts = {text: row for row, text in enumerate(contexts)}
        self.ids, self.spans = self.tokenizer.pieces_with_offsets(list(contexts))

    @property
    def cut(self) -> np.ndarray:
        """Which questions lose tokens, bool [questions]."""
        return self.queries.lengths > self.max_query_length

    def context_of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids [tokens] and spans [tokens, 2] of the context of a question."""
        text = self._texts[self.asked[row].context]
        return self.ids[text], self.spans[text]

    def encode(self, rows: Sequence[int], with_labels: bool) -> tuple[dict[str, Ragged | np.ndarray], np.ndarray]:
        """Encodes questions.

        Args:
            rows: Questions of `read`.
            with_labels: Add the positions of the first right answer.

        Returns:
            Columns with one entry per window, and for each the position in `rows` of its question.
        """
        windows: list[Window] = []
        lists: dict[str, list[np.ndarray]] = {"input_ids": [], "segment_ids": []}
        if self.history_turns is not None:
            lists["history_answer_marker"] = []
        positions: list[tuple[int, int]] = []
        row_of: list[int] = []
        for place, row in enumerate(rows):
            for window, arrays, position in self._examples(row):
                windows.append(window)
                positions.append(position)
                row_of.append(place)
                for name, values in arrays.items():
                    lists[name].append(values)
        columns: dict[str, Ragged | np.ndarray] = {name: Ragged.from_lists(values) for name, values in lists.items()}
        columns["window"] = np.empty(len(windows), object)
        columns["window"][:] = windows
        if with_labels:
            places = np.array(positions, np.int32).reshape(-1, 2)
            columns["start_position"], columns["end_position"] = places[:, 0], places[:, 1]
        return columns, np.array(row_of, np.int64)

    def _examples(self, row: int) -> Iterator[tuple[Window, dict[str, np.ndarray], tuple[int, int]]]:
        """Yields every window of a question, once for each remembered turn: window, arrays, answer positions."""
        asked, (ids, spans) = self.asked[row], self.context_of(row)
        query = self.queries[row][: self.max_query_length]
        # What [CLS], the question and two [SEP] leave of the sequence.
        room = self._length - len(query) - 3
        starts = window_starts(len(ids), room, self.doc_stride)
        widest = widest_windows(starts, len(ids), room)
        answer = token_span(spans, asked.golds[0]) if asked.golds else None
        tokenizer, offset = self.tokenizer, len(query) + 2
        for turn in self._turns(asked):
            marked = np.zeros(len(ids), np.int32)
            if turn is not None and (span := token_span(spans, turn)) is not None:
                marked[span[0] : span[1] + 1] = 1
            for start, flags in zip(starts, widest, strict=True):
                piece = slice(start, start + room)
                window = Window(asked, spans[piece], offset, flags)
                sequence = [[tokenizer.cls_id], query, [tokenizer.sep_id], ids[piece], [tokenizer.sep_id]]
                arrays = {"input_ids": np.concatenate(sequence).astype(np.int32)}
                arrays["segment_ids"] = (np.arange(window.length) >= offset).astype(np.int32)
                if self.history_turns is not None:
                    arrays["history_answer_marker"] = np.concatenate([np.zeros(offset), marked[piece], [0]])
                yield window, arrays, _positions(answer, start, len(window.spans), offset)

    def _turns(self, asked: Asked) -> Sequence[Gold | None]:
        if self.history_turns is None or not asked.history:
            return [None]
        return asked.history[-self.history_turns :]


def _positions(answer: tuple[int, int] | None, start: int, length: int, offset: int) -> tuple[int, int]:
    """Returns the positions of an answer in a window's sequence; the position 0 of [CLS] when it is not all there."""
    if answer is None or answer[0] < start or answer[1] >= start + length:
        return 0, 0
    return answer[0] - start + offset, answer[1] - start + offset


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
