"""Texts and cells made to burn time or to be more than text where they are shown.

The bounds of time are generous: what is tested takes milliseconds, and minutes to years where work grows with the
square, or worse, of the length.
"""

import csv
import html.parser
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest
from time_limit import within

from appzoo.labeling.found import entity_page
from appzoo.text_comprehension.evaluation import write_answers
from easytransfer.config.job import DataConfig
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.data.writers import open_writer
from easytransfer.errors import DataError, ModelError
from easytransfer.run import log
from easytransfer.run.card import _plain
from easytransfer.text.vocabulary import SPECIAL_TOKENS, read_vocabulary
from easytransfer.text.wordpiece import WordPiece
from easytransfer.text.words import split_words

SECONDS = 10
LONG = 200_000
TEXTS = {
    "one_word": "a" * LONG,
    "one_word_that_nearly_matches": "aa" * (LONG // 2) + "b",
    "combining_marks": "e" + "\u0301\u0316" * (LONG // 2),
    "marks_in_the_wrong_order": "\u0345\u0334" * (LONG // 2),
    "ideographs": "\u4e2d" * LONG,
    "hangul_that_decomposes": "\ud7a3" * LONG,
    "ligature_that_expands": "\ufdfa" * LONG,
    "punctuation": "!" * LONG,
    "emoji_of_families": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * (LONG // 5),
    "directions": "\u202e\u2066" * (LONG // 2),
    "controls": "\x01\x7f\x85" * (LONG // 3),
    "spaces_of_all_kinds": " \u00a0\u3000\t\n" * (LONG // 5),
    "special_tokens": "[SEP][MASK]" * (LONG // 11),
    "capitals_that_grow": "\u0130" * LONG,
    "outside_of_the_first_plane": "\U0010ffff" * LONG,
}
VOCABULARY = [*SPECIAL_TOKENS, "a", "##a", "##aa", "aaaa", "##aaaa", "e", "!", "\u4e2d"]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_tokenizing_takes_time_in_proportion(text):
    tokenizer = WordPiece(VOCABULARY)
    with within(SECONDS):
        encoded = tokenizer.encode([text, text], [text, "a"], max_length=64)
        assert encoded.input_ids.lengths.max() <= 64
        ids, spans = tokenizer.pieces_with_offsets([text])
        assert spans.values.max(initial=0) <= len(text)
        split_words(text, "all")
        split_words(text, "cjk")


def test_tokenizing_in_the_graph_takes_time_in_proportion(tmp_path):
    """What a server does with a request, before the model sees it."""
    import tensorflow as tf

    encode = WordPiece(VOCABULARY).in_graph(64)
    encode(tf.constant(["warm"]))
    for name, text in TEXTS.items():
        begin = time.monotonic()
        assert encode(tf.constant([text]))["input_ids"].shape[1] <= 64, name
        assert time.monotonic() - begin < SECONDS, name


def test_a_model_cannot_ask_for_words_of_any_length(tmp_path):
    """The search for the longest piece takes the square of a word's length, which tokenizer_config.json bounds."""
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    for length in (1001, 10**9, 0, -1):
        (tmp_path / "tokenizer_config.json").write_text(f'{{"max_input_chars_per_word": {length}}}')
        with pytest.raises(ModelError, match="bad max_input_chars_per_word.*accepted: 1 to 1000"):
            read_vocabulary(tmp_path)


def test_half_a_surrogate_pair_is_a_bad_row(tmp_path):
    """JSON can spell it, UTF-8 cannot hold it, and the tokenizer cannot take it."""
    (tmp_path / "t.jsonl").write_text('{"text": "good"}\n{"text": "\\ud800"}\n{"text": "\\ud83d\\ude00"}\n')
    bad_rows = BadRows("skip")
    table = open_table(str(tmp_path / "t.jsonl"), schema=parse_schema("text:str:1"), bad_rows=bad_rows)
    rows = [text for chunk in table.chunks() for text in chunk.columns["text"]]
    assert rows == ["good", "\U0001f600"] and dict(bad_rows.reasons) == {"invalid UTF-8": 1}
    with pytest.raises(DataError, match="half of a surrogate pair"):
        WordPiece(VOCABULARY).encode(["\ud800"])


# Regular expressions ----------------------------------------------------------------------------------------


def expressions(repository):
    """Every `NAME = re.compile(literal)` of the packages with the methods it is used by; and that many there are."""
    found = []
    for path in sorted(
        p for package in ("easytransfer", "modelzoo", "appzoo") for p in (repository / package).rglob("*.py")
    ):
        found += _expressions(path)
    return found


def _expressions(path):
    import ast

    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        value = getattr(node, "value", None)
        if not (
            isinstance(node, ast.Assign) and isinstance(value, ast.Call) and ast.unparse(value.func) == "re.compile"
        ):
            continue
        try:
            pattern = ast.literal_eval(value.args[0])
        except ValueError:
            continue  # put together from parts, all of them character classes
        flags = eval(ast.unparse(value.args[1]), {"re": re}) if len(value.args) > 1 else 0
        name = ast.unparse(node.targets[0])
        used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == name}
        yield f"{path.stem}.{name}", re.compile(pattern, flags), used & {"match", "fullmatch", "search", "sub", "split"}


def test_no_expression_can_be_made_slow(repository):
    """Each is applied, as the code applies it, to long texts of the characters and words it is about."""
    found = expressions(repository)
    assert len(found) > 20
    slow = []
    # By the time of this process: a busy machine makes no expression slow.
    for name, expression, used in found:
        pattern = expression.pattern
        plain = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
        alphabet = {*'a0 "\\/#=:.-_[|$\t\n', "\u4e2d", *plain}
        words = re.findall(r"[A-Za-z]{3,}", plain)
        for unit in [*sorted(alphabet), *words, 'a"', "\\a", "a ", "a=", "a/", "a.", "a-", "://a", "1,", "a://@"]:
            text = (unit * (20_000 // len(unit) + 1)) + "\x00"
            text, nothing = (text, "") if isinstance(pattern, str) else (text.encode("utf-8"), b"")
            for method in used or {"fullmatch"}:
                begin = time.process_time()
                try:
                    with within(1, of_this_process=True):
                        expression.sub(nothing, text) if method == "sub" else getattr(expression, method)(text)
                except TimeoutError:
                    slow.append(f"{name}.{method} of {unit!r}: {time.process_time() - begin:.1f} s")
    assert slow == []


def test_the_clock_of_the_test_above_ends_a_slow_expression():
    with pytest.raises(TimeoutError), within(0.2, of_this_process=True):
        re.match(r"(a+)+$", "a" * 40 + "b")


# What is shown ----------------------------------------------------------------------------------------------

SCRIPT = "<script>alert(1)</script>"
NASTY = f"{SCRIPT}<img src=x onerror=alert(1)>\"'>&lt;</title></style><!--"


# Attributes that pages of applications have; the one script is that of all pages, which the policy names by its hash.
OF_PAGES = {*("class", "charset", "lang", "name", "content", "http-equiv", "rel", "href", "aria-label", "scope")}


class Page(html.parser.HTMLParser):
    """Collects elements with their attributes, and all text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.texts.append(data)


def test_page_of_entities_shows_names_and_texts_as_text():
    text = f"{NASTY} word"
    entity = {"type": NASTY, "start": 0, "end": len(NASTY), "text": NASTY}
    page = Page(entity_page([text, text], [[entity], []], [[entity], [entity]]))
    assert page.tags.count("script") == 1 and "img" not in page.tags and page.attributes <= OF_PAGES
    assert NASTY in "".join(page.texts)


def test_page_of_answers_shows_names_and_texts_as_text(tmp_path):
    gold = SimpleNamespace(text=NASTY, start=0, end=len(NASTY))
    asked = SimpleNamespace(id=NASTY, question=NASTY, context=f"{NASTY} {NASTY}", golds=[gold], gold_texts=[NASTY])
    answer = SimpleNamespace(text=NASTY, start=3, end=9, probability=0.5)
    name = write_answers(tmp_path, [(asked, answer)], "squad1")
    page = Page((tmp_path / name).read_text())
    assert page.tags.count("script") == 1 and "img" not in page.tags and page.attributes <= OF_PAGES
    assert "".join(page.texts).count(SCRIPT) >= 4


@pytest.mark.parametrize("text", [NASTY, f"` {NASTY} ``", f"``` {NASTY}", f"`a` {NASTY} `b`", f"``{NASTY}`"])
def test_model_card_shows_labels_as_text(text):
    assert "<" not in _plain(text)


def test_model_card_keeps_code():
    assert _plain("`a < b & c`") == "`a < b & c`"


FORMULAS = ["=1+1", "=cmd|'/C calc'!A0", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x","y")', "0x", "'=1"]


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl"])
def test_tables_hold_what_they_were_given(tmp_path, suffix):
    """Tables are read by programs, and a row that was changed would be a wrong row: see SECURITY.md."""
    path = tmp_path / f"out.{suffix}"
    with open_writer(path, ["text"]) as writer:
        writer.write({"text": FORMULAS})
    schema = None if suffix != "tsv" else parse_schema("text:str:1")
    data = DataConfig(delimiter=",", header="names") if suffix == "csv" else DataConfig()
    table = open_table(str(path), schema=schema, data=data)
    assert [text for chunk in table.chunks() for text in chunk.columns["text"]] == FORMULAS
    if suffix == "csv":
        with open(path, newline="") as file:
            assert [row[0] for row in csv.reader(file)] == ["text", *FORMULAS]


def test_messages_do_not_steer_the_terminal(capsys, tmp_path):
    log.setup_logging()
    log.warn("label \x1b]0;title\x07\x1b[2J\x9b31m\rgone\u202e")
    shown = capsys.readouterr().err
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown) and r"\x1b[2J" in shown


def test_cells_of_numbers_without_end_are_bad_rows(tmp_path):
    (tmp_path / "t.jsonl").write_text(
        '{"a": 1, "b": 1}\n{"a": 1' + "0" * 400 + ', "b": 1}\n{"a": 1, "b": ' + "9" * 5000 + "}\n"
        '{"a": ' + "[" * 900 + "]" * 900 + ', "b": 1}\n{"a": ' + "[" * 100_000 + "\n"
    )
    table = open_table(str(tmp_path / "t.jsonl"), schema=parse_schema("a:float:1,b:int:1"), bad_rows=BadRows("skip"))
    rows = [np.asarray(chunk.columns["a"]) for chunk in table.chunks()]
    assert np.concatenate(rows).tolist() == [1.0] and table.count.rejected == 4
