"""Tables of questions: the files of the VQA challenge, and questions about drawn scenes.

Both have the columns `question_id`, `question`, `answers` and `answer_type`; those of the challenge also `image_id`,
but no answers where there is no file of them; drawn ones also `features` and `boxes`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from appzoo.drawn_scenes import draw, row_randoms, scene_settings
from appzoo.visual_question_answering.json_entries import entries
from appzoo.visual_question_answering.scenes import ask
from easytransfer.data.app_forms import BadRecord
from easytransfer.errors import DataError

Row = dict[str, Any]
_QUESTIONS, _ANNOTATIONS = "_questions.json", "_annotations.json"


def read_questions(path: str) -> Iterator[Row | BadRecord]:
    """Yields the questions of a file of VQA 1 or 2, with their answers where the file of these stands beside it.

    Of `v2_OpenEnded_mscoco_val2014_questions.json` that is `v2_mscoco_val2014_annotations.json`. Both are read side by
    side, a question at a time: they have the same questions in the same order.

    Raises:
        DataError: A file is damaged, or they are not of the same questions.
    """
    beside = str(Path(path).with_name(Path(path).name.replace("OpenEnded_", "").replace(_QUESTIONS, _ANNOTATIONS)))
    annotations = entries(beside, "annotations") if Path(beside).is_file() else None
    for number, question in enumerate(entries(path, "questions"), 1):
        row = {name: question.get(name) for name in ("question_id", "image_id", "question")}
        if annotations is not None:
            row |= _answered(next(annotations, {}), question, f"question {number} of {path}", beside)
        missing = next((name for name, value in row.items() if value is None), None)
        yield BadRecord(missing, f"missing value: no {missing}", json.dumps(question)) if missing else row
    if annotations is not None and next(annotations, None) is not None:
        raise DataError(f"{beside} has more entries than {path}", fix="take both files of one data set")


def _answered(found: Row, question: Row, place: str, path: str) -> Row:
    ids = question.get("question_id"), found.get("question_id")
    if ids[0] != ids[1]:
        fix = "take both files of one data set as they were published, or move the annotations elsewhere"
        raise DataError(f"{place} is not the one that {path} has in its place", received=ids, fix=fix)
    answers = found.get("answers")
    texts = [each.get("answer") for each in answers] if isinstance(answers, list) else [None]
    return {"answers": None if None in texts else texts, "answer_type": found.get("answer_type")}


def read_scenes(path: str) -> Iterator[Row]:
    """Yields questions about drawn scenes; the file is JSON with the numbers of `drawn_scenes.SCENE_KEYS`.

    Raises:
        DataError: The file says something else.
    """
    settings = scene_settings(path)
    for number, random in row_randoms(settings):
        scene = draw(random, settings["objects"], settings["noise"], settings["kinds"])
        question, answers, kind = ask(random, scene)
        row = {"question_id": number, "question": question, "answers": answers, "answer_type": kind}
        yield {**row, **scene.cells()}


READERS: dict[str, Callable[[str], Iterator[Any]]] = {_QUESTIONS: read_questions, ".questions": read_scenes}
