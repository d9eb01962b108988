"""Metrics, output rows and the page of text comprehension."""

import json

import numpy as np
import pytest
from test_text_comprehension import CONTEXT, cells, encode, make_app

from appzoo.text_comprehension.questions import Asked, Gold
from appzoo.text_comprehension.search import Search
from appzoo.text_comprehension.windows import WindowEncoder, token_span
from easytransfer.data.writers import open_writer
from easytransfer.train.step import EVALUATION


def test_evaluator_merges_windows_over_batches_in_any_order(tiny_model, tmp_path):
    from appzoo.text_comprehension.evaluation import ComprehensionEvaluator

    app = make_app(tiny_model, doc_stride=6, data={"sequence_length": 18})
    rows = [cells(("who?", "the old man"), ("how many?", "two"), ("where?", "near the school"), ("why?", None))]
    _, encoded, _, _ = encode(app, tmp_path, rows)
    random = np.random.default_rng(0)
    width = int(encoded.lengths.max()) + 3
    logits = {
        name: random.normal(size=(len(encoded), width)).astype(np.float32) for name in ("start_logits", "end_logits")
    }
    for row, length in enumerate(encoded.lengths):
        for value in logits.values():
            value[row, length:] = -1e9
    # One question is answered rightly in its window.
    right = int(np.flatnonzero((encoded.row_of == 1) & (encoded.columns["start_position"] > 0))[0])
    for name, column in (("start_logits", "start_position"), ("end_logits", "end_position")):
        logits[name][right, encoded.columns[column][right]] += 30
    whole = ComprehensionEvaluator(Search(), "auto")
    whole.update(encoded.columns, logits)
    parts = ComprehensionEvaluator(Search(), "auto")
    for batch in np.array_split(random.permutation(len(encoded)), 4):
        parts.update(encoded.batch(batch), {name: value[batch] for name, value in logits.items()})
    assert whole.result() == parts.result() and whole.main_metric == "f1"
    assert whole.metric == "squad2" and whole.report()["rows"] == 4
    predicted = {asked.id: text for asked, text in parts.answers().values()}
    answers = app.target.answers(logits, encoded)
    assert predicted == {asked.id: answer.text for asked, answer, _ in answers} and predicted["q1"] == "two"
    # Positions against a search over all pairs.
    hits = []
    for row, length in enumerate(encoded.lengths):
        s, e = logits["start_logits"][row].astype(float), logits["end_logits"][row].astype(float)
        pairs = [(s[i] + e[j], (i, j)) for i in range(length) for j in range(i, length)]
        best = max(pairs)[1]
        hits.append(
            [best[0] == encoded.columns["start_position"][row], best[1] == encoded.columns["end_position"][row]]
        )
    result, hits = whole.result(), np.array(hits)
    assert result["start_accuracy"] == hits[:, 0].mean() and result["end_accuracy"] == hits[:, 1].mean()
    assert result["window_accuracy"] == hits.all(axis=1).mean() > 0
    import tensorflow as tf

    batch = {name: encoded.columns[name] for name in ("start_position", "end_position")}
    batch["example_weight"] = np.ones(len(encoded), np.float32)
    found = {name: tf.constant(value) for name, value in logits.items()}
    loss = app.losses(batch, found, EVALUATION)["loss"].sum / len(encoded)
    assert result["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_original_wrote_a_row_per_window_there_is_one_per_question(tiny_model, tmp_path):
    app = make_app(tiny_model, doc_stride=6, data={"sequence_length": 18, "output_schema": "predictions,n_best"})
    assert {"n_best", "unique_id", "qas_id"} <= set(app.output_columns())
    assert make_app(tiny_model).output_columns() == (
        *("qas_id", "predictions", "probabilities", "start", "end", "start_logits", "end_logits"),
    )
    _, encoded, _, _ = encode(app, tmp_path, [cells(("who?", None), ("why?", None)), cells(("how?", None))], False)
    random = np.random.default_rng(1)
    outputs = {}
    for name in ("start_logits", "end_logits"):
        outputs[name] = np.empty(len(encoded), object)
        outputs[name][:] = [random.normal(size=length + 2).astype(np.float32) for length in encoded.lengths]
    rows = app.postprocess(outputs, encoded)
    assert {len(column) for column in rows.values()} == {3} and rows["qas_id"] == ["q0", "q1", "q0"]
    assert rows["unique_id"] == ["0-0", "0-1", "1-0"]
    for row in range(3):
        text = CONTEXT[rows["start"][row] : rows["end"][row]]
        best = json.loads(rows["n_best"][row])
        assert text == rows["predictions"][row] == next(entry["text"] for entry in best if entry["text"])
        assert 0 < rows["probabilities"][row] <= 1 and len(rows["start_logits"][row]) == len(rows["end_logits"][row])
    with open_writer(tmp_path / "out.tsv", list(rows)) as writer:
        writer.write(rows)
    assert len((tmp_path / "out.tsv").read_text().splitlines()) == 3


def test_page_marks_answers_and_escapes_texts(tiny_model, tmp_path):
    from appzoo.text_comprehension.evaluation import write_answers

    context = "a <b>bold</b> & big man"
    encoder = WindowEncoder(make_app(tiny_model).encoder.tokenizer, 40, 8, 8)
    asked = Asked((0, 0), "id<1>", "who <script>?", context, golds=(Gold("big man", 16),))
    (window,) = encoder.encode([asked]).windows
    start, end = np.zeros((2, window.offset + len(window.spans) + 1), np.float32)
    first, last = token_span(window.spans, Gold("<b>bold</b> & big", 2))
    start[window.offset + first] = end[window.offset + last] = 9
    answer = Search().answer([window], [start], [end])
    assert answer.text == "<b>bold</b> & big"
    page = (tmp_path / write_answers(tmp_path, [(asked, answer)], "auto")).read_text(encoding="utf-8")
    assert "who &lt;script&gt;?" in page and "<script>?" not in page and "<b>" not in page and "id&lt;1&gt;" in page
    assert '<span class="found">&lt;b&gt;bold&lt;/b&gt; &amp; </span>' in page
    assert '<span class="found"><mark class="hue-2">big</mark></span><mark class="hue-2"> man</mark>' in page
    assert "http:" not in page and "https:" not in page
