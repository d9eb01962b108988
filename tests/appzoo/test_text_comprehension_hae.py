"""Conversations: which earlier answers a question sees, and the embedding that marks them."""

import numpy as np
import tensorflow as tf
from test_text_comprehension import CONTEXT, cells, encode, make_app, windows_of

from appzoo.text_comprehension.questions import ASKED
from easytransfer.data.encoded import Ragged
from easytransfer.train.step import EVALUATION


def app_of(tiny_model, **model):
    return make_app(tiny_model, "bert_hae", data={"sequence_length": 64}, **model)


TURNS = (("who?", "the old man"), ("where did he live?", "a big house"), ("with what?", "two dogs"))


def test_question_k_sees_the_answers_before_it_one_per_example(tiny_model, tmp_path):
    app = app_of(tiny_model)
    chunk, encoded, count, _ = encode(app, tmp_path, [cells(*TURNS)])
    assert count.accepted == 3 and encoded.row_of.tolist() == [0, 1, 2, 2]
    markers, windows = encoded.columns["history_answer_marker"], windows_of(encoded)
    marked = []
    for row, window in enumerate(windows):
        values = markers[row]
        assert len(values) == window.offset + len(window.spans) + 1 and set(values.tolist()) <= {0, 1}
        places = np.flatnonzero(values) - window.offset
        assert (places >= 0).all() and (places < len(window.spans)).all()
        marked.append(CONTEXT[window.spans[places[0]][0] : window.spans[places[-1]][1]] if len(places) else "")
    assert marked == ["", "the old man", "the old man", "a big house"]
    assert [asked.id for asked in chunk.columns[ASKED]] == ["q0", "q1", "q2"]
    # Every example of a question is trained on its answer.
    assert (encoded.columns["start_position"] > 0).all()


def test_only_the_latest_turns_are_remembered(tiny_model, tmp_path):
    app = app_of(tiny_model, max_considered_history_turns=1)
    _, encoded, _, _ = encode(app, tmp_path, [cells(*TURNS)])
    assert encoded.row_of.tolist() == [0, 1, 2]
    window, marker = windows_of(encoded)[2], encoded.columns["history_answer_marker"][2]
    places = np.flatnonzero(marker) - window.offset
    assert CONTEXT[window.spans[places[0]][0] : window.spans[places[-1]][1]] == "a big house"


def test_one_question_more_than_answers_is_the_one_to_predict(tiny_model, tmp_path):
    context, questions, _ = cells(*TURNS)
    answers = "the old man||0||a big house||" + str(CONTEXT.index("a big house"))
    app = app_of(tiny_model)
    chunk, encoded, count, _ = encode(app, tmp_path, [(context, questions, answers)], with_labels=False)
    assert count.accepted == 3 and encoded.row_of.tolist() == [0, 1, 2, 2]
    assert [len(asked.history) for asked in chunk.columns[ASKED]] == [0, 1, 2]
    # It cannot be trained on, and is counted.
    _, encoded, count, bad = encode(app, tmp_path, [(context, questions, answers)], with_labels=True)
    assert (count.accepted, count.rejected) == (2, 1) and bad.reasons == {"no answer": 1}
    # In single questions a missing answer means that pairs have shifted.
    _, _, count, bad = encode(make_app(tiny_model), tmp_path, [(context, questions, answers)], with_labels=True)
    assert count.accepted == 0 and bad.reasons == {"answers do not fit the questions": 3}


def test_original_prediction_needed_labels(tiny_model, tmp_path):
    app = app_of(tiny_model)
    _, encoded, count, _ = encode(app, tmp_path, [(CONTEXT, "who?||1||why?||2", "")], with_labels=False)
    assert count.accepted == 2 and not encoded.columns["history_answer_marker"].values.any()
    assert "start_position" not in encoded.columns


def test_original_marked_the_last_word_for_an_unanswerable_turn(tiny_model, tmp_path):
    """The start -1 looked up the last character of the context."""
    _, encoded, _, _ = encode(app_of(tiny_model), tmp_path, [cells(("who?", None), ("why?", "two dogs"))])
    assert encoded.row_of.tolist() == [0, 1] and not encoded.columns["history_answer_marker"].values.any()


def test_a_misplaced_earlier_answer_is_not_marked(tiny_model, tmp_path):
    row = cells(("who?", ("the man", 3)), ("why?", "two dogs"))
    _, encoded, count, bad = encode(app_of(tiny_model), tmp_path, [row])
    assert count.accepted == 1 and bad.reasons == {"answer not at its offset": 1}
    assert not encoded.columns["history_answer_marker"].values.any()


# Network -----------------------------------------------------------------------------------------------------


def batch_of(app, seed=0):
    random = np.random.default_rng(seed)
    ids = [random.integers(5, len(app.encoder.tokenizer), n) for n in (12, 7, 9)]
    columns = {"input_ids": Ragged.from_lists(ids)}
    rows, width = np.arange(3), 12
    padded = columns["input_ids"].padded(rows, width)
    mask = (np.arange(width) < columns["input_ids"].lengths[:, None]).astype(np.int32)
    marker = (random.random((3, width)) < 0.3).astype(np.int32) * mask
    arrays = {"input_ids": padded, "input_mask": mask, "segment_ids": np.zeros_like(padded)}
    return {name: tf.constant(value) for name, value in (arrays | {"history_answer_marker": marker}).items()}


def test_zero_history_table_gives_the_plain_encoder_exactly(tiny_model):
    plain, hae = make_app(tiny_model), app_of(tiny_model)
    plain.build_model(), hae.build_model()
    hae.model.head.set_weights(plain.model.head.get_weights())
    batch = batch_of(plain)
    hae.model.history.embeddings.assign(np.zeros_like(hae.model.history.embeddings.numpy()))
    for name, value in plain.model(batch).items():
        np.testing.assert_array_equal(value, hae.model(batch)[name])


def test_history_is_added_before_layer_norm(tiny_model):
    app = app_of(tiny_model)
    app.build_model()
    backbone, batch = app.model.backbone, batch_of(app)
    weights = backbone.export_weights()
    find = {name.split("embeddings/")[-1]: value for name, value in weights.items() if "embeddings/" in name}
    table = np.random.default_rng(2).normal(size=(2, 32)).astype(np.float32)
    app.model.history.embeddings.assign(table)
    ids, marker = batch["input_ids"].numpy(), batch["history_answer_marker"].numpy()
    total = find["word_embeddings"][ids] + find["position_embeddings"][: ids.shape[1]]
    total = total + find["token_type_embeddings"][0] + table[marker]
    mean, variance = total.mean(-1, keepdims=True), total.var(-1, keepdims=True)
    expected = (total - mean) / np.sqrt(variance + 1e-12) * find["LayerNorm/gamma"] + find["LayerNorm/beta"]
    found = backbone(app.model.backbone_inputs(batch))["hidden_states"][0]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_original_hae_dropped_out_in_prediction_too(tiny_model):
    from easytransfer.layers.dropout import Dropout

    app = app_of(tiny_model, dropout_rate=0.5)
    app.build_model()
    batch = batch_of(app)
    first, second = app.model(batch)["start_logits"], app.model(batch)["start_logits"]
    np.testing.assert_array_equal(first, second)
    layers = [layer for layer in app.model._flatten_layers() if type(layer).__name__.startswith("Dropout")]
    assert len(layers) > 5 and all(isinstance(layer, Dropout) for layer in layers)


def test_history_table_is_trained(tiny_model):
    app = app_of(tiny_model)
    model, batch = app.build_model(), batch_of(app)
    labels = {"start_position": [3, 0, 2], "end_position": [4, 0, 5], "example_weight": tf.ones(3)}
    with tf.GradientTape() as tape:
        loss = app.losses(labels, model(batch), EVALUATION)["loss"].sum
    (gradient,) = tape.gradient(loss, model.history.trainable_variables)
    values = tf.convert_to_tensor(gradient).numpy()
    assert values.shape == (2, 32) and (np.abs(values).max(axis=1) > 0).all()


def test_padding_takes_no_part(tiny_model):
    app = app_of(tiny_model)
    app.build_model()
    batch = batch_of(app)
    wide = {name: tf.pad(value, [[0, 0], [0, 5]]) for name, value in batch.items()}
    short, long = app.model(batch), app.model(wide)
    for name in short:
        np.testing.assert_allclose(long[name][:, :12], short[name], atol=1e-5)
        assert (long[name][:, 12:].numpy() == -1e9).all() and (short[name][1, 7:].numpy() == -1e9).all()
