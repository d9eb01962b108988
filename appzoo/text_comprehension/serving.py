"""The whole way from raw texts to the answer inside a TensorFlow graph, for serving."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from appzoo.text_comprehension.model import PADDING
from appzoo.text_comprehension.search import Search
from appzoo.text_comprehension.windows import WindowEncoder
from easytransfer.text.graph import GraphTokenizer

# (context, question) every export is checked on: plain, another script, empty, control characters, many windows. No
# text repeats itself, since then equal windows would compete and rounding would pick one.
SAMPLES = (
    ("The old mill was built in 1832 by Anna Kessler, a baker from Graz.", "Who built the mill?"),
    ("桥建于一九三七年。它连接两岸。Ünïcode cafe\u0301 👍", "桥建于哪一年？"),
    ("", ""),
    ("tabs\tand\x07bells ring at noon", " ".join(f"why {number}" for number in range(90))),
    (" ".join(f"House number {number} is painted {number * number}." for number in range(120)), "What colour is it?"),
)
_no_autograph = tf.autograph.experimental.do_not_convert


class GraphQuestions(tf.Module):
    """Cuts contexts into windows as `WindowEncoder` does, with TensorFlow operators only.

    Args:
        tokenizer: In-graph tokenizer of the encoder.
        windows: The same encoding outside, for its lengths.
    """

    def __init__(self, tokenizer: GraphTokenizer, windows: WindowEncoder) -> None:
        super().__init__(name="questions")
        self._tokenizer, self._windows = tokenizer, windows

    @_no_autograph
    def __call__(
        self,
        context: tf.Tensor,
        question: tf.Tensor,
        history_start: tf.Tensor | None = None,
        history_end: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Encodes questions.

        Args:
            context: Texts to answer from, valid UTF-8, string [rows].
            question: string [rows].
            history_start: Where earlier answers start, in characters, int32 [rows, turns]; -1 fills. None = no history.
            history_end: Where they end, the same.

        Returns:
            Arrays with the window as first axis: `input_ids`, `input_mask`, `segment_ids` and, with history,
            `history_answer_marker`, int32 [windows, tokens]; the row as `owner`, int64 [windows]; start and end in
            characters of the context of every token as `token_start` and `token_end`, -1 outside of the context, int32
            [windows, tokens]; and as `widest`, bool [windows, tokens], whether it has most context in this window.
        """
        ids, spans = self._tokenizer.pieces_with_offsets(context)
        query = self._tokenizer.pieces(question)
        query_length = tf.minimum(query.row_lengths(), self._windows.max_query_length)
        query = _slices(query.values, query.row_starts(), query_length)
        special = 2 + self._tokenizer.between
        tokens, room = ids.row_lengths(), self._windows.sequence_length - special - query_length
        stride = tf.minimum(room, self._windows.doc_stride)
        windows = 1 + (tf.maximum(tokens - room, 0) + stride - 1) // stride
        turn_row, turn_start, turn_end = self._turns(tf.size(context, tf.int64), history_start, history_end)
        # One run of windows per remembered turn; without turns, one run per row.
        number = tf.ragged.range(tf.gather(windows, turn_row))
        turn, number = number.value_rowids(), number.values
        owner = tf.gather(turn_row, turn)
        first = number * tf.gather(stride, owner)
        length = tf.minimum(tf.gather(room, owner), tf.gather(tokens, owner) - first)
        places = tf.ragged.range(
            tf.gather(ids.row_starts(), owner) + first, tf.gather(ids.row_starts(), owner) + first + length
        )
        part = places.with_values(tf.gather(ids.values, places.values))
        part_spans = tf.gather(spans.values, places.values)
        # Windows of different turns are different windows of the same tokens.
        token = places.values + tf.gather(turn, places.value_rowids()) * tf.size(ids.values, tf.int64)
        widest = _widest(places, token, length, tf.size(turn_row, tf.int64), tf.size(ids.values, tf.int64))
        query = _slices(query.values, tf.gather(query.row_starts(), owner), tf.gather(query.row_lengths(), owner))
        build = _Builder(self._tokenizer, query, part)
        batch = build.batch()
        if history_start is not None:
            inside = places.with_values(
                (part_spans[:, 1] > tf.gather(tf.gather(turn_start, turn), places.value_rowids()))
                & (part_spans[:, 0] < tf.gather(tf.gather(turn_end, turn), places.value_rowids()))
            )
            batch["history_answer_marker"] = build.dense(tf.cast(inside.values, tf.int32), 0)
        return {
            **batch,
            "owner": owner,
            "token_start": build.dense(part_spans[:, 0], -1),
            "token_end": build.dense(part_spans[:, 1], -1),
            "widest": tf.cast(build.dense(tf.cast(widest, tf.int32), 0), tf.bool),
        }

    def _turns(
        self, rows: tf.Tensor, start: tf.Tensor | None, end: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the row, start and end of every remembered turn; a row without turns has one that marks nothing."""
        everyone = tf.range(rows)
        if start is None or end is None:
            nowhere = tf.fill([tf.size(everyone)], -1)
            return everyone, nowhere, nowhere
        known = tf.cast((start >= 0) & (end > start), tf.int32)
        # The latest turns are the last ones of a row.
        later = tf.cumsum(known, axis=1, reverse=True)
        kept = (known > 0) & (later <= self._windows.history_turns)
        none = tf.logical_not(tf.reduce_any(kept, axis=1, keepdims=True))
        kept = tf.concat([none, kept], axis=1)
        filler = tf.fill([tf.size(everyone), 1], -1)
        row = tf.where(kept)[:, 0]
        return (
            row,
            tf.boolean_mask(tf.concat([filler, start], axis=1), kept),
            tf.boolean_mask(tf.concat([filler, end], axis=1), kept),
        )


@_no_autograph
def best_answers(outputs: Mapping[str, tf.Tensor], search: Search) -> dict[str, tf.Tensor]:
    """Returns the best answer to every question as `Search` finds it: `answer`, `start`, `end` and `score`, all [rows].

    Args:
        outputs: `start_logits` and `end_logits` [windows, tokens], `context` [rows], and what `GraphQuestions` returns
            beside the arrays of the model.
        search: How answers are chosen.
    """
    context, owner = outputs["context"], outputs["owner"]
    start, end = outputs["start_logits"], outputs["end_logits"]
    tokens, width = tf.shape(start)[1], search.max_answer_length
    low = tf.constant(-np.inf, tf.float32)
    reach = tf.range(tokens)[:, None] + tf.range(width)[None, :]
    padded = tf.pad(tf.where(outputs["token_start"] >= 0, end, low), [[0, 0], [0, width - 1]], constant_values=-np.inf)
    scores = tf.where(outputs["widest"], start, low)[:, :, None] + tf.gather(padded, reach, axis=1)
    scores = tf.reshape(scores, [-1, tokens * width])
    place, best = tf.argmax(scores, axis=1), tf.reduce_max(scores, axis=1)
    rows = tf.size(context)
    top = tf.math.unsorted_segment_max(best, owner, rows)
    # The first of equally good windows.
    count = tf.size(best, tf.int64)
    order = tf.where(tf.equal(best, tf.gather(top, owner)), tf.range(count), count - 1)
    window = tf.math.unsorted_segment_min(order, owner, rows)
    first = tf.gather(place, window) // width
    last = first + tf.gather(place, window) % width
    last = tf.minimum(last, tf.cast(tokens, tf.int64) - 1)
    at = tf.gather_nd(outputs["token_start"], tf.stack([window, first], axis=1))
    to = tf.gather_nd(outputs["token_end"], tf.stack([window, last], axis=1))
    nothing = tf.math.unsorted_segment_min(start[:, 0] + end[:, 0], owner, rows)
    # No span at all leaves less than any sum of logits.
    empty = top < PADDING
    if search.null_score_threshold is not None:
        empty |= nothing - top > search.null_score_threshold
    at, to = tf.where(empty, -1, at), tf.where(empty, -1, to)
    answer = tf.strings.substr(context, tf.maximum(at, 0), to - at, unit="UTF8_CHAR")
    return {"answer": answer, "start": at, "end": to, "score": tf.where(empty, nothing, top)}


class _Builder:
    """Puts the parts of windows between special tokens and pads them."""

    def __init__(self, tokenizer: GraphTokenizer, query: tf.RaggedTensor, part: tf.RaggedTensor) -> None:
        self._tokenizer, self._query, self._part = tokenizer, query, part
        longest = tf.maximum(tf.reduce_max(query.row_lengths() + part.row_lengths()), 0)  # also for no row
        self._width = longest + 2 + tokenizer.between

    def _padded(self, values: tf.RaggedTensor, pad: int) -> tf.Tensor:
        return values.to_tensor(pad, shape=tf.stack([self._query.nrows(), self._width]))

    def batch(self) -> dict[str, tf.Tensor]:
        """Returns `input_ids`, `input_mask` and `segment_ids`."""
        rows = self._query.nrows()
        cls, sep = (tf.fill([rows, 1], self._tokenizer.special_ids[name]) for name in ("cls", "sep"))
        first = [cls, self._query, *[sep] * self._tokenizer.between]
        ids = tf.concat([*first, self._part, sep], axis=1)
        segments = [tf.zeros_like(part) for part in first]
        segments += [tf.ones_like(part) * self._tokenizer.second_segment for part in (self._part, sep)]
        return {
            "input_ids": self._padded(ids, self._tokenizer.special_ids["pad"]),
            "input_mask": self._padded(tf.ones_like(ids), 0),
            "segment_ids": self._padded(tf.concat(segments, axis=1), 0),
        }

    def dense(self, values: tf.Tensor, outside: int) -> tf.Tensor:
        """Returns values of the context's tokens at their places, [windows, tokens]; `outside` everywhere else."""
        before = tf.ragged.range(self._query.row_lengths() + 1 + self._tokenizer.between)
        before = before.with_values(tf.fill([tf.size(before.values)], outside))
        return self._padded(tf.concat([before, self._part.with_values(values)], axis=1), outside)


def valid_text(text: tf.Tensor) -> tf.Tensor:
    """Replaces bytes that are not UTF-8, so that characters can be counted."""
    return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace", replace_control_characters=False)


def _slices(values: tf.Tensor, starts: tf.Tensor, lengths: tf.Tensor) -> tf.RaggedTensor:
    places = tf.ragged.range(starts, starts + lengths)
    return places.with_values(tf.gather(values, places.values))


def _widest(
    places: tf.RaggedTensor, token: tf.Tensor, length: tf.Tensor, turns: tf.Tensor, tokens: tf.Tensor
) -> tf.Tensor:
    """Returns for every token of every window what `windows.widest_windows` says, bool [all tokens].

    Args:
        places: A row per window.
        token: Number of the token among those of all turns, [all tokens].
        length: Tokens of every window.
        turns: Number of turns.
        tokens: Tokens of the whole batch.
    """
    window = places.value_rowids()
    inside = tf.range(tf.size(window, tf.int64)) - tf.gather(places.row_starts(), window)
    size = tf.gather(length, window)
    context = 100 * tf.minimum(inside, size - 1 - inside) + size
    total = turns * tokens
    most = tf.equal(context, tf.gather(tf.math.unsorted_segment_max(context, token, total), token))
    candidates = tf.where(most, window, tf.int64.max)
    return tf.equal(window, tf.gather(tf.math.unsorted_segment_min(candidates, token, total), token))
