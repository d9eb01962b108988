"""Rows whose [CLS] is their last token, in applications that need places: by hand, and the same inside the graph."""

import numpy as np
import pytest
import tensorflow as tf

from appzoo.labeling.data import encode_words, split_units
from appzoo.labeling.entities import EntityEvaluator
from appzoo.labeling.graph import GraphWindows
from appzoo.labeling.model import at_words
from appzoo.text_comprehension.questions import Asked, Gold
from appzoo.text_comprehension.search import Search
from appzoo.text_comprehension.serving import GraphQuestions, best_answers
from appzoo.text_comprehension.windows import WindowEncoder
from easytransfer.errors import ConfigError
from easytransfer.text.sentence_piece import XlnetSentencePiece
from modelzoo.tiny_pieces import piece_model, tiny_pieces
from modelzoo.xlnet.tiny import SPECIAL

TEXTS = ["the movie was boring", "", "Good", "a " * 40 + "book, the end", "质量 不错 the best"]
CONTEXT = "the man can read a book and the woman can write one in the old house by the river"


@pytest.fixture(scope="module")
def tokenizer():
    return XlnetSentencePiece(piece_model(tiny_pieces(cased=True), SPECIAL))


def test_words_are_found_where_they_stand(tokenizer):
    words = [split_units(text, "word") for text in TEXTS]
    windows = encode_words(tokenizer, words, 16)
    sep, cls_ = tokenizer.sep_id, tokenizer.cls_id
    assert windows.input_ids[0].tolist() == [*(tokenizer.vocab.index(f"▁{word}") for word in words[0]), sep, cls_]
    assert windows.segment_ids[0].tolist() == [0, 0, 0, 0, 0, 2]
    assert windows.word_starts[0].tolist() == [1, 2, 3, 4] and windows.before == 0
    assert windows.input_ids[1].tolist() == [sep, cls_] and windows.word_starts[1].tolist() == []
    # The tag of every word stands at its first piece: its number among the pieces of the window, less one.
    tags = np.arange(sum(map(len, words)))
    labels = windows.token_labels(tags, all_pieces=False)
    assert labels[0].tolist() == [0, 1, 2, 3, -1, -1]
    assert labels.values[labels.values >= 0].tolist() == tags.tolist()
    for i in range(len(windows.row_of)):
        found, _ = at_words(tf.constant(labels[i][None]), tf.constant(windows.word_starts[i][None]), windows.before)
        assert found.numpy()[0].tolist() == [label for label in labels[i] if label >= 0]
    evaluator = EntityEvaluator(["O", "B-X"], before=0)
    scores = np.log(np.full([1, 4, 2], 0.5))
    batch = {"label_id": np.array([[1, 0, 0, 1, -1, -1]]), "word_starts": windows.word_starts[0][None]}
    evaluator.update(batch, {"tags": np.array([[1, 0, 0, 1]]), "log_probabilities": scores})
    assert evaluator.result()["f1"] == evaluator.result()["accuracy"] == 1

    arrays, counts, _ = GraphWindows(tokenizer.in_graph(16), tokenizer.unk_id, "word")(tf.constant(TEXTS))
    rows, width = np.arange(len(windows.row_of)), int(windows.input_ids.lengths.max())
    assert counts.numpy().tolist() == list(map(len, words))
    np.testing.assert_array_equal(arrays["input_ids"], windows.input_ids.padded(rows, width, tokenizer.pad_id))
    np.testing.assert_array_equal(arrays["segment_ids"], windows.segment_ids.padded(rows, width))
    np.testing.assert_array_equal(arrays["input_mask"], np.arange(width) < windows.input_ids.lengths[:, None])
    starts = windows.word_starts
    np.testing.assert_array_equal(arrays["word_starts"], starts.padded(rows, int(starts.lengths.max())))


def questions(history):
    book = Gold("a book", CONTEXT.index("a book"))
    turns = {"history": (book,)} if history else {}
    return [
        Asked((0, 0), "a", "what can the man read?", CONTEXT, **turns),
        Asked((1, 0), "b", "who", "the woman"),
        Asked((2, 0), "c", "where is it, and why is it there, and what is it?", CONTEXT),
    ]


@pytest.mark.parametrize("history", [False, True], ids=["alone", "with history"])
def test_windows_of_questions(tokenizer, history):
    asked = questions(history)
    encoder = WindowEncoder(tokenizer, 20, 8, 5, history_turns=2 if history else None)
    found = encoder.encode(asked)
    ids, windows = found.columns["input_ids"], found.windows
    sep, cls_ = tokenizer.sep_id, tokenizer.cls_id
    short = next(i for i, window in enumerate(windows) if window.asked.id == "b")
    query, context = tokenizer.pieces(["who"])[0].tolist(), tokenizer.pieces(["the woman"])[0].tolist()
    assert ids[short].tolist() == [*query, sep, *context, sep, cls_]
    assert found.columns["segment_ids"][short].tolist() == [0] * (len(query) + 1) + [1] * (len(context) + 1) + [2]
    assert windows[short].offset == len(query) + 1 and windows[short].nowhere == len(ids[short]) - 1
    assert windows[short].positions(None) == (len(ids[short]) - 1,) * 2
    assert windows[short].positions((0, 1)) == (len(query) + 1, len(query) + 2)
    for i, window in enumerate(windows):
        assert len(ids[i]) <= 20 and ids[i][window.nowhere] == cls_
        part = ids[i][window.offset : window.offset + len(window.spans)]
        words = [window.asked.context[a:b] for a, b in window.spans]
        assert [tokenizer.vocab[piece].replace("▁", "") for piece in part] == words
        if history:
            marks = found.columns["history_answer_marker"][i]
            inside = marks[window.offset : window.offset + len(words)] == 1
            marked = [word for word, mark in zip(words, inside, strict=True) if mark]
            assert marks.sum() == len(marked) and (
                not marked or (window.asked.history and set(marked) <= {"a", "book"})
            )
    if history:
        assert found.columns["history_answer_marker"].values.sum() > 0

    graph = GraphQuestions(tokenizer.in_graph(20), encoder)
    texts = [tf.constant([getattr(one, name) for one in asked]) for name in ("context", "question")]
    gold = asked[0].history[0] if history else None
    spans = [tf.constant([[value], [-1], [-1]]) for value in (gold.start, gold.end)] if history else []
    arrays = graph(*texts, *spans)
    rows, width = np.arange(len(windows)), int(ids.lengths.max())
    for name, pad in (("input_ids", tokenizer.pad_id), ("segment_ids", 0), *([("history_answer_marker", 0)] * history)):
        np.testing.assert_array_equal(arrays[name], found.columns[name].padded(rows, width, pad))
    assert arrays["nowhere"].numpy().tolist() == [window.nowhere for window in windows]
    assert arrays["owner"].numpy().tolist() == found.row_of.tolist()

    # Answers of the graph are those of the search over the windows, whatever the scores.
    random = np.random.default_rng(4)
    for lift in (0, 9):
        start, end = random.normal(size=(2, len(windows), width)).astype(np.float32)
        start[rows, [window.nowhere for window in windows]] += lift
        search = Search(max_answer_length=4, null_score_threshold=0.0)
        answers = best_answers({**arrays, "context": texts[0], "start_logits": start, "end_logits": end}, search)
        for row in range(len(asked)):
            own = np.flatnonzero(found.row_of == row)
            wanted = search.answer([windows[i] for i in own], start[own], end[own])
            assert answers["answer"][row].numpy().decode() == wanted.text
            assert (not wanted.text) == bool(lift)


def test_special_tokens_count_in_the_room_of_a_window(tokenizer):
    with pytest.raises(ConfigError, match="sequenceLength leaves no room .* accepted: at least 12"):
        WindowEncoder(tokenizer, 11, 8, 5)
