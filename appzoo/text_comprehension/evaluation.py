"""Metrics of answer spans: accuracy of positions per window, exact match and F1 of texts per question; and a page that
shows the answers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.text_comprehension.questions import Asked
from appzoo.text_comprehension.search import Answer, Search, Span
from appzoo.text_comprehension.squad_metrics import METRICS, normalize_answer, right_answers
from appzoo.text_comprehension.windows import Window
from easytransfer.metrics.collector import RowCollector
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.scores import exact_mean, log_softmax
from easytransfer.run.atomic import write_text
from easytransfer.run.page import application_page

PAGE = "answers.html"
# Questions shown: enough to see what goes wrong, little enough for any browser.
MOST_QUESTIONS = 200
POSITIONS = ("start_accuracy", "end_accuracy", "window_accuracy", "loss")


class ComprehensionEvaluator(RowCollector, Evaluator):
    """`start_accuracy`, `end_accuracy` and `window_accuracy` (both right) of the best start and end with start <= end,
    shares of windows, not of questions; `loss`; for tables with texts also `exact_match` and `f1` (0 to 1) of the
    answers of all questions.

    Reads `start_position` and `end_position` int [B], `window` (see `Window.to_json`; absent for tables of token ids)
    and the outputs `start_logits` and `end_logits` [B, T], whose padding must be far below all other logits.

    Args:
        search: How answers are chosen.
        metric: `squad1`, `squad2`, `cmrc` or `auto`, which is squad2 when a question has no answer, else squad1.
    """

    higher_is_better = True

    def __init__(self, search: Search, metric: str = "auto") -> None:
        super().__init__()
        self._search, self._metric = search, metric
        self._spans: dict[tuple[int, int], list[Span]] = {}
        self._asked: dict[tuple[int, int], Asked] = {}

    def update(self, batch: dict[str, Any], outputs: dict[str, np.ndarray]) -> None:
        """Adds windows in any order; a question may come in several batches."""
        true = np.stack([np.asarray(batch[name]).reshape(-1) for name in ("start_position", "end_position")], axis=1)
        start, end = outputs["start_logits"], outputs["end_logits"]
        found = np.array([best_pair(s, e) for s, e in zip(start, end, strict=True)], np.int64).reshape(-1, 2)
        loss = [-(log_softmax(s)[i] + log_softmax(e)[j]) / 2 for s, e, (i, j) in zip(start, end, true, strict=True)]
        self.add(right=found == true, loss=np.array(loss, np.float64))
        for window, s, e in zip(map(Window.from_json, batch.get("window", ())), start, end, strict=False):
            key = window.asked.key
            self._asked[key] = window.asked
            self._spans.setdefault(key, []).extend(self._search.spans(window, s, e))

    def state(self) -> tuple[Any, ...]:
        """Returns positions, spans and questions."""
        return super().state(), self._spans, self._asked

    def merge(self, state: tuple[Any, ...]) -> None:
        """Adds windows of another evaluator; a question may have some in both."""
        super().merge(state[0])
        for key, spans in state[1].items():
            self._spans.setdefault(key, []).extend(spans)
        self._asked |= state[2]

    @property
    def main_metric(self) -> str:
        """Metric that picks the best checkpoint."""
        return "f1" if self._asked else "window_accuracy"

    @property
    def names(self) -> tuple[str, ...]:
        """Metrics of `result`."""
        return ("exact_match", "f1", *POSITIONS) if self._asked else POSITIONS

    def answers(self) -> dict[tuple[int, int], tuple[Asked, str]]:
        """Returns every question with its predicted text, by key."""
        return {
            key: (asked, self._search.merge(asked, self._spans[key]).text) for key, asked in sorted(self._asked.items())
        }

    @property
    def metric(self) -> str:
        """The rule texts are compared by."""
        if self._metric != "auto":
            return self._metric
        return "squad1" if all(asked.golds for asked in self._asked.values()) else "squad2"

    def scores(self) -> list[tuple[float, float]]:
        """Returns exact match and F1 of every question, in the order of the table."""
        rule = METRICS[self.metric]
        return [
            rule.score(text, right_answers(asked.gold_texts, self.metric)) for asked, text in self.answers().values()
        ]

    def result(self) -> dict[str, float]:
        """Returns the metrics as floats; all NaN when there was nothing to evaluate."""
        if not len(self):
            return dict.fromkeys(self.names, float("nan"))
        right = self.rows("right")
        values = [right[:, 0].mean(), right[:, 1].mean(), right.all(axis=1).mean(), exact_mean(self.rows("loss"))]
        found = dict(zip(POSITIONS, map(float, values), strict=True))
        if self._asked:
            table = np.array(self.scores(), np.float64)
            found = {"exact_match": exact_mean(table[:, 0]), "f1": exact_mean(table[:, 1])} | found
        return found

    def report(self) -> dict[str, Any]:
        """Returns facts for the model card: `rows` (questions, or windows of an id table) and the rule of the texts."""
        if not self._asked:
            return {"rows": len(self)}
        unanswered = sum(not normalize_answer(text) for _, text in self.answers().values())
        return {"rows": len(self._asked), "windows": len(self), "rule": self.metric, "predicted_no_answer": unanswered}


def best_pair(start: np.ndarray, end: np.ndarray) -> tuple[int, int]:
    """Returns the positions i <= j with the largest start[i] + end[j], the first of equal ones."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    best_end = np.maximum.accumulate(end[::-1])[::-1]
    i = int((start + best_end).argmax())
    return i, i + int(end[i:].argmax())


def write_answers(folder: Path, found: Sequence[tuple[Asked, Answer]], metric: str) -> str:
    """Writes the page and returns its name: wrong answers first, then the others, each with its context.

    Args:
        folder: Where to write.
        found: Every question with its predicted answer.
        metric: Rule texts are compared by; see `ComprehensionEvaluator`.
    """
    if metric == "auto":
        metric = "squad1" if all(asked.golds for asked, _ in found) else "squad2"
    scored = [
        (METRICS[metric].score(answer.text, right_answers(asked.gold_texts, metric)), asked, answer)
        for asked, answer in found
    ]
    scored.sort(key=lambda entry: entry[0][1])
    parts = [_question(score, asked, answer) for score, asked, answer in scored[:MOST_QUESTIONS]]
    wrong = sum(not exact for (exact, _), _, _ in scored)
    lead = (
        f"<p>{len(scored)} questions, {wrong} without an exact match; shown: {len(parts)}, the worst first. "
        '<mark class="hue-2">Right answer</mark>, <span class="found">predicted answer</span>.</p>'
    )
    write_text(folder / PAGE, application_page("Answers", lead, parts))
    return PAGE


def _question(score: tuple[float, float], asked: Asked, answer: Answer) -> str:
    exact, f1 = score
    golds = " | ".join(f"<q>{escape(gold.text)}</q>" for gold in asked.golds) or "<i>no answer</i>"
    found = f"<q>{escape(answer.text)}</q>" if answer.text else "<i>no answer</i>"
    return (
        f"<h2>{escape(asked.question)}</h2>\n<p>{escape(asked.id)}: right {golds}; predicted "
        f"{found} (probability {answer.probability:.2f}, "
        f'{"exact" if exact else f"F1 {f1:.2f}"})</p>\n<p class="text">{_marked(asked, answer)}</p>\n'
    )


def _marked(asked: Asked, answer: Answer) -> str:
    """Returns the escaped context with its answers inside of marks."""
    golds = [(gold.start, gold.end) for gold in asked.golds]
    edges = sorted({0, len(asked.context), answer.start, answer.end, *(edge for gold in golds for edge in gold)} - {-1})
    pieces = []
    for start, end in zip(edges, edges[1:], strict=False):
        text = escape(asked.context[start:end])
        if any(first <= start and end <= last for first, last in golds):
            text = f'<mark class="hue-2">{text}</mark>'
        pieces.append(f'<span class="found">{text}</span>' if answer.start <= start and end <= answer.end else text)
    return "".join(pieces)
