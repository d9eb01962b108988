"""SQuAD JSON files as tables: one row per question."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from easytransfer.config.encoding import AUTO
from easytransfer.config.json_text import parse_json
from easytransfer.data.files import open_text, reading
from easytransfer.data.lines import READ_BLOCK
from easytransfer.data.row_format import LazyTexts, Parsed, Problem, RowFormat, parse_mappings
from easytransfer.data.schema import Column, Schema
from easytransfer.data.values import WRONG_TYPE
from easytransfer.errors import DataError
from easytransfer.run.atomic import atomic_path

COLUMNS = ("id", "title", "context", "question", "answers")
_ARRAY = "a JSON array: write its rows one object a line and name the file .jsonl"
_SHAPE = '{"data": [{"paragraphs": [{"context": ..., "qas": [{"id": ..., "question": ..., "answers": [...]}]}]}]}'


class SquadFormat(RowFormat):
    """Files in the shape of SQuAD 1.1 and 2.0 (arXiv 1606.05250, 1806.03822), as CMRC and XQuAD use it too.

    The text columns are `id`, `title`, `context`, `question` and `answers`, whatever schema is declared. `answers` is
    the JSON list of `{"text": ..., "answer_start": ...}`, empty where `is_impossible` is true; the cell is empty where
    the file says nothing of answers. The number of a row is that of its question in the file.
    """

    def __init__(self, files: Sequence[str], encoding: str = AUTO) -> None:
        self._file, self._encoding = files[0], encoding
        self.schema = Schema(tuple(Column(name, "str") for name in COLUMNS))

    def narrow(self, names: Sequence[str]) -> None:
        """Changes nothing: a question is known by its `id`, which nobody has to ask for."""

    def advice(self) -> str | None:
        """Returns how tables of rows are written, which are in no `.json` file."""
        with reading(self._file), open_text(self._file, self._encoding) as stream:
            begin = stream.read(READ_BLOCK).lstrip()
        if begin.startswith(b"["):
            return f"{self._file} is {_ARRAY}"
        if _is_object(begin.split(b"\n")[0]):
            return f"{self._file} has one object a line: name it .jsonl"
        return None

    def parse(self, records: Sequence[dict[str, Any]]) -> Parsed:
        """Checks the types; a question without one of its parts is a bad row."""
        rows: list[dict[str, Any] | None] = []
        problems: dict[int, Problem] = {}
        for i, record in enumerate(records):
            answers = [] if record.get("is_impossible") is True else record.get("answers")
            if answers is None or isinstance(answers, list):
                cell = "" if answers is None else json.dumps(answers, ensure_ascii=False)
                rows.append({**record, "answers": cell})
            else:
                rows.append(None)
                problems[i] = ("answers", f"{WRONG_TYPE}: expected a list, got {type(answers).__name__}")
        return parse_mappings(self.schema, rows, LazyTexts(records, _show), problems)

    def _records(self, file: str, size: int) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
        rows = list(_questions(file, self._encoding))
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            yield np.arange(start + 1, start + 1 + len(block)), block

    def _count(self, file: str) -> int:
        return sum(1 for _ in _questions(file, self._encoding))


def write_questions(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows of a SQuAD table as such a file again, atomically.

    Args:
        path: The file.
        rows: Texts by the names of `COLUMNS`; those of one context stand together.
    """
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write('{"data": [')
        for number, ((title, context), group) in enumerate(groupby(rows, lambda row: (row["title"], row["context"]))):
            questions = [
                {"id": row["id"], "question": row["question"]}
                | ({"answers": json.loads(row["answers"])} if row["answers"] else {})
                for row in group
            ]
            article = {"title": title, "paragraphs": [{"context": context, "qas": questions}]}
            file.write((",\n" if number else "\n") + json.dumps(article, ensure_ascii=False))
        file.write("\n]}\n")


def _is_object(line: bytes) -> bool:
    """Returns whether a line holds a whole JSON object that is no SQuAD file."""
    try:
        found = parse_json(line.decode("utf-8"))
    except ValueError:
        return False
    return isinstance(found, dict) and "data" not in found


def _show(record: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in record.items() if name != "context"}, ensure_ascii=False)


def _questions(file: str, encoding: str) -> Iterator[dict[str, Any]]:
    """Yields every question with the context and title it belongs to."""
    with open_text(file, encoding) as stream:
        text = stream.read().decode("utf-8")
    try:
        articles = parse_json(text)
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}", accepted=_SHAPE) from error
    if isinstance(articles, list):
        raise DataError(f"{file} is {_ARRAY}", accepted=_SHAPE)
    articles = articles.get("data") if isinstance(articles, dict) else None
    for a, article in enumerate(_list(articles, file, "data")):
        place = f"data[{a}]"
        for p, paragraph in enumerate(_list(_value(article, "paragraphs"), file, f"{place}.paragraphs")):
            inner = f"{place}.paragraphs[{p}]"
            shared = {"title": str(_value(article, "title") or ""), "context": _value(paragraph, "context")}
            for q, question in enumerate(_list(_value(paragraph, "qas"), file, f"{inner}.qas")):
                if not isinstance(question, dict):
                    raise _not_squad(file, f"{inner}.qas[{q}]", "an object")
                yield {**question, **shared}


def _value(mapping: Any, name: str) -> Any:
    return mapping.get(name) if isinstance(mapping, dict) else None


def _list(value: Any, file: str, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise _not_squad(file, place, "a list")
    return value


def _not_squad(file: str, place: str, kind: str) -> DataError:
    return DataError(f"{file} is not in SQuAD's form: {place} is not {kind}", accepted=_SHAPE)
