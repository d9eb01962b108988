"""The pages that applications write beside the report: in its style, without other files, readable in a browser."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from appzoo.labeling.found import entity_page
from appzoo.multimodal_match.pages import write_retrieval
from appzoo.text_comprehension.evaluation import write_answers
from appzoo.text_generation.target import GeneratedText
from appzoo.text_pretrain.target import HiddenWords
from appzoo.win_prediction.pages import minute_page
from easytransfer.data.encoded import EncodedTable, HostColumn, Ragged
from easytransfer.run.page import POLICY

pytestmark = pytest.mark.draws_nothing

WORDS = ["[PAD]", "[CLS]", "[SEP]", "<b>star</b>", "moon", "a *word*"]
TOKENIZER = SimpleNamespace(
    vocab=WORDS, cls_id=1, sep_id=2, pad_id=0, decode=lambda rows: [" ".join(WORDS[i] for i in row) for row in rows]
)


def entities(folder: Path) -> str:
    kinds = ["LOC", "ORG", "PER", "MISC", "DATE", "LAW", "WORK", "EVENT", "MONEY"]
    text = "Ada Lovelace came to London."
    found = [{"type": kind, "start": 0, "end": 12, "text": text[:12]} for kind in kinds]
    true = [*([entity] for entity in found), [{"type": "LOC", "start": 21, "end": 27, "text": "London"}]]
    page = entity_page([text] * len(true), true, [*true[:-1], [found[2]]])
    (folder / "entities.html").write_text(page)
    return "entities.html"


def answers(folder: Path) -> str:
    context = "The castle stands on a rock above the river.\nIt was built in 1200. " * 9
    gold = SimpleNamespace(text="a rock", start=21, end=27)
    asked = SimpleNamespace(id="q1", question="Where?", context=context, golds=[gold], gold_texts=["a rock"])
    found = SimpleNamespace(text="rock above", start=23, end=33, probability=0.5)
    return write_answers(folder, [(asked, found), (asked, SimpleNamespace(**vars(gold), probability=0.75))], "squad1")


def texts(folder: Path) -> str:
    target = GeneratedText("summary", SimpleNamespace(tokenizer=TOKENIZER), 8)
    encoded = EncodedTable({"wanted": HostColumn.of(["<b>star</b> moon", "moon", "a *word*"])})
    (name,) = target.report(folder, encoded, {"ids": np.array([[3, 4], [3, 3], [4, 5]])})
    return name


def words(folder: Path) -> str:
    target = HiddenWords(SimpleNamespace(tokenizer=TOKENIZER))
    encoded = EncodedTable({"input_ids": Ragged.from_lists([[1, 3, 4, 5, 2], [1, 4, 4, 2]])})
    outputs = {
        "hidden": np.array([2, 0]),
        "hidden_positions": np.array([[1, 2], [0, 0]]),
        "guesses": np.array([[3, 3], [0, 0]]),
    }
    (name,) = target.report(folder, encoded, outputs)
    return name


def retrieval(folder: Path) -> str:
    columns = {
        "input_ids": Ragged.from_lists([[1, 3, 2]] * 3),
        "image_id": HostColumn.of(["a.png", "b.png", "c.png"]),
        "label_id": np.int32([0, 1, 0]),
    }
    (name,) = write_retrieval(folder, EncodedTable(columns), np.float32([[0, 0], [0, 1], [0, 2]]), TOKENIZER)
    return name


def minutes(folder: Path) -> str:
    row = {"minute": 1, "games": 1200, "frames": 1200, "accuracy": 0.75, "nll": 0.5, "brier": 0.25, "auc": None}
    (folder / "minutes.html").write_text(minute_page([row, {**row, "minute": 2}], {"accuracy": [0.7, 0.8]}, 1200))
    return "minutes.html"


PAGES = [entities, answers, texts, words, retrieval, minutes]


@pytest.mark.parametrize("write", PAGES)
def test_pages_are_in_the_style_of_the_report(write, tmp_path):
    page = (tmp_path / write(tmp_path)).read_text(encoding="utf-8")
    assert page.startswith('<!doctype html>\n<html lang="en">') and '<meta name="viewport"' in page
    assert f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">' in page
    assert page.count("<h1>") == 1 and '<a href="report.html">Report</a>' in page and "<section" in page
    # The policy allows no style of an element, and a text is no HTML and no Markdown.
    assert " style=" not in page and "<b>" not in page and "<em>word" not in page
    assert set(re.findall(r"<mark[^>]*>", page)) <= {
        *(f'<mark class="{kind}">' for kind in ("wrong", "missed", "hue-1 wrong", "hue-4 wrong", "hue-7 wrong")),
        *(f'<mark class="hue-{number}{missed}">' for number in range(8) for missed in ("", " missed")),
    }


def test_what_they_show(tmp_path):
    found = {write.__name__: (tmp_path / write(tmp_path)).read_text(encoding="utf-8") for write in PAGES}
    assert "9 of 10 rows are right" in found["entities"] and "<td>10 predicted</td>" in found["entities"]
    assert '<mark class="hue-3 missed">London<small>LOC</small></mark>' in found["entities"]
    assert "2 questions, 1 without an exact match" in found["answers"]
    assert "right <q>a rock</q>; predicted <q>rock above</q> (probability 0.50, F1 0.67)" in found["answers"]
    assert '<mark class="hue-2">a </mark><span class="found"><mark class="hue-2">rock</mark></span>' in found["answers"]
    # Two of three rows have other words than wanted, and come first.
    assert "2 of the first 3 evaluation rows have other words" in found["texts"]
    assert "<tr><td>moon</td><td>&lt;b&gt;star&lt;/b&gt; &lt;b&gt;star&lt;/b&gt;</td></tr>" in found["texts"]
    assert found["texts"].index("<td>a *word*</td>") < found["texts"].index("<td>&lt;b&gt;star&lt;/b&gt; moon</td>")
    guessed = '<mark class="hue-2">&lt;b&gt;star&lt;/b&gt;</mark>'
    assert f'{guessed} <mark class="hue-1 wrong">moon (&lt;b&gt;star&lt;/b&gt;)</mark> a *word*' in found["words"]
    assert "<td>2 of 3</td>" in found["retrieval"] and '<mark class="hue-2">b.png 0.73</mark>' in found["retrieval"]
    assert (
        '<td class="number">1,200</td>' in found["minutes"] and '<td class="number">undefined</td>' in found["minutes"]
    )


@pytest.mark.parametrize("write", [entities, *(pytest.param(page, marks=pytest.mark.slow) for page in PAGES[1:])])
def test_pages_in_a_browser(write, tmp_path, browser):
    place = (tmp_path / write(tmp_path)).as_uri()
    browser.open(place)
    assert browser.addresses() == [place] and browser.complaints() == []
    browser.check_access(f"page-of-{write.__name__}")
