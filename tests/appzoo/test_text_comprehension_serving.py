"""Raw texts to answers inside a graph: the same answers as reading, windows, model and search give outside."""

import numpy as np
import pytest
import tensorflow as tf
from test_text_comprehension import CONTEXT, make_app

from appzoo.text_comprehension.questions import Asked, Gold
from appzoo.text_comprehension.serving import SAMPLES
from easytransfer.data.encoded import EncodedTable

CONTEXTS = [
    CONTEXT,
    "桥建于一九三七年。我们看到大家。",
    "Ünïcode cafe\u0301s 👍🏽 (John) was the Chinese,who  had\u00a0two\tdogs\x07.",
    "one",
    " ".join(f"{word} {number}" for number, word in enumerate((CONTEXT + " " + CONTEXT).split())),
]
QUESTIONS = ["who had two dogs?", "哪一年?", "", "what is this and that and this and that and this?", "who?"]


def outside(app, history=None):
    """Answers of the ordinary path: rows of (text, start, end, score)."""
    history = history or [()] * len(CONTEXTS)
    asked = [
        Asked((0, n), "", q, c, history=h) for n, (c, q, h) in enumerate(zip(CONTEXTS, QUESTIONS, history, strict=True))
    ]
    windows = app.inputs[0].windows.encode(asked)
    encoded = EncodedTable(windows.columns, {"input_mask": "input_ids"}, row_of=windows.row_of)
    batch = app.model_inputs(encoded.batch(range(len(encoded)), pad_multiple=1))
    outputs = app.model({name: tf.constant(value) for name, value in batch.items()})
    outputs = {name: value.numpy() for name, value in outputs.items()}
    found = [answer for _, answer, _ in app.target.answers(outputs, encoded)]
    scores = [next(span.score for text, _, span in answer.candidates if text == answer.text) for answer in found]
    return [(a.text, a.start, a.end) for a in found], scores, len(encoded)


def inside(app, tmp_path, **more):
    app.save_assets(tmp_path)
    signature = app.signatures(tmp_path)["serving_default"]
    inputs = {"context": tf.constant(CONTEXTS), "question": tf.constant(QUESTIONS)} | more
    function = tf.function(signature.function, input_signature=None)
    found = {name: value.numpy() for name, value in function(**inputs).items()}
    rows = [(text.decode(), s, e) for text, s, e in zip(found["answer"], found["start"], found["end"], strict=True)]
    return rows, found["score"]


def built(tiny_model, variant="bert", **options):
    app = make_app(tiny_model, variant, **options)
    app.build_model()
    # Larger scores than fresh weights give, so that answers differ clearly.
    random = np.random.default_rng(5)
    app.model.head.kernel.assign(random.normal(size=app.model.head.kernel.shape))
    return app


@pytest.mark.parametrize("threshold", [None, -1.0])
def test_graph_answers_like_the_ordinary_path(tiny_model, tmp_path, threshold):
    app = built(tiny_model, doc_stride=5, max_answer_length=6, null_score_threshold=threshold)
    expected, scores, windows = outside(app)
    assert windows > len(CONTEXTS) + 5
    found, best = inside(app, tmp_path)
    assert found == expected
    np.testing.assert_allclose(best, scores, atol=1e-5)
    for (text, start, end), context in zip(found, CONTEXTS, strict=True):
        assert text == (context[start:end] if start >= 0 else "")
    assert any(start >= 0 for _, start, _ in found)
    if threshold is not None:
        assert any(start == -1 for _, start, _ in found)


def test_long_stride_and_short_answers(tiny_model, tmp_path):
    app = built(tiny_model, doc_stride=500, max_answer_length=1)
    expected, _, _ = outside(app)
    assert inside(app, tmp_path)[0] == expected


def test_texts_without_a_token_and_broken_bytes_get_no_answer_or_one_in_place(tiny_model, tmp_path):
    app = built(tiny_model)
    app.save_assets(tmp_path)
    serve = app.signatures(tmp_path)["serving_default"].function
    contexts, questions = ["", " \u200b", b"two \xff\xfe dogs"], ["who?", "", "what?"]
    found = serve(context=tf.constant(contexts), question=tf.constant(questions))
    assert found["answer"][0].numpy() == found["answer"][1].numpy() == b""
    assert found["start"].numpy()[:2].tolist() == [-1, -1]
    text = "two \ufffd\ufffd dogs"
    assert found["answer"][2].numpy().decode() == text[int(found["start"][2]) : int(found["end"][2])] != ""
    none = serve(context=tf.constant([], tf.string), question=tf.constant([], tf.string))
    assert none["answer"].shape == [0]


@pytest.mark.parametrize("turns", [11, 1])
def test_graph_marks_the_history_like_the_ordinary_path(tiny_model, tmp_path, turns):
    app = built(tiny_model, "bert_hae", doc_stride=6, max_considered_history_turns=turns)
    app.model.history.embeddings.assign(np.random.default_rng(6).normal(size=app.model.history.embeddings.shape))
    history = [(Gold("old man", 4), Gold("two", 60)), (Gold("一九", 3),), (), (Gold("one", 0),), (Gold("old 1", 6),)]
    starts = [[4, 60], [3, -1], [-1, -1], [-1, 0], [6, -1]]
    ends = [[11, 63], [5, -1], [-1, -1], [-1, 3], [11, -1]]
    expected, scores, _ = outside(app, history)
    spans = {"history_start": tf.constant(starts), "history_end": tf.constant(ends)}
    found, best = inside(app, tmp_path, **spans)
    assert found == expected
    np.testing.assert_allclose(best, scores, atol=1e-5)
    # The marks matter.
    _, unmarked = inside(app, tmp_path, **{name: -tf.ones_like(value) for name, value in spans.items()})
    assert np.abs(unmarked - best).max() > 1e-3


def test_samples_of_the_export_meet_every_case():
    contexts, questions = zip(*SAMPLES, strict=True)
    assert "" in contexts and any(not text.isascii() for text in contexts) and max(map(len, contexts)) > 2000
    assert max(len(question.split()) for question in questions) > 64
