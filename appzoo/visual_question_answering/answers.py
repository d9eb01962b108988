"""When an answer counts as right: the rules of the VQA challenge, and the texts they compare.

Antol et al. 2015, "VQA: Visual Question Answering", arXiv 1505.00468; the details are those of the official
script (GT-Vision-Lab/VQA, vqaEval.py), whose newest version (a013f004, 2021) compares other texts than the one before
it (c4e6a0e4), by which older results were computed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

AnswerRule = Literal["newest", "older", "single"]
# Annotators whose agreement makes an answer wholly right, and the fewest for which that can be: one is left out.
_AGREEING = 3
FEWEST_ANSWERS = _AGREEING + 1
# Annotators of a question at most, as many as the challenge has.
MOST_ANSWERS = 10

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
# The official call passes a flag in the place of the count of replacements.
_MOST_FULL_STOPS = int(re.UNICODE)
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))
# Words whose apostrophe is put back where it is missing; of several apostrophes, where one of them is.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _spellings() -> dict[str, str]:
    """Returns the right spelling by the wrong one."""
    found = {
        word[:place] + word[place + 1 :]: word
        for word in _CONTRACTIONS.split()
        for place, character in enumerate(word)
        if character == "'"
    }
    # The official table takes the apostrophe out of this one.
    return found | {"somebody'd": "somebodyd"}


_SPELLINGS = _spellings()


def trimmed(text: str) -> str:
    """Returns a text in one line without white space at its ends."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def without_punctuation(text: str) -> str:
    """Returns a text without marks, each replaced by nothing or by a blank, and without full stops before no digit.

    A mark vanishes where it stands beside a blank anywhere in the text, and all do in a text with digit, comma, digit;
    others become blanks.
    """
    vanish, found = _DIGIT_COMMA.search(text) is not None, text
    for mark in _MARKS:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if vanish or beside_blank else " ")
    return _FULL_STOP.sub("", found, count=_MOST_FULL_STOPS)


def plain_words(text: str) -> str:
    """Returns a text in lower case, numbers from zero to ten as digits, without articles, contractions spelled out."""
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_SPELLINGS.get(word, word) for word in words if word not in _ARTICLES)


def normalized(text: str) -> str:
    """Returns an answer as it is compared with others: `without_punctuation`, then `plain_words`."""
    return plain_words(without_punctuation(trimmed(text)))


def compared(prediction: str, answers: Sequence[str], rule: AnswerRule) -> tuple[str, list[str]]:
    """Returns the texts that are compared.

    Args:
        prediction: Predicted answer.
        answers: Those of the annotators.
        rule: `newest`: where annotators differ, prediction and answers are normalized, else neither is. `older`: the
            prediction is normalized; answers only lose their punctuation, and only where they differ. `single`: both
            are normalized.
    """
    if rule == "single":
        return normalized(prediction), [normalized(answer) for answer in answers]
    if rule == "older":
        differ = len(set(answers)) > 1
        return normalized(prediction), [without_punctuation(answer) if differ else answer for answer in answers]
    answers = [trimmed(answer) for answer in answers]
    if len(set(answers)) == 1:
        return trimmed(prediction), answers
    return normalized(prediction), [normalized(answer) for answer in answers]


def agreement(matches: int, annotators: int) -> float:
    """Returns the mean of min(1, matches / 3) over the sets of annotators with one left out, 0..1.

    Of ten annotators, 0, 1, 2, 3, and 4 or more matches give 0, .3, .6, .9 and 1.

    Args:
        matches: Annotators who gave the answer.
        annotators: All of them.
    """
    left_out = matches * min(1.0, (matches - 1) / _AGREEING)
    return (left_out + (annotators - matches) * min(1.0, matches / _AGREEING)) / annotators


def _matches(prediction: str, answers: Sequence[str], rule: AnswerRule) -> int:
    prediction, answers = compared(prediction, answers, rule)
    return answers.count(prediction)


def _accuracy(matches: int, annotators: int, rule: AnswerRule) -> float:
    return float(matches > 0) if rule == "single" else agreement(matches, annotators)


def vqa_accuracy(prediction: str, answers: Sequence[str], rule: AnswerRule = "newest") -> float:
    """Returns how right an answer is, 0..1: `agreement`, or under `single` whether it is the answer.

    Args:
        prediction: Predicted answer.
        answers: Those of the annotators; one under `single`.
        rule: How texts are compared, see `compared`.
    """
    return _accuracy(_matches(prediction, answers, rule), len(answers), rule)


def soft_scores(answers: Sequence[str], rule: AnswerRule = "newest") -> dict[str, float]:
    """Returns what can be answered to a question with an accuracy above 0, and that accuracy; most given ones first.

    The answers are in the form in which predictions are compared; they are what a network learns to score.
    """
    forms = dict.fromkeys(compared(answer, answers, rule)[0] for answer in answers)
    matches = {form: _matches(form, answers, rule) for form in forms if form}
    given = sorted(matches, key=matches.__getitem__, reverse=True)
    return {form: _accuracy(matches[form], len(answers), rule) for form in given if matches[form]}


def unusable(answers: Sequence[str], rule: AnswerRule) -> str | None:
    """Returns why a question with these answers cannot be used under a rule, None if it can."""
    if not answers or not all(answer.strip() for answer in answers):
        return "empty answer" if answers else "empty answer: there is none"
    if rule == "single" and len(answers) > 1:
        return f"wrong number of answers: {len(answers)}, model.answer_rule=single takes one"
    if rule != "single" and not FEWEST_ANSWERS <= len(answers) <= MOST_ANSWERS:
        fix = f"the rule takes {FEWEST_ANSWERS} to {MOST_ANSWERS}; model.answer_rule=single takes one"
        return f"wrong number of answers: {len(answers)}, {fix}"
    return None
