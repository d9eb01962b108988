"""Words, vocabulary and word vectors; the in-graph form must give the very ids of the Python form, on any text."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from multilingual_corpus import SENTENCES, corpus

from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.text.word_vectors import read_word_vectors
from easytransfer.text.words import SPECIAL_TOKENS, VOCAB_FILE, WordVocabulary, fold, split_words
from easytransfer.text.words_graph import GraphWords

SPLITS = ("none", "cjk", "all")
# What differs between libraries: case pairs of several letters, sigmas, odd spaces, marks, ideographs, planes.
ODD = st.text(
    st.sampled_from([*"aAİıßẞΣσς\u0130\u0307\u00a0\u3000\u0085\x1c\u200b\ufeff\x00中𠀀豈あ가Å\ufffd\uffff \t\n"])
)
TEXTS = st.lists(st.one_of(ODD, st.text(), st.sampled_from(SENTENCES)), min_size=1, max_size=6)


def graph_words(graph, texts):
    return [[word.decode() for word in row] for row in graph.words(tf.constant(texts)).to_list()]


# Words and vocabulary ----------------------------------------------------------------------------------------


def test_words_by_hand():
    assert split_words("  Good\u3000FILM,\tgood\nÉtÉ ") == ["good", "film,", "good", "été"]
    assert split_words("ΟΔΥΣΣΕΥΣ İstanbul") == ["οδυσσευσ", "istanbul"]
    assert split_words("iPhone手机 很Good", "cjk") == ["iphone", "手", "机", "很", "good"]
    assert split_words("Ab 手!", "all") == ["a", "b", "手", "!"]
    assert split_words(" \t") == split_words("", "all") == []


def test_every_character_folds_to_one_and_stays_folded():
    points = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    assert [c for c in points if len(fold(c)) != 1] == []
    assert [c for c in points if fold(fold(c)) != fold(c)] == []
    assert {c for c in points if fold(c) != c.lower()} == {"İ", "ς"}


def test_vocabulary_is_sorted_by_frequency_then_alphabet():
    vocabulary = WordVocabulary.build(["b a c", "c b", "C d"])
    assert vocabulary.words == [*SPECIAL_TOKENS, "c", "b", "a", "d"]
    assert WordVocabulary.build(["b a c", "c b", "C d"], max_size=8).words[6:] == ["c", "b"]
    assert WordVocabulary.build(["b a c", "c b", "C d"], min_count=2).words[6:] == ["c", "b"]
    assert WordVocabulary.build(["d c b a", "c b", "C"]).words == WordVocabulary.build(["C", "b c", "a b c d"]).words


def test_encoding_counts_what_is_cut_and_what_is_unknown():
    vocabulary = WordVocabulary.build(["good film"])
    words = vocabulary.encode(["Good fun film", "", "new new new new", "film"], max_length=3)
    assert [row.tolist() for row in words.ids] == [[7, 1, 6], [], [1, 1, 1], [6]]
    assert words.truncated.tolist() == [False, False, True, False]
    assert words.unknown.tolist() == [1, 0, 3, 0]
    assert len(vocabulary.encode([], max_length=3).ids) == 0


def test_special_tokens_in_a_text_are_ordinary_words():
    vocabulary = WordVocabulary.build(["x"])
    assert vocabulary.encode(["[PAD] [MASK] x"], max_length=5).ids[0].tolist() == [1, 1, 6]


def test_vocabulary_file_is_json_of_word_to_id(tmp_path):
    vocabulary = WordVocabulary.build(["好 film 好"])
    vocabulary.save(tmp_path)
    assert json.loads((tmp_path / VOCAB_FILE).read_text(encoding="utf-8"))["好"] == 6
    assert WordVocabulary.load(tmp_path).words == vocabulary.words


SPECIAL = {token: number for number, token in enumerate(SPECIAL_TOKENS)}


@pytest.mark.parametrize(
    "content",
    ["not json", "[1]", "{}", json.dumps({"a": 0}), json.dumps(SPECIAL | {"a": 7}), json.dumps(SPECIAL | {"a": "x"})],
)
def test_damaged_vocabulary_files_are_refused(tmp_path, content):
    (tmp_path / VOCAB_FILE).write_text(content)
    with pytest.raises(ModelError, match="not a word vocabulary"):
        WordVocabulary.load(tmp_path)


def test_missing_vocabulary_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=VOCAB_FILE):
        WordVocabulary.load(tmp_path)


# In the graph ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_graph_words_equal_python_on_a_multilingual_corpus(split):
    lines = corpus()
    graph = GraphWords(WordVocabulary(SPECIAL_TOKENS, split))
    wrong = [
        (ascii(line), found)
        for line, found in zip(lines, graph_words(graph, lines), strict=True)
        if found != split_words(line, split)
    ]
    assert wrong == []


def test_graph_words_equal_python_on_every_code_point():
    graph = GraphWords(WordVocabulary(SPECIAL_TOKENS))
    points = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    for between in ("", "a"):
        lines = [between.join(points[at : at + 64]) for at in range(0, len(points), 64)]
        assert graph_words(graph, lines) == [split_words(line) for line in lines]


GRAPHS = {split: GraphWords(WordVocabulary.build(SENTENCES, max_size=120, split=split)) for split in SPLITS}


@settings(deadline=None, max_examples=150)
@given(texts=TEXTS, split=st.sampled_from(SPLITS), length=st.integers(1, 9))
def test_graph_ids_equal_python_ids_on_odd_text(texts, split, length):
    vocabulary = WordVocabulary.build(SENTENCES, max_size=120, split=split)
    expected = vocabulary.encode(texts, max_length=length).ids
    found = GRAPHS[split](tf.constant(texts), length)
    width = max(1, int(expected.lengths.max()))
    np.testing.assert_array_equal(found["input_ids"], expected.padded(range(len(texts)), width))
    np.testing.assert_array_equal(found["input_mask"], np.arange(width) < expected.lengths[:, None])


def test_graph_takes_no_rows_and_bytes_that_are_not_utf8():
    graph = GRAPHS["none"]
    for value in graph(tf.constant([], tf.string), 4).values():
        assert value.shape == (0, 1) and value.dtype == tf.int32
    assert graph_words(graph, [b"\xff\xfe a\xc3"]) == [["\ufffd\ufffd", "a\ufffd"]]


# Word vectors ------------------------------------------------------------------------------------------------

WORDS = [*SPECIAL_TOKENS, "good", "film", "new"]


def vectors_file(tmp_path, text):
    path = tmp_path / "vectors.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_word_vectors_are_read_and_misses_are_drawn(tmp_path):
    path = vectors_file(tmp_path, "4 2\nfilm 1 -2.5 \nunused x y\nnew york 0 1e-1\ngood 3 4\n")
    vectors, found = read_word_vectors(path, WORDS, 2, seed=4)
    assert found == 2 and vectors.dtype == np.float32 and vectors.shape == (9, 2)
    assert vectors[6].tolist() == [3, 4] and vectors[7].tolist() == [1, -2.5]
    again, _ = read_word_vectors(path, WORDS, 2, seed=4)
    np.testing.assert_array_equal(again, vectors)
    many, _ = read_word_vectors(path, [f"{number}#" for number in range(20000)], 2)
    assert abs(many.std() - 0.01) < 2e-4 and abs(many.mean()) < 2e-4


def test_a_word_that_a_file_holds_twice_keeps_its_first_vector_and_is_told(tmp_path, capfd):
    path = vectors_file(tmp_path, "4 2\ngood 1 2\nfilm 3 4\ngood 5 6\nfilm 3 4\n")
    vectors, found = read_word_vectors(path, WORDS, 2)
    assert found == 2 and vectors[6].tolist() == [1, 2] and vectors[7].tolist() == [3, 4]
    assert "1 further vectors of words that it has already, such as 'good'" in capfd.readouterr().err


def test_word_vectors_of_a_file_that_ends_early_are_reported(tmp_path, capfd):
    read_word_vectors(vectors_file(tmp_path, "7 2\ngood 1 2\n"), WORDS, 2)
    assert "1 vectors, its first line says 7" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("3 5\ngood 1 2\n", ConfigError, "set embedding_size=5"),
        ("good 1 2\nfilm 1 2\n", DataError, "vectors.txt:1: not a text file of word2vec"),
        ("", DataError, "vectors.txt:1"),
        (b"3 2 \x00\x93\xff\xfe\n", DataError, "convert a binary file"),
        ("2 2\ngood 1 2\nfilm 1\n", DataError, "vectors.txt:3: 1 numbers behind a word instead of 2"),
        ("2 2\ngood 1 2\n\n", DataError, "vectors.txt:3: 0 numbers"),
        ("1 2\ngood 1 1e39\n", DataError, "vectors.txt:2: the vector of 'good' is not made of finite numbers"),
        ("1 2\ngood 1 two\n", DataError, "vectors.txt:2: the vector of 'good'"),
        ("1 2\ngood 1 nan\n", DataError, "finite"),
    ],
)
def test_original_skipped_bad_vectors_they_are_errors_with_a_line(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        read_word_vectors(vectors_file(tmp_path, text), WORDS, 2)


def test_missing_vectors_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file of word vectors"):
        read_word_vectors(tmp_path / "absent.txt", WORDS, 2)
