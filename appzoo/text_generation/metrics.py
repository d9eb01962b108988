"""How near written texts are to the wanted ones: exact match, BLEU and ROUGE, in sums that workers can add up.

BLEU: Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation", as sacrebleu computes it.
ROUGE: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", F1 as the package rouge-score computes it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from easytransfer.metrics.evaluator import Evaluator

_ORDERS = 4
_ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}
# Signs that are words of their own, but for dots and commas between digits and hyphens that follow no digit.
_SIGNS = re.compile(r"([!-&(-+/:-@\[-`{-~])")
_POINT_BEHIND, _POINT_BEFORE = re.compile(r"(\D)([.,])"), re.compile(r"([.,])(\D)")
_HYPHEN = re.compile(r"(\d)-")
# Characters that are words of their own, as they are written without spaces.
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
_ROUGE_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")


def bleu_words(text: str) -> list[str]:
    """Returns the words of a text by the rules of the script mteval-v13a, Chinese and Japanese ones sign by sign."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in _ENTITIES.items():
        text = text.replace(entity, sign)
    text = _SIGNS.sub(r" \1 ", f" {text} ")
    text = _POINT_BEFORE.sub(r" \1 \2", _POINT_BEHIND.sub(r"\1 \2 ", text))
    return re.sub(rf"([{_CJK}])", r" \1 ", _HYPHEN.sub(r"\1 - ", text)).split()


def rouge_words(text: str) -> list[str]:
    """Returns runs of letters and digits, in lower case, Chinese and Japanese signs one by one."""
    return _ROUGE_WORD.findall(text.lower())


def ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    """Returns how often each run of so many words is there."""
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


def bleu_counts(found: str, wanted: str) -> np.ndarray:
    """Returns what BLEU is made of, int64 [10]: lengths of both, n-grams that match by order, n-grams by order."""
    a, b = bleu_words(found), bleu_words(wanted)
    counts = [ngrams(a, order) for order in range(1, _ORDERS + 1)]
    matching = [(count & ngrams(b, order)).total() for order, count in enumerate(counts, 1)]
    return np.array([len(a), len(b), *matching, *(count.total() for count in counts)], np.int64)


def bleu(counts: np.ndarray) -> float:
    """Returns BLEU of a corpus from 0 to 100, from the sum of its `bleu_counts`.

    The geometric mean of the shares of n-grams that match, times a penalty for being short. Of orders without a match
    the share is halved for each such order, as sacrebleu's exponential smoothing has it.
    """
    (length, wanted), matching, total = counts[:2], counts[2 : 2 + _ORDERS], counts[2 + _ORDERS :]
    if not matching.any() or not total.all():
        return 0.0
    logarithms, halved = [], 1
    for hits, count in zip(matching.tolist(), total.tolist(), strict=True):
        if not hits:
            halved *= 2
        logarithms.append(math.log(hits / count if hits else 1 / (halved * count)))
    penalty = min(0.0, 1 - wanted / length)
    return 100 * math.exp(penalty + sum(logarithms) / _ORDERS)


def rouge_n(found: Sequence[str], wanted: Sequence[str], order: int) -> float:
    """Returns F1 of the n-grams of two lists of words."""
    a, b = ngrams(found, order), ngrams(wanted, order)
    return _f1((a & b).total(), a.total(), b.total())


def rouge_l(found: Sequence[str], wanted: Sequence[str]) -> float:
    """Returns F1 of the longest common subsequence of two lists of words."""
    row = [0] * (len(wanted) + 1)
    for word in found:
        before = row
        row = [0]
        for place, other in enumerate(wanted):
            row.append(before[place] + 1 if word == other else max(row[-1], before[place + 1]))
    return _f1(row[-1], len(found), len(wanted))


def _f1(common: int, found: int, wanted: int) -> float:
    return 2 * common / (found + wanted) if common else 0.0


class TextEvaluator(Evaluator):
    """`exact_match`, `rouge_1`, `rouge_2`, `rouge_l` from 0 to 1, means over rows; `bleu` of all rows from 0 to 100.

    Spaces at the ends and several in a row make no difference.

    Args:
        main_metric: Metric that decides which checkpoint is best.
        texts: Takes a batch and its outputs to the written texts and the wanted ones.
    """

    def __init__(self, main_metric: str, texts: object) -> None:
        self.main_metric, self.higher_is_better = main_metric, True
        self._texts = texts
        self._rows, self._sums, self._counts = 0, np.zeros(4), np.zeros(2 + 2 * _ORDERS, np.int64)

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows."""
        for found, wanted in zip(*self._texts(batch, outputs), strict=True):
            self.add(found, wanted)

    def add(self, found: str, wanted: str) -> None:
        """Adds one row."""
        a, b = rouge_words(found), rouge_words(wanted)
        same = float(found.split() == wanted.split())
        self._sums += [same, rouge_n(a, b, 1), rouge_n(a, b, 2), rouge_l(a, b)]
        self._counts += bleu_counts(found, wanted)
        self._rows += 1

    def state(self) -> tuple[int, list[float], list[int]]:
        """Returns rows, sums of the means, and sums of the counts of BLEU."""
        return self._rows, self._sums.tolist(), self._counts.tolist()

    def merge(self, state: tuple[int, list[float], list[int]]) -> None:
        """Adds those of another evaluator."""
        self._rows += state[0]
        self._sums += state[1]
        self._counts += np.array(state[2], np.int64)

    def result(self) -> dict[str, float]:
        """Returns the metrics by name."""
        means = (self._sums / max(self._rows, 1)).tolist()
        return dict(zip(("exact_match", "rouge_1", "rouge_2", "rouge_l"), means, strict=True)) | {
            "bleu": bleu(self._counts)
        }
