"""BLEU against sacrebleu, ROUGE against rouge-score and cases worked by hand."""

import random

import numpy as np
import pytest

from appzoo.text_generation.metrics import TextEvaluator, bleu, bleu_counts, bleu_words, rouge_l, rouge_n, rouge_words

WORDS = (
    "the a cat dog sat on mat of it's 3.5 1,000 e-mail well-known 10-year A.B. $5 (yes) 50% & < don't , . ; :".split()
)


def pairs(count, seed=0):
    """Texts and changed copies of them."""
    draw = random.Random(seed)
    for _ in range(count):
        wanted = [draw.choice(WORDS) for _ in range(draw.randint(1, 14))]
        found = [word for word in wanted if draw.random() > 0.2]
        if draw.random() < 0.5:
            found.insert(draw.randint(0, len(found)), draw.choice(WORDS))
        yield " ".join(found), " ".join(wanted)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 2, 40])
def test_bleu_is_that_of_sacrebleu(seed, count):
    sacrebleu = pytest.importorskip("sacrebleu")
    found, wanted = zip(*pairs(count, seed), strict=True)
    counts = sum(bleu_counts(a, b) for a, b in zip(found, wanted, strict=True))
    assert bleu(counts) == pytest.approx(sacrebleu.corpus_bleu(found, [wanted]).score, abs=1e-9)


def test_words_of_bleu_are_those_of_sacrebleu():
    tokenizer = pytest.importorskip("sacrebleu.tokenizers.tokenizer_13a").Tokenizer13a()
    texts = [text for pair in pairs(60, 9) for text in pair]
    texts += [
        "3.5,7 -4 5-6 a-b x.y U.S.A.",
        "&quot;a&amp;b&quot; &lt;c&gt;",
        "end-\nof line\nnext",
        "#1 @me a_b [c]{d}~",
    ]
    texts += ["naïve café – no…", "", "tab\there <skipped> it`s"]
    for text in texts:
        assert bleu_words(text) == tokenizer(text).split(), text


def test_chinese_is_counted_sign_by_sign():
    assert bleu_words("质量不错 ok") == ["质", "量", "不", "错", "ok"]
    assert rouge_words("质量 OK3 café_x") == ["质", "量", "ok3", "café", "x"]


def test_rouge_is_that_of_rouge_score():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    for found, wanted in pairs(100, 3):
        expected = scorer.score(wanted, found)
        a, b = rouge_words(found), rouge_words(wanted)
        assert rouge_n(a, b, 1) == pytest.approx(expected["rouge1"].fmeasure)
        assert rouge_n(a, b, 2) == pytest.approx(expected["rouge2"].fmeasure)
        assert rouge_l(a, b) == pytest.approx(expected["rougeL"].fmeasure)


def test_rouge_worked_by_hand():
    """Lin 2004, section 3: of "police killed the gunman", "police kill the gunman" has three words."""
    wanted, found = "police killed the gunman".split(), "police kill the gunman".split()
    assert rouge_l(found, wanted) == rouge_n(found, wanted, 1) == 0.75
    assert rouge_n(found, wanted, 2) == pytest.approx(1 / 3)
    assert rouge_l("the gunman kill police".split(), wanted) == 0.5
    assert rouge_l([], wanted) == rouge_n(found, [], 1) == rouge_n(["one"], ["one"], 2) == 0.0
    # Repeated n-grams count as often as the other text has them.
    assert rouge_n(["a", "a", "a"], ["a", "b"], 1) == pytest.approx(2 / 5)


def test_bleu_worked_by_hand():
    # Seven words of seven, six pairs, five and four: the same text.
    assert bleu(bleu_counts("a b c d e f g", "a b c d e f g")) == pytest.approx(100)
    # Shares 4/5, 3/4, 2/3, 1/2; one word too short.
    expected = 100 * np.exp(1 - 6 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu(bleu_counts("a b c d x", "a b c d e f")) == pytest.approx(expected)
    assert bleu(bleu_counts("", "a b")) == bleu(bleu_counts("x y z w", "a b c d")) == 0.0


def test_evaluators_of_parts_make_that_of_all():
    rows = [*pairs(30, 5), ("a  b ", "a b")]
    whole, *parts = (TextEvaluator("rouge_l", None) for _ in range(4))
    for number, (found, wanted) in enumerate(rows):
        whole.add(found, wanted)
        parts[number % 3].add(found, wanted)
    for part in parts[1:]:
        parts[0].merge(part.state())
    assert parts[0].result() == pytest.approx(whole.result(), abs=1e-12)
    same = [found.split() == wanted.split() for found, wanted in rows]
    assert whole.result()["exact_match"] == pytest.approx(np.mean(same)) and 0 < np.mean(same) < 1
    assert set(TextEvaluator("bleu", None).result().values()) == {0.0}
