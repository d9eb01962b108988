"""The answers that a network can give, from the training table or a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.visual_question_answering.answers import AnswerRule, soft_scores, unusable
from easytransfer.config.json_text import parse_json
from easytransfer.data.label_names import class_name
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.run.atomic import write_json


def answers_of(cell: Any) -> list[str]:
    """Returns the answers in a cell: a list, or one text."""
    cells = cell if isinstance(cell, (list, tuple, np.ndarray)) else [cell]
    return [each if isinstance(each, str) else class_name(each) for each in cells]


class AnswerVocabulary:
    """Answers in the order of the outputs of a network.

    Args:
        answers: Each once, none empty.

    Attributes:
        ids: Output by answer.
    """

    FILE = "answers.json"

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.ids = {answer: i for i, answer in enumerate(self.answers)}

    def __len__(self) -> int:
        return len(self.answers)

    @classmethod
    def counted(cls, cells: Iterable[Any], rule: AnswerRule, least: int) -> AnswerVocabulary:
        """Returns the answers that are the best one to `least` questions or more, the most frequent first.

        The best answer is the one that most annotators gave, of equal ones the first given. Questions whose answers
        cannot be used are left out: they are bad rows when the table is encoded.

        Args:
            cells: Of the answer column of the training table.
            rule: When an answer is right.
            least: Questions an answer must be the best one to.

        Raises:
            DataError: Fewer than two answers are that frequent.
        """
        counts: Counter[str] = Counter()
        for answers in map(answers_of, cells):
            if unusable(answers, rule) is None and (scores := soft_scores(answers, rule)):
                counts[next(iter(scores))] += 1
        frequent = sorted((-count, answer) for answer, count in counts.items() if count >= least)
        if len(frequent) < 2:
            raise DataError(
                f"fewer than two answers are the best one to {least} questions or more",
                received=f"{len(frequent)} of {len(counts):,} answers",
                accepted="two or more",
                fix="lower model.min_answer_count, or check data.label_name",
            )
        return cls([answer for _, answer in frequent])

    @classmethod
    def read(cls, path: str) -> AnswerVocabulary:
        """Reads a file with one answer a line.

        Raises:
            ConfigError: It cannot be read, has an answer twice, or fewer than two.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"model.answer_file: cannot read {path}: {error}") from None
        answers = [line.strip() for line in lines if line.strip()]
        twice = [answer for answer, count in Counter(answers).items() if count > 1]
        if twice or len(answers) < 2:
            raise ConfigError(
                f"model.answer_file: {path} has " + ("an answer twice" if twice else "fewer than two answers"),
                received=twice[0] if twice else answers,
                accepted="two answers or more, one a line, each once",
            )
        return cls(answers)

    def save(self, folder: Path) -> None:
        """Writes `answers.json`, a list."""
        write_json(folder / self.FILE, self.answers)

    @classmethod
    def load(cls, folder: Path) -> AnswerVocabulary:
        """Reads `answers.json` of a run or export.

        Raises:
            ModelError: It is missing or damaged.
        """
        path = folder / cls.FILE
        try:
            answers = parse_json(path.read_text(encoding="utf-8"))
            usable = isinstance(answers, list) and all(isinstance(answer, str) for answer in answers)
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} is no list of answers: {error}") from None
        if not usable or len(set(answers)) < len(answers):
            raise ModelError(f"{path} is no list of different texts", received=json.dumps(answers)[:80])
        return cls(answers)

    def scores(self, answers: Sequence[str], rule: AnswerRule) -> dict[int, float]:
        """Returns the accuracies of the outputs that answer a question with one above 0.

        Args:
            answers: Of the annotators.
            rule: When an answer is right.
        """
        return {self.ids[answer]: score for answer, score in soft_scores(answers, rule).items() if answer in self.ids}
