"""Where pieces stand in the text: the batch form, and the same inside a graph."""

import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from multilingual_corpus import SENTENCES, character_vocabulary, corpus, minilm_folder

from easytransfer.text.vocabulary import Rules
from easytransfer.text.wordpiece import WordPiece


def test_batch_equals_the_offsets_of_single_texts():
    tokenizer = WordPiece.from_folder(minilm_folder())
    ids, spans = tokenizer.pieces_with_offsets(SENTENCES)
    assert len(ids) == len(spans) == len(SENTENCES)
    for row, text in enumerate(SENTENCES):
        expected = tokenizer.offsets(text)
        assert [tokenizer.vocab[piece] for piece in ids[row]] == [piece for piece, _, _ in expected]
        assert spans[row].tolist() == [[start, end] for _, start, end in expected]
    np.testing.assert_array_equal(ids.values, tokenizer.pieces(SENTENCES).values)


def test_empty_batches_and_texts_have_no_pieces():
    tokenizer = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    ids, spans = tokenizer.pieces_with_offsets([])
    assert len(ids) == 0 and spans.values.shape == (0, 2)
    ids, spans = tokenizer.pieces_with_offsets(["", " \u200b"])
    assert ids.lengths.tolist() == [0, 0] and spans.values.shape == (0, 2)


def test_pieces_are_found_in_chinese_accents_and_emoji():
    tokenizer = WordPiece.from_folder(minilm_folder())
    text = "桥建于 1937年, naïve cafe\u0301s 👍🏽"
    found = {text[start:end] for _, start, end in tokenizer.offsets(text)}
    assert {"桥", "年", "1937", "naïve", "cafe\u0301s", "👍🏽"} <= found


def reorders(text):
    """Whether NFD sorts combining characters of the text: each character alone decomposes to another sequence."""
    return unicodedata.normalize("NFD", text) != "".join(unicodedata.normalize("NFD", c) for c in text)


@pytest.mark.parametrize("rules", [Rules(), Rules(lower_case=False), Rules(split_cjk=False)], ids=str)
def test_graph_finds_the_same_pieces_and_places(rules):
    tokenizer = WordPiece(character_vocabulary(rules), rules)
    graph = tokenizer.in_graph()
    find = tf.function(graph.pieces_with_offsets, input_signature=[tf.TensorSpec([None], tf.string)])
    lines = [*corpus()[::4], "x" * 99 + " " + "y" * 150 + " z", *SENTENCES]
    expected, places = tokenizer.pieces_with_offsets(lines)
    ids, spans = find(tf.constant(lines))
    np.testing.assert_array_equal(ids.row_lengths(), expected.lengths)
    np.testing.assert_array_equal(ids.values, expected.values)
    wrong = np.flatnonzero((spans.values.numpy() != places.values).any(axis=1))
    rows = sorted({int(np.searchsorted(expected.offsets, place, side="right")) - 1 for place in wrong})
    assert [ascii(lines[row]) for row in rows if not reorders(lines[row])] == []
    assert len(wrong) < 0.002 * len(places.values)
    assert not set(rows) & set(range(len(SENTENCES) // 2))  # the first lines are real sentences


def test_graph_of_no_text_finds_nothing():
    graph = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]).in_graph()
    for lines in ([], ["", "  "]):
        ids, spans = graph.pieces_with_offsets(tf.constant(lines, tf.string))
        assert ids.to_list() == spans.to_list() == [[] for _ in lines]
