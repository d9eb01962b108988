"""Exact match and F1 against the published rules, written out again here as plainly as possible."""

import json
import random
import re
import string
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appzoo.text_comprehension import squad_metrics as squad

WORDS = [
    "the",
    "a",
    "an",
    "Answer",
    "answer,",
    "THE",
    "Basel",
    "Basel.",
    "1832",
    "don't",
    "(x)",
    "über",
    "",
    "  ",
    "桥",
    "a-b",
]


def normalised(text):
    """Rajpurkar et al. 2016, section 6.1: lower case, no punctuation, no articles, single spaces."""
    text = text.lower()
    text = "".join(c for c in text if c not in set(string.punctuation))
    text = re.sub(r"\b(a|an|the)\b", " ", text)
    return " ".join(text.split())


def oracle_f1(predicted, gold, version):
    found, true = normalised(predicted).split(), normalised(gold).split()
    if version == 2 and (len(found) == 0 or len(true) == 0):
        return int(found == true)
    same = sum((Counter(found) & Counter(true)).values())
    if same == 0:
        return 0
    precision = 1.0 * same / len(found)
    recall = 1.0 * same / len(true)
    return (2 * precision * recall) / (precision + recall)


def oracle(predictions, golds, version):
    exact = f1 = 0
    for name, texts in golds.items():
        if name not in predictions:
            continue
        if version == 2:
            texts = [text for text in texts if normalised(text)]
        texts = texts or [""]
        exact += max(int(normalised(text) == normalised(predictions[name])) for text in texts)
        f1 += max(oracle_f1(predictions[name], text, version) for text in texts)
    return {"exact_match": 100.0 * exact / len(golds), "f1": 100.0 * f1 / len(golds)}


def some_text(chooser):
    return " ".join(chooser.choice(WORDS) for _ in range(chooser.randrange(6)))


@pytest.mark.parametrize("version", [1, 2])
def test_every_prediction_scores_as_published_to_the_last_digit(version):
    chooser = random.Random(0)
    golds = {str(n): [some_text(chooser) for _ in range(chooser.randrange(1, 4))] for n in range(3000)}
    # Some predictions equal a right answer, some share words with it, some are missing.
    predictions = {
        name: chooser.choice([texts[0], some_text(chooser), texts[-1] + " " + some_text(chooser)])
        for name, texts in golds.items()
        if chooser.random() > 0.01
    }
    rule = squad.METRICS[f"squad{version}"]
    for name, text in predictions.items():
        for gold in golds[name]:
            assert rule.f1(text, gold) == oracle_f1(text, gold, version)
            assert rule.exact(text, gold) == (normalised(text) == normalised(gold))
    found = squad.evaluate(predictions, golds, f"squad{version}")
    assert found == oracle(predictions, golds, version)
    assert 0 < found["exact_match"] < found["f1"] < 100


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_scores_as_published(predicted, gold):
    assert squad.squad1_f1(predicted, gold) == oracle_f1(predicted, gold, 1)
    assert squad.squad2_f1(predicted, gold) == oracle_f1(predicted, gold, 2)
    assert squad.exact_match(predicted, gold) == (normalised(predicted) == normalised(gold))


def test_no_answer_is_right_in_squad2_where_there_is_none():
    assert squad.evaluate({"q": ""}, {"q": []}, "squad2") == {"exact_match": 100.0, "f1": 100.0}
    assert squad.evaluate({"q": "Basel"}, {"q": []}, "squad2") == {"exact_match": 0.0, "f1": 0.0}
    assert squad.evaluate({"q": ""}, {"q": ["the"]}, "squad1") == {"exact_match": 100.0, "f1": 0.0}


# CMRC 2018 ---------------------------------------------------------------------------------------------------


def cmrc_oracle_f1(predicted, gold):
    """Chinese characters are units; F1 from the longest common run, by trying every run."""
    drop = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")

    def units(text):
        kept = "".join(c for c in text.lower().strip() if c not in drop)
        return re.findall(r"[\u4e00-\u9fa5]|[^\W_\u4e00-\u9fa5]+|[^\w\s]", kept)

    found, true = units(predicted), units(gold)
    longest = max(
        [
            length
            for i in range(len(found))
            for length in range(1, len(found) - i + 1)
            if any(found[i : i + length] == true[j : j + length] for j in range(len(true)))
        ],
        default=0,
    )
    if longest == 0:
        return 0
    precision, recall = longest / len(found), longest / len(true)
    return 2 * precision * recall / (precision + recall)


def test_cmrc_counts_characters_and_ignores_punctuation():
    assert squad.cmrc_exact_match("《光荣》和ω-force", "光荣和ω-force。") == 1.0
    assert squad.chinese_units("1983年，FORCE 开发") == ["1983", "年", "force", "开", "发"]
    assert squad.cmrc_f1("村雨城", "游戏村雨城的") == pytest.approx(2 * 1 * 0.5 / 1.5)
    chooser = random.Random(1)
    for _ in range(500):
        texts = ["".join(chooser.choice("光荣和村，。ab 12") for _ in range(chooser.randrange(9))) for _ in range(2)]
        assert squad.cmrc_f1(*texts) == pytest.approx(cmrc_oracle_f1(*texts), abs=0), texts


def test_real_answers_score_full_marks_against_themselves(shared_data):
    for name, metric in (("xquad.en", "squad1"), ("cmrc2018_trial", "cmrc")):
        data = json.loads((shared_data / "squad" / f"{name}.json").read_text(encoding="utf-8"))["data"]
        golds = {q["id"]: [a["text"] for a in q["answers"]] for d in data for p in d["paragraphs"] for q in p["qas"]}
        predictions = {name: texts[-1] for name, texts in golds.items()}
        found = squad.evaluate(predictions, golds, metric)
        assert found == {"exact_match": 100.0, "f1": 100.0}
        shortened = {name: text[: len(text) // 2] for name, text in predictions.items()}
        if metric == "squad1":
            assert squad.evaluate(shortened, golds, metric) == oracle(shortened, golds, 1)
        assert 0 < squad.evaluate(shortened, golds, metric)["f1"] < 100
