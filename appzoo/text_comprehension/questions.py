"""Cells to questions: the original's `q1||id1||...` and `a1||start1||...`, JSON lists, and SQuAD files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from easytransfer.data.formats import form_of
from easytransfer.data.table import RowChunk
from easytransfer.data.values import read_integer

ASKED = "asked questions"
SEPARATOR = "||"


@dataclass(frozen=True)
class Gold:
    """One right answer: its text and where it starts in the context, in characters."""

    text: str
    start: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + len(self.text)


# How an unanswerable question may be written.
NO_ANSWER = Gold("", -1)


@dataclass(frozen=True)
class Asked:
    """One question.

    Attributes:
        key: Row in the whole table and number in that row: tells questions apart.
        id: Name the table gives it.
        question: Its text.
        context: The text to answer from.
        golds: Right answers; empty when it has none.
        problem: Why it cannot be used as a labelled row, None if it can.
        history: Answers of the earlier questions of the row, where known, the latest last.
    """

    key: tuple[int, int]
    id: str
    question: str
    context: str
    golds: tuple[Gold, ...] = ()
    problem: str | None = None
    history: tuple[Gold, ...] = ()

    @property
    def gold_texts(self) -> list[str]:
        """Texts of the right answers, as the metrics take them."""
        return [gold.text for gold in self.golds]

    def to_json(self) -> dict[str, Any]:
        """Returns the question as what JSON has."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Asked:
        """Returns the question of `to_json`."""
        answers = {name: tuple(Gold(**gold) for gold in value[name]) for name in ("golds", "history")}
        return cls(**{**value, **answers, "key": tuple(value["key"])})


def spread_questions(
    chunk: RowChunk, context: str, question: str, label: str | None, last_open: bool = False
) -> RowChunk:
    """Returns a chunk with one row per question; cells with an odd number of parts make their row a bad row.

    What is wrong with answers is noted in the questions, since prediction does not need them.

    Args:
        chunk: Rows as read.
        context: Column with the context.
        question: Column with questions and ids, or with one question in a SQuAD file.
        label: Column with the answers, None or absent when there are none.
        last_open: Whether the last question of a row may lack its answer, because it is the one to predict.

    Returns:
        The chunk; its column `ASKED` holds `Asked` objects, and the cells of question and label are those of one
        question each.
    """
    plain = form_of(chunk.file) == "squad"
    labels = chunk.columns.get(label) if label else None
    source: list[int] = []
    asked: list[Asked] = []
    cells: list[str] = []
    for row, text in enumerate(chunk.columns[context]):
        cell = chunk.columns[question][row]
        try:
            pairs = [(cell, chunk.columns["id"][row])] if plain else read_pairs(cell)
        except ValueError as error:
            chunk.reject(row, question, str(error))
            continue
        golds = _read_answers(labels[row] if labels else None, len(pairs), last_open)
        found = _conversation(int(chunk.index[row]), text, pairs, golds)
        source.extend([row] * len(found))
        asked.extend(found)
        cells.extend([labels[row]] if plain and labels else [_answer_cell(one) for one in found])
    columns: dict[str, list] = {ASKED: asked, question: [one.question for one in asked]}
    return chunk.explode(source, columns | ({label: cells} if labels else {}))


def read_pairs(cell: str) -> list[tuple[str, str]]:
    """Returns the pairs of a cell `a||b||c||d`, or of a JSON list `["a", "b", "c", "d"]`.

    Raises:
        ValueError: The number of parts is odd, or the cell is empty.
    """
    parts = _json_list(cell)
    parts = cell.split(SEPARATOR) if parts is None else [_part(part) for part in parts]
    if not cell.strip() or not parts:
        raise ValueError("empty text: no question")
    if len(parts) % 2:
        raise ValueError(
            f"odd number of parts: {len(parts)}, expected pairs separated by {SEPARATOR}; texts that hold {SEPARATOR} "
            "need a JSON list"
        )
    return list(zip(parts[::2], parts[1::2], strict=True))


def _part(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"wrong type: a part of the list is no text: {str(value)[:40]!r}")
    return str(value)


def _json_list(cell: str) -> list[Any] | None:
    if not (cell.startswith(("[", "{")) and cell.endswith(("]", "}"))):
        return None
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict) and all(isinstance(found.get(key), list) for key in ("text", "answer_start")):
        # The form in which published copies of SQuAD have their answers: lists side by side.
        sides = zip(found["text"], found["answer_start"], strict=False)
        return [{"text": text, "answer_start": start} for text, start in sides]
    return found if isinstance(found, list) else None


def _read_answers(cell: str | None, questions: int, last_open: bool) -> list[tuple[Gold, ...] | str | None]:
    """Returns the right answers of each question: a string says what is wrong, None that there are none."""
    if cell is None:
        return [None] * questions
    objects = _json_list(cell)
    try:
        if not cell.strip():
            raise ValueError("no answer: the cell is empty")
        if objects is not None and all(isinstance(item, dict) for item in objects):
            found = (_gold(item.get("text"), item.get("answer_start")) for item in objects)
            golds: list[Any] = [tuple(gold for gold in found if gold != NO_ANSWER)]
        else:
            golds = [_golds_of(text, start) for text, start in read_pairs(cell)]
    except ValueError as error:
        return [str(error)] * questions
    if last_open and len(golds) == questions - 1:
        return [*golds, None]
    if len(golds) != questions:
        return [f"answers do not fit the questions: {len(golds)} answers, {questions} questions"] * questions
    return golds


def _golds_of(text: str, start: str) -> tuple[Gold, ...]:
    gold = _gold(text, start)
    return () if gold.start == -1 else (gold,)


def _gold(text: Any, start: Any) -> Gold:
    if not isinstance(text, str):
        raise ValueError(f"answer text is no text: {str(text)[:40]!r}")
    try:
        return Gold(text, read_integer(start))
    except ValueError:
        raise ValueError(f"answer start is not an integer: {str(start)[:40]!r}") from None


def _conversation(
    row: int, context: str, pairs: Sequence[tuple[str, str]], golds: Sequence[tuple[Gold, ...] | str | None]
) -> list[Asked]:
    """Returns the questions of a row, each with the answers before it."""
    found: list[Asked] = []
    history: list[Gold] = []
    for number, ((question, name), answer) in enumerate(zip(pairs, golds, strict=True)):
        problem = answer if isinstance(answer, str) else None
        own = answer if isinstance(answer, tuple) else ()
        if answer is None:
            problem = "no answer: the question is to be predicted"
        for gold in own:
            problem = problem or misplaced(gold, context)
        found.append(Asked((row, number), name, question, context, own, problem, tuple(history)))
        if own and problem is None:
            history.append(own[0])
    return found


def misplaced(gold: Gold, context: str) -> str | None:
    """Says what is wrong with an answer, None if it stands where it says."""
    if not gold.text:
        return "empty answer: an answer has at least one character, or the start -1 when there is none"
    if gold.start == -1:
        return f"answer not at its offset: {gold.text[:40]!r} starts at -1, which stands for no answer"
    if gold.start < 0 or gold.end > len(context):
        return f"answer beyond the context: {gold.start} to {gold.end} of {len(context)} characters"
    there = context[gold.start : gold.end]
    if there != gold.text:
        return f"answer not at its offset: {gold.text[:40]!r} expected at {gold.start}, found {there[:40]!r}"
    return None


def _answer_cell(asked: Asked) -> str:
    """Returns the part of the answer cell that belongs to one question."""
    if asked.problem is not None and not asked.golds:
        return ""
    return SEPARATOR.join(f"{gold.text}{SEPARATOR}{gold.start}" for gold in asked.golds) or f"{SEPARATOR}-1"
