"""What is special about text matching: pairs, towers, negatives, vectors, bad input, and the original's defects."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from appzoo.cli.main import main
from appzoo.cli.reader import JobReader
from appzoo.text_match.config import BertMatchConfig, TwoTowerConfig
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import ConfigError, DataError
from easytransfer.train.step import EVALUATION

SCHEMA = "first:str:1,second:str:1,label:str:1"
ROWS = [
    ("the cat sat", "a cat was sitting", "1"),
    ("open the door", "the door is green", "0"),
    ("the dog ran", "a dog was running", "1"),
    ("", "nothing at all", "0"),
    ("how are you", "how do you do", "1"),
    ("how are you", "how do you do", "1"),
]


def make_app(tiny_model, variant="bert_two_tower", labels="0,1", data=None, train=None, **model):
    from appzoo.text_match.app import VARIANTS

    columns = {"first_sequence": "first", "second_sequence": "second", "label_name": "label"}
    values = {
        "model_name": f"text_match_{variant}",
        "data": columns | {"label_enumerate_values": labels, "sequence_length": 16} | (data or {}),
        "train": train or {},
        "model": {"pretrain_model_name_or_path": str(tiny_model)} | model,
    }
    config_class = {"bert": BertMatchConfig, "bert_two_tower": TwoTowerConfig}[variant]
    app = VARIANTS[variant](config_class.model_validate(values))
    app.load_assets(None)
    return app


def encode(app, folder, rows=ROWS, schema=SCHEMA, policy="fail", with_labels=True):
    path = folder / "table.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    bad = BadRows(policy)
    table = open_table(str(path), schema=parse_schema(schema), data=app.config.data, bad_rows=bad)
    (chunk,) = table.chunks()
    return SimpleNamespace(encoded=app.encode(chunk, with_labels), count=table.count, bad=bad, empty=table.empty_text)


@pytest.fixture(scope="module")
def towers(tiny_model):
    app = make_app(tiny_model)
    app.build_model()
    return app


@pytest.fixture(scope="module")
def projected(tiny_model):
    app = make_app(tiny_model, projection_dim=6)
    app.build_model()
    return app


def tensors(encoded, **options):
    import tensorflow as tf

    batch = encoded.batch(range(len(encoded)), **options)
    return {name: tf.constant(value) for name, value in batch.items()}


# Pairs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["bert", "bert_two_tower"])
def test_a_pair_needs_two_columns(tiny_model, variant):
    with pytest.raises(ConfigError, match=f"text_match_{variant} compares two texts and secondSequence is not given"):
        make_app(tiny_model, variant, data={"second_sequence": None})
    with pytest.raises(ConfigError, match="the same column"):
        make_app(tiny_model, variant, data={"second_sequence": "first"})


@pytest.mark.parametrize("variant", ["bert", "bert_two_tower"])
def test_the_command_line_asks_for_the_second_column(tmp_path, tiny_model, variant, capfd):
    table = tmp_path / "t.tsv"
    table.write_text("a\tb\t1\n")
    code = main(
        ["train", f"--modelName=text_match_{variant}", f"--inputTable={table},{table}", f"--inputSchema={SCHEMA}"]
        + ["--firstSequence=first", "--labelName=label", "--labelEnumerateValues=0,1"]
        + [f"--checkpointDir={tmp_path / 'run'}", f"--advancedParameters=pretrain_model_name_or_path={tiny_model}"]
    )
    assert code == 2 and "mode train needs --secondSequence" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_packed_pairs_have_two_segments_and_draw_their_scores(tiny_model, tmp_path):
    app = make_app(tiny_model, "bert")
    encoded = encode(app, tmp_path).encoded
    assert set(encoded.columns["segment_ids"][0].tolist()) == {0, 1}
    evaluator = app.evaluator()
    evaluator.update({"label_id": np.array([0, 1])}, {"logits": np.eye(2, dtype=np.float32)})
    assert evaluator.report()["scores"]["name"] == "probability of 1"


def test_packed_pairs_take_several_classes_and_numbers(tiny_model, tmp_path):
    app = make_app(tiny_model, "bert", labels="a,b,c")
    assert app.evaluator().names[0] == "accuracy" and app.target.num_outputs == 3
    app = make_app(tiny_model, "bert", labels=None)
    encoded = encode(app, tmp_path).encoded
    assert encoded.columns["label_id"].dtype == np.float32 and app.evaluator().main_metric == "mse"


# Towers ------------------------------------------------------------------------------------------------------


def test_vectors_are_the_pooled_output_or_a_projection_of_the_first_token(towers, projected, tmp_path):
    for app, size in ((towers, None), (projected, 6)):
        batch = tensors(encode(app, tmp_path).encoded)
        outputs = app.forward(batch)
        encoder = app.model.tower.backbone(batch)
        if size is None:
            expected = encoder["pooled_output"].numpy()
        else:
            kernel, bias = (variable.numpy() for variable in app.model.tower.projection_variables)
            expected = encoder["sequence_output"][:, 0].numpy() @ kernel + bias
        np.testing.assert_allclose(outputs["vector_a"], expected, atol=1e-5)
        np.testing.assert_allclose(app.model.text_vector(encoder), expected, atol=1e-5)
        a, b = outputs["vector_a"].numpy(), outputs["vector_b"].numpy()
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        np.testing.assert_allclose(outputs["logits"], cosine, atol=1e-5)
        grouped = [id(variable) for group in app.layer_groups() for variable in group]
        assert sorted(grouped) == sorted(id(variable) for variable in app.model.trainable_variables)
        assert app.model.backbone is app.model.tower.backbone and all(part.reads_apart for part in app.inputs)


def test_original_two_towers_were_encoded_differently_a_text_has_one_vector(projected, tmp_path):
    """The original gave second texts no [CLS], segment 1, and in serving yet another form."""
    texts = ["the cat sat", "a door", "", "the dog ran over the green hill"]
    swapped = [(a, b, "1") for a, b in zip(texts, texts[::-1], strict=True)]
    encoded = encode(projected, tmp_path, swapped).encoded
    for row, other in enumerate(range(len(texts) - 1, -1, -1)):
        for name in ("input_ids", "segment_ids"):
            np.testing.assert_array_equal(encoded.columns[name][row], encoded.columns[f"{name}_b"][other])
    assert encoded.columns["segment_ids_b"].values.max() == 0
    cls = projected.encoder.tokenizer.encode([""], None, max_length=8).input_ids[0][0]
    assert all(encoded.columns["input_ids_b"][row][0] == cls for row in range(len(texts)))
    outputs = projected.forward(tensors(encoded))
    np.testing.assert_allclose(outputs["vector_a"], outputs["vector_b"][::-1], atol=1e-6)

    projected.save_assets(tmp_path)
    signatures = projected.signatures(tmp_path)
    import tensorflow as tf

    for side in ("vectors_a", "vectors_b"):
        served = signatures[side].function(text=tf.constant(texts))["vector"]
        np.testing.assert_allclose(served, outputs["vector_a"], atol=1e-5)
    answer = signatures["serving_default"].function(text_a=tf.constant(texts), text_b=tf.constant(texts[::-1]))
    np.testing.assert_allclose(answer["score"], outputs["logits"], atol=1e-5)
    np.testing.assert_allclose(answer["probabilities"], (outputs["logits"] + 1) / 2, atol=1e-5)


def test_predictions_follow_the_threshold_and_serving_agrees(towers):
    import tensorflow as tf

    cosine = np.array([-1.0, 0.49, 0.5, 0.51, 1.0], np.float32)
    columns = towers.postprocess({"logits": cosine}, None)
    assert columns["predictions"] == ["0", "0", "0", "1", "1"]
    np.testing.assert_allclose(columns["probabilities"], [0, 0.745, 0.75, 0.755, 1])
    assert columns["logits"] == cosine.tolist()
    answer = towers.target.answer({"logits": tf.constant(cosine)})
    assert [label.decode() for label in answer["label"].numpy()] == columns["predictions"]
    assert towers.output_columns() == ("predictions", "probabilities", "logits")


def test_another_threshold_is_used_everywhere(tiny_model):
    import tensorflow as tf

    app = make_app(tiny_model, labels="different,same", threshold=-0.2)
    assert app.postprocess({"logits": np.array([-0.1, -0.3], np.float32)}, None)["predictions"] == ["same", "different"]
    assert app.target.answer({"logits": tf.constant([-0.1])})["label"].numpy().tolist() == [b"same"]
    assert app.evaluator().threshold == -0.2


def test_the_best_threshold_is_kept_used_and_measured_with(tiny_model, tmp_path):
    """Cosines 0.1 and 0.2 do not match, 0.3 and 0.9 do: half-way between 0.2 and 0.3 all four are right."""
    import tensorflow as tf

    app = make_app(tiny_model, labels="different,same")
    assert app.target.threshold == 0.5
    cosine = np.array([0.1, 0.3, 0.2, 0.9], np.float32)
    ids = np.array([[1, 5], [2, 6], [3, 7], [4, 8]])
    evaluator = app.evaluator()
    evaluator.update(
        {"label_id": np.array([0, 1, 0, 1]), "input_ids": ids, "input_ids_b": ids + 10},
        {"logits": cosine, "vector_a": np.eye(4, dtype=np.float32), "vector_b": np.eye(4, dtype=np.float32)},
    )
    before = evaluator.result()
    assert before["accuracy"] == 0.75
    app.on_evaluation(evaluator, tmp_path)
    after = evaluator.result()
    assert after["accuracy"] == after["best_accuracy"] == 1.0 and after["auc"] == before["auc"]
    assert app.target.threshold == after["best_threshold"] == pytest.approx(0.25)
    assert app.postprocess({"logits": cosine}, None)["predictions"] == ["different", "same", "different", "same"]
    assert app.target.answer({"logits": tf.constant([0.3])})["label"].numpy().tolist() == [b"same"]
    # A later job reads it from the folder, and one that is given another uses that.
    app.save_assets(tmp_path)
    later, other = make_app(tiny_model, labels=None), make_app(tiny_model, labels=None, threshold=0.4)
    for opened in (later, other):
        opened.load_assets(tmp_path)
    assert (later.evaluator().threshold, other.evaluator().threshold) == (app.target.threshold, 0.4)
    other.on_evaluation(evaluator, tmp_path)
    assert other.target.threshold == 0.4 and not (tmp_path / "threshold.json").exists()


def test_numbers_are_trained_by_the_cosine(tiny_model, tmp_path):
    app = make_app(tiny_model, labels=None)
    app.build_model()
    assert app.target.loss_name == "cosine" and app.output_columns() == ("predictions", "logits")
    rows = [(a, b, number) for (a, b, _), number in zip(ROWS, ("0.5", "-1", "0", "1", "0.25", "1"), strict=True)]
    batch = tensors(encode(app, tmp_path, rows).encoded)
    outputs = app.forward(batch)
    expected = ((outputs["logits"].numpy() - [0.5, -1, 0, 1, 0.25, 1]) ** 2).sum()
    np.testing.assert_allclose(app.losses(batch, outputs, EVALUATION)["loss"].sum, expected, rtol=1e-5)
    assert app.target.answer(outputs).keys() == {"score"}


def test_original_mse_came_from_a_constant_class_it_is_that_of_the_cosine(tiny_model):
    app = make_app(tiny_model, labels=None)
    evaluator = app.evaluator()
    cosine = np.array([0.25, -0.5, 1.0], np.float32)
    evaluator.update({"label_id": np.array([0.5, -0.5, 0.0], np.float32)}, {"logits": cosine})
    assert evaluator.result()["mse"] == pytest.approx((0.25**2 + 0 + 1) / 3)
    assert app.postprocess({"logits": cosine}, None)["predictions"] == cosine.tolist()
    packed = make_app(tiny_model, "bert", labels=None)
    assert packed.postprocess({"logits": cosine[:, None]}, None)["predictions"] == cosine.tolist()


def test_tables_of_token_ids_train_as_their_texts_do(tiny_model, tmp_path):
    from appzoo import jobs
    from appzoo.jobs.tables import load_rows

    made = encode(make_app(tiny_model), tmp_path).encoded
    columns = {"first_sequence": "first", "second_sequence": "second", "label_name": "label"}
    job = {
        "input_table": str(tmp_path / "table.tsv"),
        "output_table": str(tmp_path / "ids.tsv"),
        "input_schema": SCHEMA,
    }
    config = make_app(tiny_model, data=columns | job).config
    names = jobs.preprocess(config)["columns"]
    schema = ",".join(f"{name}:int:{1 if name == 'label_id' else 16}" for name in names)
    app = make_app(tiny_model, data={"input_schema": schema, "first_sequence": None, "second_sequence": None})
    read = load_rows(app, str(tmp_path / "ids.tsv"), True).encoded
    ours, theirs = (table.batch(range(len(ROWS))) for table in (made, read))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    with pytest.raises(ConfigError, match="token ids of both texts"):
        make_app(tiny_model, data={"input_schema": "input_ids:int:16,label_id:int:1"})


# Losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["margin", "softmax", "cosine"])
def test_original_in_batch_negatives_ignored_the_label(tiny_model, towers, tmp_path, monkeypatch, loss):
    """Turning a label changes the loss, and a pair labelled 0 is pushed apart."""
    import tensorflow as tf

    app = make_app(tiny_model, matching_loss=loss)
    app.model = towers.model
    encoded = encode(app, tmp_path).encoded
    batch = tensors(encoded)
    outputs = app.forward(batch)
    vectors = {name: tf.Variable(outputs[name]) for name in ("vector_a", "vector_b")}

    def value(labels):
        from easytransfer.losses.matching import cosine

        changed = {**vectors, "logits": cosine(*vectors.values())}
        return app.losses({**batch, "label_id": tf.constant(labels, tf.int32)}, changed, EVALUATION)["loss"].sum

    labels = encoded.columns["label_id"]
    turned = labels.copy()
    turned[2] = 0
    assert float(value(labels)) != pytest.approx(float(value(turned)), abs=1e-4)
    own = float(outputs["logits"][1])
    with tf.GradientTape() as tape:
        total = value(labels)
    step = tape.gradient(total, vectors["vector_a"])[1].numpy()
    moved = outputs["vector_a"][1].numpy() - 0.01 * step
    other = outputs["vector_b"][1].numpy()
    assert moved @ other / np.linalg.norm(moved) / np.linalg.norm(other) < own


@pytest.mark.parametrize("loss", ["margin", "softmax", "cosine"])
def test_fillers_and_duplicates_do_not_change_the_loss(tiny_model, towers, tmp_path, loss):
    app = make_app(tiny_model, matching_loss=loss)
    app.model = towers.model
    encoded = encode(app, tmp_path).encoded
    plain, filled = tensors(encoded), tensors(encoded, size=9)
    (value, _), (with_fillers, weight) = (
        app.losses(batch, app.forward(batch), EVALUATION)["loss"] for batch in (plain, filled)
    )
    assert float(weight) == len(ROWS)
    assert float(value) == pytest.approx(float(with_fillers), rel=1e-5)
    # Rows 4 and 5 are one pair twice: neither is a negative of the other, so alone they have nothing to be apart from.
    twice = tensors(encoded.take([4, 5]))
    if loss != "cosine":
        assert float(app.losses(twice, app.forward(twice), EVALUATION)["loss"].sum) == pytest.approx(0, abs=1e-6)


def test_settings_that_do_not_fit_are_refused(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match="3 labels"):
        make_app(tiny_model, labels="a,b,c")
    with pytest.raises(ConfigError, match="matching_loss=softmax needs to know which pairs match"):
        make_app(tiny_model, labels=None, matching_loss="softmax")
    for values in ({"model": {"projection_dim": 0}}, {"train": {"class_weights": "balanced"}}):
        with pytest.raises(ValueError, match="projection_dim|class_weights"):
            TwoTowerConfig.model_validate(values)
    app = make_app(tiny_model, labels="0,1")
    with pytest.raises(ConfigError, match="no training row has the label '1'"):
        app.on_train_table(encode(app, tmp_path, ROWS[1:2]).encoded)


def test_wrong_values_are_explained_on_the_command_line():
    for key in ("model.projection_dim=0", "train.class_weights=balanced"):
        with pytest.raises(ConfigError, match=key.split(".")[1].split("=")[0]):
            JobReader("train", ["--modelName=text_match_bert_two_tower", f"--set={key}"], []).read()


# Bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["bert", "bert_two_tower"])
def test_bad_rows_name_file_row_and_column(tiny_model, tmp_path, variant):
    app = make_app(tiny_model, variant)
    with pytest.raises(DataError) as caught:
        encode(app, tmp_path, [*ROWS, ("a", "b", "perhaps")])
    for part in ("table.tsv", "7", "label", "unknown label: 'perhaps'", "0, 1"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r"table\.tsv.*2"):
        encode(app, tmp_path, [ROWS[0], ("only one column",)])
    found = encode(app, tmp_path, [*ROWS, ("a", "b", ""), ("a", "b", "perhaps")], policy="skip")
    assert found.bad.reasons == {"empty label": 1, "unknown label": 1} and len(found.encoded) == len(ROWS)


@pytest.mark.parametrize("variant", ["bert", "bert_two_tower"])
def test_empty_texts_are_allowed_and_counted(tiny_model, tmp_path, variant):
    app = make_app(tiny_model, variant)
    found = encode(app, tmp_path, [("", "", "1"), ("a", "", "0")])
    assert len(found.encoded) == 2 and found.empty == {"first": 1, "second": 2}


def test_long_texts_of_either_side_are_bad_rows_on_request(tiny_model, tmp_path):
    app = make_app(tiny_model, data={"no_truncate": True, "sequence_length": 5})
    rows = [("the the the the", "the", "1"), ("the", "the the the the", "1"), ("the", "the", "1")]
    found = encode(app, tmp_path, rows, policy="skip")
    assert found.bad.reasons == {"too long": 2} and len(found.encoded) == 1
    app = make_app(tiny_model, data={"sequence_length": 5})
    encode(app, tmp_path, rows)
    assert app.text_counts["truncated"] == 2 and app.text_counts["rows"] == 6  # texts


@pytest.mark.parametrize(
    ("content", "labels", "message"),
    [
        (b"a b,c d,1\n", "0,1", "wrong column count.*separator TAB"),
        (b"a\tb\t1\n", "0,1,1", "lists a label twice"),
        (b"\x00\xff\xfe\x01\x02\x00PK\x03\x04\n\x00\x9c", "0,1", "UTF-8|binary"),
        (b"", "0,1", "no usable row|empty"),
    ],
    ids=["wrong delimiter", "duplicate label", "binary file", "empty file"],
)
@pytest.mark.parametrize("variant", ["bert", "bert_two_tower"])
def test_unusable_tables_and_lists_end_with_one_clear_line(
    tmp_path, tiny_model, capfd, variant, content, labels, message
):
    table = tmp_path / "pairs.tsv"
    table.write_bytes(content)
    code = main(
        ["train", f"--modelName=text_match_{variant}", f"--inputTable={table},{table}", f"--inputSchema={SCHEMA}"]
        + ["--firstSequence=first", "--secondSequence=second", "--labelName=label", f"--labelEnumerateValues={labels}"]
        + [f"--checkpointDir={tmp_path / 'run'}", f"--advancedParameters=pretrain_model_name_or_path={tiny_model}"]
    )
    error = capfd.readouterr().err
    assert code == (2 if labels == "0,1,1" else 3), error
    assert re.search(message, error) and "Traceback" not in error
    if code == 3 and content and b"\0" not in content:
        assert re.search(r"pairs\.tsv:1", error), error
