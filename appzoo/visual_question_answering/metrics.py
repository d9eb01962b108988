"""Accuracy of answers by the rule of the VQA challenge, over all questions and by type."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from appzoo.visual_question_answering.answers import AnswerRule, vqa_accuracy
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.exact_sum import ExactSum

ALL = "vqa_accuracy"
_RULES = {
    "newest": "GT-Vision-Lab/VQA vqaEval.py a013f004: texts are normalized where annotators differ",
    "older": "GT-Vision-Lab/VQA vqaEval.py c4e6a0e4: predictions are normalized, answers lose their punctuation",
    "single": "one answer a question: right where both are the same after normalization",
}


def metric_of_type(answer_type: str) -> str:
    """Returns the name of the accuracy of a type of answers: `vqa_accuracy_yes_no` for `yes/no`."""
    return f"{ALL}_{re.sub(r'[^a-z0-9]+', '_', answer_type.lower()).strip('_')}"


class VqaEvaluator(Evaluator):
    """`vqa_accuracy` (0..1, the mean over questions), and the same for each type of answers the table names.

    Read are `batch["gold"]`, objects with `answers` (texts) and `type` (a text or None), `batch["answer_scores"]`
    [batch, 10] and `outputs["logits"]` [batch, answers].

    Args:
        answers: In the order of the logits.
        rule: When an answer is right, see `answers.compared`.
    """

    main_metric = ALL

    def __init__(self, answers: Sequence[str], rule: AnswerRule = "newest") -> None:
        self._answers, self._rule = list(answers), rule
        self._sums: dict[str, ExactSum] = {}
        self._best, self._counts = ExactSum(), Counter()

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        chosen = np.asarray(outputs["logits"]).argmax(axis=-1)
        for gold, answer in zip(batch["gold"], chosen.tolist(), strict=True):
            accuracy = np.float64(vqa_accuracy(self._answers[answer], gold["answers"], self._rule))
            names = [ALL] if gold["type"] is None else [ALL, metric_of_type(gold["type"])]
            for name in names:
                self._sums.setdefault(name, ExactSum()).add(accuracy)
        best = np.asarray(batch["answer_scores"]).max(axis=1, initial=0)
        self._best.add(best)
        self._counts["unknown"] += int((best == 0).sum())

    def state(self) -> Any:
        """Returns sums and counts."""
        return self._sums, self._best, self._counts

    def merge(self, state: Any) -> None:
        """Adds those of another evaluator."""
        sums, best, counts = state
        for name, total in sums.items():
            self._sums.setdefault(name, ExactSum()).merge(total)
        self._best.merge(best)
        self._counts.update(counts)

    def result(self) -> dict[str, float]:
        """Returns the accuracies; NaN when there were no rows."""
        if not self._sums:
            return {ALL: math.nan}
        return {name: self._sums[name].mean() for name in sorted(self._sums)}

    def report(self) -> dict[str, Any]:
        """Returns `vqa`: the rule, questions by type, how many have no answer the network could give, and the accuracy
        of a network that always gave the best of its answers."""
        questions = {name: total.count for name, total in sorted(self._sums.items())}
        facts = {"rule": self._rule, "rule_source": _RULES[self._rule], "questions": questions}
        facts |= {"without_known_answer": self._counts["unknown"], "best_possible": self._best.mean()}
        return {"vqa": facts}
