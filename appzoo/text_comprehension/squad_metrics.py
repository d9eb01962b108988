"""Exact match and F1 of answer texts by the rules of SQuAD 1.1, SQuAD 2.0 and CMRC 2018."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
# What CMRC 2018 drops before it compares: some ASCII signs and most Chinese punctuation.
_CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CHINESE = re.compile(r"[\u4e00-\u9fa5]")
# A run of anything else in a Chinese text: words and numbers stay whole, other signs stand alone.
_OTHER_WORDS = re.compile(r"[^\W_]+|[^\w\s]")


def normalize_answer(text: str) -> str:
    """Returns a text in lower case without ASCII punctuation, the articles a, an, the, and surplus white space.

    Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1, as the official script applies it.
    """
    text = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(predicted: str, gold: str) -> float:
    """Returns 1.0 if both texts are the same after `normalize_answer`, else 0.0."""
    return float(normalize_answer(predicted) == normalize_answer(gold))


def squad1_f1(predicted: str, gold: str) -> float:
    """Returns the F1 of the bags of words of both texts; 0.0 when they share no word, so also when both are empty."""
    return _bag_f1(normalize_answer(predicted).split(), normalize_answer(gold).split())


def squad2_f1(predicted: str, gold: str) -> float:
    """Returns the F1 of the bags of words; where a text has no word, 1.0 if both have none, else 0.0."""
    found, true = normalize_answer(predicted).split(), normalize_answer(gold).split()
    return _bag_f1(found, true) if found and true else float(found == true)


def cmrc_exact_match(predicted: str, gold: str) -> float:
    """Returns 1.0 if both texts are the same without punctuation and in lower case, else 0.0."""
    return float(_without_punctuation(predicted) == _without_punctuation(gold))


def cmrc_f1(predicted: str, gold: str) -> float:
    """Returns the F1 from the longest run of units both texts share, by the rule of CMRC 2018 (arXiv 1810.07366).

    Units are Chinese characters, and words elsewhere; the official script splits those with NLTK, which gives the
    same for words and numbers without punctuation inside.
    """
    found, true = chinese_units(predicted), chinese_units(gold)
    shared = _longest_common_run(found, true)
    return _f1(shared, len(found), len(true))


def chinese_units(text: str) -> list[str]:
    """Returns the Chinese characters and other words of a text, in lower case and without punctuation."""
    units: list[str] = []
    other = ""
    for character in text.lower().strip():
        if character in _CMRC_PUNCTUATION:
            continue
        if _CHINESE.match(character):
            units.extend([*_OTHER_WORDS.findall(other), character])
            other = ""
        else:
            other += character
    return [*units, *_OTHER_WORDS.findall(other)]


def _without_punctuation(text: str) -> str:
    return "".join(character for character in text.lower().strip() if character not in _CMRC_PUNCTUATION)


def _bag_f1(found: list[str], true: list[str]) -> float:
    return _f1(sum((Counter(found) & Counter(true)).values()), len(found), len(true))


def _f1(shared: int, found: int, true: int) -> float:
    """Returns the harmonic mean in the order of operations of the official scripts."""
    if not shared:
        return 0.0
    precision, recall = 1.0 * shared / found, 1.0 * shared / true
    return (2 * precision * recall) / (precision + recall)


def _longest_common_run(first: list[str], second: list[str]) -> int:
    longest = 0
    previous = [0] * (len(second) + 1)
    for unit in first:
        current = [0] * (len(second) + 1)
        for j, other in enumerate(second):
            if unit == other:
                current[j + 1] = previous[j] + 1
        longest, previous = max(longest, *current), current
    return longest


@dataclass(frozen=True)
class AnswerMetric:
    """How a predicted text is compared with one right answer."""

    exact: Callable[[str, str], float]
    f1: Callable[[str, str], float]

    def score(self, predicted: str, golds: Sequence[str]) -> tuple[float, float]:
        """Returns exact match and F1 against the right answer that fits best; no right answer means the empty one."""
        golds = golds or [""]
        return max(self.exact(predicted, gold) for gold in golds), max(self.f1(predicted, gold) for gold in golds)


METRICS = {
    "squad1": AnswerMetric(exact_match, squad1_f1),
    "squad2": AnswerMetric(exact_match, squad2_f1),
    "cmrc": AnswerMetric(cmrc_exact_match, cmrc_f1),
}


def evaluate(
    predictions: Mapping[str, str], golds: Mapping[str, Sequence[str]], metric: str = "squad1"
) -> dict[str, float]:
    """Returns `exact_match` and `f1` in percent over all questions of `golds`; a missing prediction scores 0.

    Args:
        predictions: Text by question id.
        golds: Right answers by question id; for `squad2`, those without a word left are not counted as answers.
        metric: `squad1`, `squad2` or `cmrc`.
    """
    rule = METRICS[metric]
    exact = f1 = 0.0
    for name, texts in golds.items():
        if name in predictions:
            one_exact, one_f1 = rule.score(predictions[name], right_answers(texts, metric))
            exact, f1 = exact + one_exact, f1 + one_f1
    return {"exact_match": 100.0 * exact / len(golds), "f1": 100.0 * f1 / len(golds)}


def right_answers(texts: Sequence[str], metric: str) -> list[str]:
    """Returns the texts that count as right answers: SQuAD 2.0 leaves out those without a word."""
    return [text for text in texts if normalize_answer(text)] if metric == "squad2" else list(texts)
