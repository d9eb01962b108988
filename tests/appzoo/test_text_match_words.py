"""What is special about the matching variants that compare words: pairs, the penalty of HCNN, numbers as targets."""

import math
from pathlib import Path

import numpy as np
import pytest

from appzoo.text_match.config import VARIANTS
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import ConfigError
from easytransfer.train.step import EVALUATION

NAMES = ("dam", "damplus", "bicnn", "hcnn")
TEXTS = {"a": ["how much is it", "where is it"], "b": ["what does it cost", "it is here"]}
ROWS = ["how much is it\twhat does it cost\tyes", "where is it\twhat does it cost\tno", "\tit is here\tno"]
SMALL = {"embedding_size": 6, "hidden_size": 4, "first_sequence_length": 5, "second_sequence_length": 4}


def mean_loss(app, batch, outputs):
    """The sum of all losses, each by its weight."""
    return sum(total / weight for total, weight in app.losses(batch, outputs, EVALUATION).values())


def make_app(name, labels="no,yes", data=None, prepare=True, train=None, **model):
    from appzoo.text_match.app import VARIANTS as APPS

    values = {"first_sequence": "a", "second_sequence": "b", "label_name": "label", "label_enumerate_values": labels}
    app = APPS[name](
        VARIANTS[name].model_validate(
            {
                "model_name": f"text_match_{name}",
                "data": values | (data or {}),
                "model": SMALL | model,
                "train": train or {},
            }
        )
    )
    if prepare:
        app.load_assets(None, lambda column: TEXTS[column])
        app.build_model()
    return app


def encode(app, tmp_path, lines=ROWS):
    path = tmp_path / "table.tsv"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    bad = BadRows("skip")
    schema = parse_schema("a:str:1,b:str:1,label:str:1")
    (chunk,) = open_table(str(path), schema=schema, data=app.config.data, bad_rows=bad).chunks()
    return app.encode(chunk, with_labels=True), bad


def tensors(encoded, pad_multiple=1):
    import tensorflow as tf

    batch = encoded.batch(range(len(encoded)), pad_multiple=pad_multiple)
    return {name: tf.constant(value) for name, value in batch.items()}


def test_default_parameters_are_those_of_the_original():
    for name in NAMES:
        model = VARIANTS[name]().model
        assert (model.max_vocab_size, model.embedding_size, model.hidden_size) == (20000, 300, 200)
        length = 64 if name == "hcnn" else 50
        assert model.first_sequence_length == model.second_sequence_length == length
        assert not model.fix_embedding and model.pretrain_word_embedding_name_or_path is None
    assert (VARIANTS["hcnn"]().model.l2_reg, VARIANTS["hcnn"]().model.filter_size) == (4e-4, 4)


@pytest.mark.parametrize("name", NAMES)
def test_both_columns_must_be_named(name):
    with pytest.raises(ConfigError, match="secondSequence is not given"):
        make_app(name, data={"second_sequence": None}, prepare=False).load_assets(None, lambda column: [])
    with pytest.raises(ConfigError, match="the same column"):
        make_app(name, data={"second_sequence": "a"}, prepare=False).load_assets(None, lambda column: [])


def test_sequence_length_has_no_meaning_here_and_that_is_said(capfd):
    make_app("dam", data={"sequence_length": 64})
    assert "does not use sequenceLength" in capfd.readouterr().err


def test_rows_are_cut_at_their_own_lengths_and_counted(tmp_path):
    lines = ["it is it is it is\tit is it is it\tno", "fun\tit\tyes", "it\tit\tperhaps"]
    app = make_app("dam")
    assert app.vocabulary.words[6:10] == ["it", "is", "cost", "does"]
    encoded, bad = encode(app, tmp_path, lines)
    assert [row.tolist() for row in encoded.columns["input_ids_a"]] == [[6, 7, 6, 7, 6], [1]]
    assert [row.tolist() for row in encoded.columns["input_ids_b"]] == [[6, 7, 6, 7], [6]]
    assert bad.reasons == {"unknown label": 1}
    assert app.text_counts == {"rows": 2, "truncated": 1, "tokens": 11, "unknown": 1}
    strict = make_app("dam", data={"no_truncate": True})
    encoded, bad = encode(strict, tmp_path, lines[:2])
    assert len(encoded) == 1 and bad.reasons == {"too long": 1}


@pytest.mark.parametrize("name", NAMES)
def test_padding_of_a_batch_changes_no_answer_and_raw_text_gives_the_same(name, tmp_path):
    app = make_app(name)
    encoded, _ = encode(app, tmp_path)
    logits = app.forward(tensors(encoded))["logits"].numpy()
    np.testing.assert_allclose(app.forward(tensors(encoded, 16))["logits"], logits, atol=1e-6)
    signatures = app.signatures(Path(tmp_path))
    first, second, _ = zip(*(row.split("\t") for row in ROWS), strict=True)
    served = signatures["serving_default"].function(text_a=list(first), text_b=list(second))
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(served["probabilities"], expected, atol=1e-6)
    assert {"serving_default", "predict_ids", "labels", "classify"} == signatures.keys()


@pytest.mark.parametrize("name", NAMES)
def test_layer_groups_hold_every_trainable_variable_once(name):
    app = make_app(name)
    grouped = [id(variable) for group in app.layer_groups() for variable in group]
    assert len(app.layer_groups()) == 3
    assert sorted(grouped) == sorted(id(variable) for variable in app.model.trainable_variables)
    fixed = make_app(name, fix_embedding=True)
    assert fixed.layer_groups()[0] == [] and len(fixed.model.weights) == len(app.model.weights)


def test_original_hcnn_l2_penalty_was_not_in_the_loss(tmp_path):
    import tensorflow as tf

    app = make_app("hcnn", l2_reg=0.3)
    encoded, _ = encode(app, tmp_path)
    batch = tensors(encoded)
    # A row that only fills the batch up changes neither the loss of the rows nor the share of the penalty.
    batch["example_weight"] = tf.constant([1.0, 1.0, 0.0])
    with tf.GradientTape() as tape:
        outputs = app.forward(batch)
        total = mean_loss(app, batch, outputs)
    logits = outputs["logits"].numpy().astype(float)[:2]
    entropy = (np.log(np.exp(logits).sum(1)) - logits[[0, 1], [1, 0]]).mean()
    encoder = app.model.branches[0].encoder
    kernels = [encoder.wide.kernel, *(layer.kernel for layer in encoder.pyramid)]
    squares = sum((kernel.numpy().astype(float) ** 2).sum() for kernel in kernels)
    assert total.numpy() == pytest.approx(entropy + 0.3 * squares / 2, rel=1e-5)
    without = make_app("hcnn", l2_reg=0.0)
    without.model.set_weights(app.model.get_weights())
    with tf.GradientTape() as plain:
        rest = mean_loss(without, batch, without.forward(batch))
    kernel = without.model.branches[0].encoder.wide.kernel
    pulled = tf.convert_to_tensor(tape.gradient(total, encoder.wide.kernel))
    expected = tf.convert_to_tensor(plain.gradient(rest, kernel)) + 0.3 * kernel
    np.testing.assert_allclose(pulled, expected, rtol=1e-4, atol=1e-6)


def test_hcnn_penalty_is_the_same_however_the_batch_is_split(tmp_path):
    import tensorflow as tf

    app = make_app("hcnn")
    encoded, _ = encode(app, tmp_path)
    rows = [tensors(encoded.take(part)) for part in ([0], [1, 2])]
    parts = [app.losses(batch, app.forward(batch), EVALUATION)["l2"] for batch in rows]
    whole = tensors(encoded)
    total, weight = app.losses(whole, app.forward(whole), EVALUATION)["l2"]
    one = total / weight
    split = tf.add_n([loss for loss, _ in parts]) / tf.add_n([weight for _, weight in parts])
    np.testing.assert_allclose(split, one, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_original_matching_regression_mse_came_from_a_constant(name, tmp_path):
    app = make_app(name, labels="none")
    encoded, bad = encode(app, tmp_path, ["how much is it\twhat does it cost\t2.5", "it\tis\t-1", "it\tis\tmany"])
    assert bad.reasons == {"not a number": 1}
    batch = tensors(encoded)
    outputs = {"logits": app.forward(batch)["logits"].numpy()}
    values, gold = outputs["logits"][:, 0], np.array([2.5, -1.0])
    total, weight = app.losses(batch, outputs, EVALUATION)["loss"]
    loss = total / weight
    evaluator = app.evaluator()
    evaluator.update(encoded.batch(range(2)), outputs)
    mse = evaluator.result()["mse"]
    assert mse == pytest.approx(((values - gold) ** 2).mean(), rel=1e-5) == pytest.approx(float(loss), rel=1e-5)
    # The original predicted argmax and softmax of one number: 0 and 1 whatever the model said.
    assert app.postprocess(outputs, encoded)["predictions"] == values.tolist() and values[0] != values[1]
    assert app.output_columns() == ("predictions", "logits")
    assert "regress" in app.signatures(tmp_path)


def test_damplus_is_dam_beside_bicnn_of_half_the_filters():
    dam, bicnn = (branch.encoder for branch in make_app("damplus").branches())
    assert (dam.hidden_size, bicnn.num_filters) == (4, 2)
    head = make_app("damplus").model.head.kernel
    assert head.shape == (8, 2)


def test_untrained_answers_are_even():
    """The head starts near 0, so the first loss is the entropy of a guess."""
    app = make_app("bicnn")
    batch = {f"input_{what}_{side}": np.ones([2, 3], np.int32) for what in ("ids", "mask") for side in "ab"}
    logits = app.model(batch)["logits"].numpy()
    loss = np.log(np.exp(logits).sum(1)) - logits[:, 0]
    assert loss.mean() == pytest.approx(math.log(2), abs=0.02)
