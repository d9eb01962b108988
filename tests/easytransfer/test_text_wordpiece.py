"""`WordPiece` against hand-worked rows, a brute-force truncation, and `transformers` on the multilingual corpus."""

import random
import threading

import numpy as np
import pytest
from multilingual_corpus import character_vocabulary, corpus, minilm_folder, pairs
from tokenizers import Tokenizer

from easytransfer.errors import ConfigError, ModelError
from easytransfer.text.chunks import ChunkBank
from easytransfer.text.packing import longest_first
from easytransfer.text.vocabulary import Rules
from easytransfer.text.wordpiece import WordPiece

VOCAB = "[PAD] [UNK] [CLS] [SEP] [MASK] good ##ness ##nes ##s me , [ sep ] e 中 文 a b".split()
PAD, UNK, CLS, SEP, MASK, GOOD, NESS, NES, S, ME, COMMA, OPEN, SEP_WORD, CLOSE, E, ZHONG, WEN, A, B = range(19)


@pytest.fixture(scope="module")
def tokenizer():
    return WordPiece(VOCAB)


def rows(tokens):
    return [row.tolist() for row in (tokens.input_ids[i] for i in range(len(tokens.input_ids)))]


def test_single_texts(tokenizer):
    tokens = tokenizer.encode(["Goodness, ME!", "", " \t\n", "goodnesss", "中文é"])
    assert rows(tokens) == [
        [CLS, GOOD, NESS, COMMA, ME, UNK, SEP],
        [CLS, SEP],
        [CLS, SEP],
        [CLS, GOOD, NESS, S, SEP],
        [CLS, ZHONG, WEN, E, SEP],
    ]
    assert not tokens.segment_ids.values.any()
    assert tokens.unknown.tolist() == [1, 0, 0, 0, 0] and not tokens.truncated.any()
    assert tokens.input_ids.values.dtype == tokens.segment_ids.values.dtype == np.int32


def test_pairs(tokenizer):
    tokens = tokenizer.encode(["good", ""], ["me e", ""])
    assert rows(tokens) == [[CLS, GOOD, SEP, ME, E, SEP], [CLS, SEP, SEP]]
    assert [tokens.segment_ids[i].tolist() for i in range(2)] == [[0, 0, 0, 1, 1, 1], [0, 0, 1]]


def test_truncation_cuts_ends_and_counts_what_is_kept(tokenizer):
    tokens = tokenizer.encode(["a b zz", "zz a b", "a b"], max_length=4)
    assert rows(tokens) == [[CLS, A, B, SEP], [CLS, UNK, A, SEP], [CLS, A, B, SEP]]
    assert tokens.truncated.tolist() == [True, True, False] and tokens.unknown.tolist() == [0, 1, 0]
    tokens = tokenizer.encode(["a a a a", "a", "a a"], ["b", "b b b b", "b b"], max_length=6)
    assert rows(tokens) == [[CLS, A, A, SEP, B, SEP], [CLS, A, SEP, B, B, SEP], [CLS, A, SEP, B, B, SEP]]


def test_longest_first_against_removing_one_piece_at_a_time():
    lengths = [(i, j) for i in range(12) for j in range(12)]
    first, second = np.array(lengths).T
    for room in range(1, 24):
        kept = np.stack(longest_first(first, second, room), 1)
        for (i, j), (a, b) in zip(lengths, kept.tolist(), strict=True):
            x, y = i, j
            while x + y > room:
                x, y = (x - 1, y) if x > y else (x, y - 1)
            # Only who keeps the odd piece, once both are cut, is a rule of its own.
            assert {a, b} == {x, y} and (a <= b or i > j) and (a >= b or i <= j)


def test_special_names_in_text_are_text(tokenizer):
    assert rows(tokenizer.encode(["[SEP]"])) == [[CLS, OPEN, SEP_WORD, CLOSE, SEP]]
    assert tokenizer.tokenize("a [SEP]") == ["a", "[", "sep", "]"]


def test_word_length_limit_counts_characters():
    for limit in (100, 200):
        tokenizer = WordPiece([*VOCAB, "é", "##é"], Rules(lower_case=False, max_word_chars=limit))
        assert tokenizer.encode(["é" * limit, "é" * (limit + 1)], max_length=512).unknown.tolist() == [0, 1]


def test_offsets_are_characters_of_the_original(tokenizer):
    text = "\u200b Go\u00ad\u00f6DN\u0308ess,\u4e2d\x00\u6587 é e\u0301 👍🏽x"
    found = tokenizer.offsets(text)
    assert [token for token, _, _ in found] == tokenizer.tokenize(text)
    assert [text[start:end] for _, start, end in found] == [
        "Go\u00ad\u00f6D", "N\u0308ess", ",", "中", "文", "é", "e", "👍🏽x",
    ]  # fmt: skip


def test_decode(tokenizer):
    assert tokenizer.decode([CLS, GOOD, NESS, COMMA, ME, UNK, SEP, PAD, PAD]) == "goodness, me [UNK]"
    assert tokenizer.decode(np.array([], np.int32)) == ""
    for wrong in (-1, len(VOCAB)):
        with pytest.raises(ValueError, match="not in the vocabulary of 19"):
            tokenizer.decode([A, wrong])


def test_bad_calls_are_refused(tokenizer):
    with pytest.raises(ConfigError, match="no room for text; got 2"):
        tokenizer.encode(["a"], max_length=2)
    with pytest.raises(ConfigError, match="no room"):
        tokenizer.encode(["a"], ["b"], max_length=3)
    with pytest.raises(ValueError, match="1 texts but 2 pairs"):
        tokenizer.encode(["a"], ["b", "c"])
    with pytest.raises(ModelError, match="lacks special"):
        WordPiece(["a"])


def test_no_rows(tokenizer):
    for tokens in (tokenizer.encode([]), tokenizer.encode([], [])):
        assert len(tokens.input_ids) == len(tokens.truncated) == len(tokens.unknown) == 0


def test_remembering_chunks_is_bounded_and_changes_nothing():
    asked = []

    def encode(chunks):
        asked.extend(chunks)
        return [[len(chunk)] * (len(chunk) % 3) for chunk in chunks]

    bank = ChunkBank(encode, max_characters=10)
    for _ in range(2):
        found = bank.rows(["aa b", "", "aa  dddd"])
        assert [found[i].tolist() for i in range(3)] == [[2, 2, 1], [], [2, 2, 4]]
    assert asked == ["aa", "b", "", "dddd"]
    bank.rows(["eeeee"])
    bank.rows(["aa"])
    assert asked[-2:] == ["eeeee", "aa"] and list(bank._index) == ["aa"]


def test_encoding_from_several_threads(tokenizer):
    source = random.Random(0)
    texts = ["".join(source.choices("ab e中,", k=9)) for _ in range(400)]
    expected = rows(WordPiece(VOCAB).encode(texts))
    results = {}

    def work(name):
        results[name] = rows(tokenizer.encode(texts))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results[name] == expected for name in range(4))


def compare_with_transformers(tokenizer, folder, lines):
    """Ids, segments, truncation and unknown counts of singles and pairs against the peer."""
    peer = pytest.importorskip("transformers").BertTokenizerFast.from_pretrained(str(folder))
    texts, seconds = pairs(lines)
    short = slice(-300, None)  # the ties of `pairs` are among them; the peer is slow where little is kept
    cases = [(lines, None, 64), (texts, seconds, 65)]
    cases += [(texts[short], None, length) for length in (3, 10)]
    cases += [(texts[short], seconds[short], length) for length in (4, 8, 9)]
    for first, second, length in cases:
        expected = peer(first, second, truncation=True, max_length=length, split_special_tokens=True)
        tokens = tokenizer.encode(first, second, max_length=length)
        assert rows(tokens) == expected["input_ids"], (length, second is not None)
        assert [tokens.segment_ids[i].tolist() for i in range(len(first))] == expected["token_type_ids"]
        assert tokens.unknown.tolist() == [row.count(peer.unk_token_id) for row in expected["input_ids"]]
        assert tokens.truncated.tolist() == [bool(encoding.overflowing) for encoding in expected.encodings]


def test_minilm_equals_transformers():
    folder = minilm_folder()
    compare_with_transformers(WordPiece.from_folder(folder), folder, corpus())


@pytest.mark.parametrize("lower_case", [True, False])
def test_character_vocabulary_equals_transformers(tmp_path, lower_case):
    rules = Rules(lower_case=lower_case)
    tokenizer = WordPiece(character_vocabulary(rules), rules)
    tokenizer.save(tmp_path)
    compare_with_transformers(tokenizer, tmp_path, corpus())


def test_minilm_files_agree_with_their_own_tokenizer_json():
    minilm = minilm_folder()
    tokenizer = WordPiece.from_folder(minilm)
    assert tokenizer.lower_case and len(tokenizer) == 30522 and tokenizer.rules == Rules()
    peer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    text = "Unaffable naïveté — 你好 e\u0301"
    assert (
        tokenizer.tokenize(text) == peer.encode(text, add_special_tokens=False).tokens[: len(tokenizer.tokenize(text))]
    )
