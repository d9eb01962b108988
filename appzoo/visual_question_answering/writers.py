"""The result file of the VQA challenge: a JSON list of question numbers and answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from easytransfer.errors import ConfigError


def write_vqa(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Writes `[{"question_id": 1, "answer": "two"}, ...]` from predicted rows with the column of the numbers beside.

    Raises:
        ConfigError: A column is missing, or a question stands there twice.
    """
    seen: set[int] = set()
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            missing = next((name for name in ("question_id", "predictions") if name not in row), None)
            if missing:
                fix = "give --appendCols=question_id" if missing == "question_id" else "leave --outputSchema out"
                raise ConfigError(f"a result file of VQA needs the column {missing}", received=", ".join(row), fix=fix)
            number = _number(row["question_id"])
            if number in seen:
                raise ConfigError("a result file of VQA has each question once", received=f"question_id {number} twice")
            file.write((",\n" if seen else "[\n") + json.dumps({"question_id": number, "answer": row["predictions"]}))
            seen.add(number)
        file.write("\n]\n" if seen else "[]\n")


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ConfigError("question_id is no whole number", received=value) from None


WRITERS = {".vqa.json": write_vqa}
