"""The rules of the VQA challenge against cases worked by hand; files of the challenge and of drawn scenes."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import tensorflow as tf

from appzoo.visual_question_answering.answers import (
    _SPELLINGS,
    agreement,
    normalized,
    plain_words,
    soft_scores,
    unusable,
    vqa_accuracy,
    without_punctuation,
)
from appzoo.visual_question_answering.metrics import VqaEvaluator
from appzoo.visual_question_answering.readers import read_questions, read_scenes
from appzoo.visual_question_answering.target import AnswerTarget
from appzoo.visual_question_answering.vocabulary import AnswerVocabulary
from appzoo.visual_question_answering.writers import write_vqa
from easytransfer.data.app_forms import BadRecord
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.train.step import EVALUATION

TEN = 10


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_ten_annotators_give_the_published_steps(matches, accuracy):
    assert agreement(matches, TEN) == pytest.approx(accuracy, abs=1e-12)


@pytest.mark.parametrize("annotators", [4, 5, 7, 10])
def test_agreement_is_the_mean_over_all_who_can_be_left_out(annotators):
    for matches in range(annotators + 1):
        right = [i < matches for i in range(annotators)]
        left = [min(1, sum(kept) / 3) for kept in combinations(right, annotators - 1)]
        assert agreement(matches, annotators) == pytest.approx(np.mean(left), abs=1e-12)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # A mark beside a blank vanishes, everywhere in the text; others become blanks.
        ("red/blue", "red blue"),
        ("red /blue", "red blue"),
        ("red/blue /green", "redblue green"),
        ("well-known", "well known"),
        ("yes!", "yes "),
        # A text with digit, comma, digit loses all its marks.
        ("10,000", "10000"),
        ("a-b 1,5", "ab 15"),
        # Full stops go unless a digit follows.
        ("3.5", "3.5"),
        ("U.S.A.", "USA"),
        (".5", ".5"),
        ("5.", "5"),
        ("it's", "it's"),
    ],
)
def test_punctuation(text, wanted):
    assert without_punctuation(text) == wanted


def test_only_the_first_32_full_stops_go():
    assert without_punctuation("." * 40) == "." * 8


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Red  Dog", "red dog"),
        ("none", "0"),
        ("Ten", "10"),
        ("eleven", "eleven"),
        ("an apple a day", "apple day"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),
        ("couldn'tve", "couldn't've"),
        ("couldnt've", "couldn't've"),
        ("ow's'at", "'ow's'at"),
        ("yall'd've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("lets", "lets"),
        ("im", "im"),
    ],
)
def test_words(text, wanted):
    assert plain_words(text) == wanted


def test_the_table_of_contractions_has_as_many_entries_as_the_official_one():
    # 120 entries there; four with capitals cannot be met in a text of small letters, two say nothing.
    assert len(_SPELLINGS) == 114
    assert all(wrong.replace("'", "") == right.replace("'", "") for wrong, right in _SPELLINGS.items())


def test_white_space_is_no_difference():
    assert normalized(" two\tdogs\n") == "2 dogs"


def test_the_newest_rule_normalizes_both_where_annotators_differ():
    answers = ["The dog"] * 4 + ["cat"] * 6
    assert vqa_accuracy("dog", answers) == 1
    assert vqa_accuracy("a cat.", answers) == 1
    # By the older one an answer keeps article and capitals.
    assert vqa_accuracy("dog", answers, "older") == 0
    assert vqa_accuracy("a cat.", answers, "older") == 1


def test_the_newest_rule_compares_as_it_stands_where_all_agree():
    assert vqa_accuracy("two", ["two"] * TEN) == 1
    assert vqa_accuracy("2", ["two"] * TEN) == 0
    assert vqa_accuracy(" two\n", [" two"] * TEN) == 1
    # By the older one the prediction is normalized, and nobody's answer is.
    assert vqa_accuracy("two", ["2"] * TEN, "older") == 1
    assert vqa_accuracy("two", ["two"] * TEN, "older") == 0


def test_the_older_rule_takes_punctuation_out_of_answers():
    answers = ["red/blue"] * 3 + ["green"] * 7
    assert vqa_accuracy("red blue", answers, "older") == pytest.approx(0.9)


def test_one_answer_is_right_where_it_is_the_same():
    assert vqa_accuracy("The dog.", ["dog"], "single") == 1
    assert vqa_accuracy("cat", ["dog"], "single") == 0


@pytest.mark.parametrize("rule", ["newest", "older"])
def test_soft_scores_are_the_accuracies(rule):
    answers = ["Two", "two", "2", "three", "three", "a dog", "dog", "none", "cat", "cat!"]
    found = soft_scores(answers, rule)
    assert {answer: vqa_accuracy(answer, answers, rule) for answer in found} == found
    # 2: three of ten, or by the older rule one, since only the prediction is normalized.
    assert found["2"] == pytest.approx(0.9 if rule == "newest" else 0.3)
    assert ("0" in found) == (rule == "newest")


def test_numbers_of_answers_that_mean_nothing_are_refused():
    assert unusable(["a"] * 4, "newest") is None and unusable(["a"], "single") is None
    assert "single takes one" in unusable(["a"] * 3, "newest") and "4 to 10" in unusable(["a"] * 11, "older")
    assert "single takes one" in unusable(["a", "b"], "single")
    assert "empty answer" in unusable([], "newest") and "empty answer" in unusable(["a"] * 9 + [" "], "older")


# Vocabulary --------------------------------------------------------------------------------------------------


CELLS = [["yes"] * TEN] * 3 + [["no"] * 8 + ["yes"] * 2] * 2 + [["two"] * 6 + ["2"] * 4] * 2 + [["rare"] * TEN]


def test_answers_are_counted_by_the_questions_they_are_best_for():
    assert AnswerVocabulary.counted(CELLS, "newest", 2).answers == ["yes", "2", "no"]
    assert AnswerVocabulary.counted(CELLS, "newest", 1).answers == ["yes", "2", "no", "rare"]


def test_too_few_answers_are_told():
    with pytest.raises(DataError, match=r"fewer than two answers.*1 of 4 answers.*min_answer_count"):
        AnswerVocabulary.counted(CELLS, "newest", 3)


def test_unusable_questions_are_not_counted():
    assert AnswerVocabulary.counted([*CELLS, ["odd"] * 3, [""]], "newest", 1).answers == ["yes", "2", "no", "rare"]


def test_a_file_of_answers(tmp_path):
    path = tmp_path / "answers.txt"
    path.write_text("no\nyes\n\n2\n", encoding="utf-8")
    vocabulary = AnswerVocabulary.read(str(path))
    assert vocabulary.answers == ["no", "yes", "2"]
    assert vocabulary.scores(CELLS[3], "newest") == {0: 1.0, 1: pytest.approx(0.6)}
    vocabulary.save(tmp_path)
    assert AnswerVocabulary.load(tmp_path).answers == vocabulary.answers
    path.write_text("no\nno\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="an answer twice; got 'no'"):
        AnswerVocabulary.read(str(path))
    (tmp_path / AnswerVocabulary.FILE).write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(ModelError, match="no list of different texts"):
        AnswerVocabulary.load(tmp_path)


# Loss and metrics ----------------------------------------------------------------------------------------------


def test_the_loss_is_the_sum_over_answers_by_rows():
    target = AnswerTarget("answers", AnswerVocabulary(["yes", "no", "2"]), "newest")
    batch = {
        "answer_ids": np.int32([[0, 1], [-1, -1], [2, -1]]),
        "answer_scores": np.float32([[1.0, 0.6], [0, 0], [0.9, 0]]),
        "example_weight": np.float32([1, 1, 0]),
    }
    logits = np.float32([[0.5, -1, 2], [0, 3, -2], [1, 1, 1]])
    total, weight = target.losses(
        {name: tf.constant(value) for name, value in batch.items()}, {"logits": logits}, EVALUATION
    )["loss"]
    wanted = np.float64([[1, 0.6, 0], [0, 0, 0]])
    share = 1 / (1 + np.exp(-logits[:2].astype(np.float64)))
    oracle = -(wanted * np.log(share) + (1 - wanted) * np.log(1 - share)).sum()
    assert float(total) == pytest.approx(oracle, rel=1e-6) and float(weight) == 2


def rows_of(cells, types, answers):
    target = AnswerTarget("answers", AnswerVocabulary(answers), "newest", "kind")
    scores = [list(target.vocabulary.scores(cell, "newest").values()) for cell in cells]
    gold = np.empty(len(cells), object)
    gold[:] = [{"answers": cell, "type": kind} for cell, kind in zip(cells, types, strict=True)]
    padded = np.float32([[*row, *[0] * (10 - len(row))] for row in scores])
    return target, {"gold": gold, "answer_scores": padded}


def test_accuracy_by_type_and_in_parts():
    cells = [["yes"] * 8 + ["no"] * 2, ["no"] * TEN, ["red"] * 3 + ["blue"] * 7, ["purple"] * TEN]
    target, batch = rows_of(cells, ["yes/no", "yes/no", "other", None], ["yes", "no", "red"])
    outputs = {"logits": np.float32([[0, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])}
    whole = target.evaluator()
    whole.update(batch, outputs)
    # no: 2 of 10, no: 10 of 10, red: 3 of 10, yes: nobody.
    expected = {"vqa_accuracy": 2.5 / 4, "vqa_accuracy_other": 0.9, "vqa_accuracy_yes_no": 0.8}
    assert whole.result() == pytest.approx(expected, abs=1e-12)
    facts = whole.report()["vqa"]
    assert facts["rule"] == "newest" and "a013f004" in facts["rule_source"]
    assert facts["without_known_answer"] == 1 and facts["best_possible"] == pytest.approx((1 + 1 + 0.9) / 4)
    assert facts["questions"] == {"vqa_accuracy": 4, "vqa_accuracy_other": 1, "vqa_accuracy_yes_no": 2}
    merged = target.evaluator()
    for part in ([0], [2, 3], [1]):
        worker = target.evaluator()
        worker.update({name: value[part] for name, value in batch.items()}, {"logits": outputs["logits"][part]})
        merged.merge(worker.state())
    assert merged.result() == whole.result() and merged.report() == whole.report()
    assert whole.higher_is_better and np.isnan(VqaEvaluator(["a"]).result()["vqa_accuracy"])


# Files -----------------------------------------------------------------------------------------------------------


def challenge(folder, answers=True, second=2):
    name = "v2_OpenEnded_mscoco_val2014_questions.json"
    questions = [{"image_id": 7, "question": f"what {'é' * 1000}?", "question_id": number} for number in (1, 2)]
    head = {"info": {"version": "2.0"}, "num": 12, "data_type": "mscoco"}
    (folder / name).write_text(json.dumps({**head, "questions": questions}, ensure_ascii=False), encoding="utf-8")
    if answers:
        found = [
            {
                "question_id": number,
                "answer_type": "other",
                "answers": [{"answer": "a", "answer_id": i} for i in range(10)],
            }
            for number in (1, second)
        ]
        path = folder / "v2_mscoco_val2014_annotations.json"
        path.write_text(json.dumps({"annotations": found, **head}), encoding="utf-8")
    return str(folder / name)


def test_files_of_the_challenge(tmp_path, monkeypatch):
    # Small enough to be read in many pieces, in the middle of a character too.
    monkeypatch.setattr("appzoo.visual_question_answering.json_entries._BLOCK", 7)
    path = challenge(tmp_path)
    rows = list(read_questions(path))
    assert [row["question_id"] for row in rows] == [1, 2] and rows[0]["image_id"] == 7
    assert rows[1]["answers"] == ["a"] * 10 and rows[1]["answer_type"] == "other"
    assert rows[0]["question"] == f"what {'é' * 1000}?"


def test_questions_without_answers(tmp_path):
    assert [sorted(row) for row in read_questions(challenge(tmp_path, answers=False))] == [
        ["image_id", "question", "question_id"]
    ] * 2


def test_files_of_other_questions_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"question 2 .* is not the one that .*annotations.json.*\(2, 3\)"):
        list(read_questions(challenge(tmp_path, second=3)))


def test_damaged_files_of_the_challenge(tmp_path):
    path = challenge(tmp_path, answers=False)
    text = (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").read_text(encoding="utf-8")
    for damaged, why in (
        (text[:-40], "entry 2 of 'questions': no JSON"),
        (text.replace('"questions"', '"q"'), "has no 'questions'"),
        (text.replace("[{", "[3, {"), "int in place of an object"),
        ("[]", r"expected \{"),
    ):
        (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(DataError, match=why):
            list(read_questions(path))
    bad = {"questions": [{"question_id": 1, "image_id": 2}]}
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(json.dumps(bad), encoding="utf-8")
    (found,) = read_questions(path)
    assert isinstance(found, BadRecord) and found.column == "question"


def test_the_result_file(tmp_path):
    path = tmp_path / "out.vqa.json"
    write_vqa(path, iter([{"question_id": "12", "predictions": "two"}, {"question_id": 13, "predictions": "é"}]))
    assert json.loads(path.read_text()) == [{"question_id": 12, "answer": "two"}, {"question_id": 13, "answer": "é"}]
    write_vqa(path, iter([]))
    assert json.loads(path.read_text()) == []
    with pytest.raises(ConfigError, match="--appendCols=question_id"):
        write_vqa(path, iter([{"predictions": "two"}]))
    with pytest.raises(ConfigError, match="question_id 1 twice"):
        write_vqa(path, iter([{"question_id": 1, "predictions": "two"}] * 2))


def test_drawn_questions_are_answered_by_what_is_drawn(tmp_path):
    path = tmp_path / "some.questions"
    path.write_text('{"seed": 3, "rows": 200, "objects": 4, "kinds": 4, "noise": 0.5}', encoding="utf-8")
    rows = list(read_scenes(str(path)))
    assert len(rows) == 200 and rows == list(read_scenes(str(path)))
    assert {len(row["features"]) for row in rows} == {64} and {len(row["boxes"]) for row in rows} == {16}
    assert {row["answer_type"] for row in rows} == {"yes/no", "number", "other"}
    assert all(unusable(row["answers"], "newest") is None for row in rows)
    path.write_text('{"seed": 3, "rows": 100, "objects": 4, "kinds": 4, "noise": 0.5}', encoding="utf-8")
    assert list(read_scenes(str(path))) == rows[:100]
    # Without noise the majority is the truth: a count of red objects is that of the scene.
    shares = [max(row["answers"].count(answer) for answer in row["answers"]) / TEN for row in rows]
    assert np.mean(shares) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("{", "not JSON"),
        ('{"seed": 1}', "no description"),
        ('{"seed": 1, "rows": 0, "objects": 4, "kinds": 4, "noise": 0.5}', "rows is 0"),
        ('{"seed": 1, "rows": 1.0, "objects": 4, "kinds": 4, "noise": 0.5}', "rows is 1.0"),
        ('{"seed": 1, "rows": 1, "objects": 4, "kinds": 4, "noise": "x"}', "noise is 'x'"),
    ],
)
def test_descriptions_of_scenes_that_say_something_else(tmp_path, text, why):
    path = tmp_path / "some.questions"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=why):
        list(read_scenes(str(path)))
