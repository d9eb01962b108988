"""From the scores of all windows of a question to its best answers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from appzoo.text_comprehension.questions import Asked
from appzoo.text_comprehension.windows import Window


@dataclass(frozen=True)
class Span:
    """A possible answer: characters of the context with the two logits that speak for it."""

    start: int
    end: int
    start_logit: float
    end_logit: float
    window: int = 0

    @property
    def score(self) -> float:
        """Sum of both logits, rounded like the tensors of an export."""
        return float(np.float32(self.start_logit) + np.float32(self.end_logit))


NOTHING = Span(-1, -1, -math.inf, -math.inf)


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes:
        text: Cut from the context; empty for no answer.
        start: Where it starts in the context, in characters; -1 for no answer.
        end: Where it ends.
        probability: Softmax of its score over all candidates, the empty answer among them.
        window: Which of the question's windows it is from.
        candidates: (text, probability, span), best first.
    """

    text: str
    start: int
    end: int
    probability: float
    window: int
    candidates: list[tuple[str, float, Span]] = field(repr=False)

    @property
    def score(self) -> float:
        """Sum of the logits of the chosen span, or of the empty answer."""
        return next(span.score for text, _, span in self.candidates if text == self.text)

    def to_json(self) -> str:
        """Returns the candidates as a JSON list."""
        return json.dumps(
            [
                {
                    "text": text,
                    "probability": round(probability, 6),
                    "start": span.start,
                    "end": span.end,
                    "start_logit": round(span.start_logit, 6),
                    "end_logit": round(span.end_logit, 6),
                }
                for text, probability, span in self.candidates
            ],
            ensure_ascii=False,
        )


@dataclass(frozen=True)
class Search:
    """How answers are chosen.

    Every span of at most `max_answer_length` tokens that starts and ends in the context part of a window takes part,
    each start in the window that shows most context around it.

    Args:
        n_best_size: Candidates kept per window and per question, the empty answer aside.
        max_answer_length: Tokens of an answer.
        null_score_threshold: Answer nothing where the empty answer's score exceeds the best one by more; None never.
    """

    n_best_size: int = 20
    max_answer_length: int = 30
    null_score_threshold: float | None = None

    def spans(self, window: Window, start_logits: np.ndarray, end_logits: np.ndarray, number: int = 0) -> list[Span]:
        """Returns the best spans of one window, best first, and behind them the empty answer.

        Args:
            window: The window.
            start_logits: [tokens] or padded behind.
            end_logits: The same.
            number: Number of the window among those of its question.
        """
        tokens = len(window.spans)
        start = np.asarray(start_logits, np.float32)[window.offset : window.offset + tokens]
        end = np.asarray(end_logits, np.float32)[window.offset : window.offset + tokens]
        nothing = Span(-1, -1, float(start_logits[window.nowhere]), float(end_logits[window.nowhere]), number)
        if not tokens:
            return [nothing]
        width = min(self.max_answer_length, tokens)
        # Row i holds the spans that start with token i, shortest first.
        ends = np.lib.stride_tricks.sliding_window_view(np.append(end, np.full(width - 1, -np.inf, end.dtype)), width)
        scores = np.where(window.widest[:, None], start[:, None] + ends, -np.inf).ravel()
        best = _largest(scores, self.n_best_size)
        found = [divmod(int(place), width) for place in best if scores[place] > -np.inf]
        return [
            *(
                Span(
                    int(window.spans[i, 0]),
                    int(window.spans[i + more, 1]),
                    float(start[i]),
                    float(end[i + more]),
                    number,
                )
                for i, more in found
            ),
            nothing,
        ]

    def merge(self, asked: Asked, spans: Iterable[Span]) -> Answer:
        """Returns the answer to a question from the spans of all its windows; equal texts count once."""
        spans = list(spans)
        # The least confident window decides whether there is no answer: most windows do not hold it.
        nothing = min((span for span in spans if span.start < 0), key=lambda span: span.score, default=NOTHING)
        chosen: dict[str, Span] = {}
        for span in sorted(spans, key=lambda span: (-span.score, span.start, span.end)):
            text = asked.context[span.start : span.end] if span.start >= 0 else ""
            if text and len(chosen) < self.n_best_size:
                chosen.setdefault(text, span)
        best = next(iter(chosen.items()), ("", nothing))
        limit = self.null_score_threshold
        if limit is not None and nothing.score - best[1].score > limit:
            best = ("", nothing)
        entries = sorted([*chosen.items(), ("", nothing)], key=lambda entry: -entry[1].score)
        probabilities = _softmax([span.score for _, span in entries])
        candidates = [(text, p, span) for (text, span), p in zip(entries, probabilities, strict=True)]
        text, span = best
        probability = next(p for candidate, p, _ in candidates if candidate == text)
        return Answer(text, span.start, span.end, probability, span.window, candidates)

    def answer(
        self, windows: Sequence[Window], start_logits: Sequence[np.ndarray], end_logits: Sequence[np.ndarray]
    ) -> Answer:
        """Returns the answer to one question from all its windows and their scores."""
        scored = zip(windows, start_logits, end_logits, strict=True)
        spans = (span for number, (w, s, e) in enumerate(scored) for span in self.spans(w, s, e, number))
        return self.merge(windows[0].asked, spans)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Returns the places of the largest values, the first of equal ones first."""
    places = np.argpartition(-values, count)[:count] if count < len(values) else np.arange(len(values))
    return places[np.lexsort((places, -values[places]))]


def _softmax(scores: Sequence[float]) -> list[float]:
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    return [weight / math.fsum(weights) for weight in weights]
