"""What is special about text classification: targets, label columns, weights, and the original's defects."""

from collections import Counter

import numpy as np
import pytest

from appzoo.text_classify.config import BertClassifyConfig
from easytransfer.app.targets.labels import MultiLabel, Score, SingleLabel
from easytransfer.data.labels import LabelMap
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import ConfigError
from easytransfer.train.step import EVALUATION

NAMES = ["negative", "neutral", "positive"]


def make_app(tiny_model, labels="negative,neutral,positive", data=None, train=None, **model):
    from appzoo.text_classify.app import BertClassify

    values = {"first_sequence": "text", "label_name": "label", "label_enumerate_values": labels, "sequence_length": 16}
    app = BertClassify(
        BertClassifyConfig.model_validate(
            {
                "model_name": "text_classify_bert",
                "data": values | (data or {}),
                "train": train or {},
                "model": {"pretrain_model_name_or_path": str(tiny_model)} | model,
            }
        )
    )
    app.load_assets(None)
    return app


def encode(app, tmp_path, lines, schema="text:str:1,label:str:1"):
    path = tmp_path / "table.tsv"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    bad = BadRows("skip")
    table = open_table(str(path), schema=parse_schema(schema), data=app.config.data, bad_rows=bad)
    (chunk,) = table.chunks()
    return app.encode(chunk, with_labels=True), table.count, bad


# Targets -----------------------------------------------------------------------------------------------------


def test_single_label_reads_names_and_writes_them_back():
    target = SingleLabel(LabelMap(NAMES))
    assert [target.read(cell) for cell in ("neutral", " positive ")] == [1, 2]
    columns = target.columns(np.array([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]], np.float32))
    assert columns["predictions"] == ["neutral", "negative"]
    expected = np.exp([0.0, 2.0, 1.0]) / np.exp([0.0, 2.0, 1.0]).sum()
    np.testing.assert_allclose(columns["probabilities"][0], expected, rtol=1e-6)


@pytest.mark.parametrize(("cell", "message"), [("happy", "unknown label: 'happy'; known: neg"), ("", "empty label")])
def test_single_label_names_the_bad_cell(cell, message):
    with pytest.raises(ValueError, match=message):
        SingleLabel(LabelMap(NAMES)).read(cell)


def test_multi_label_reads_lists_and_predicts_above_the_threshold():
    target = MultiLabel(LabelMap(NAMES), max_num_labels=2, threshold=0.5)
    hot = target.array([target.read("positive,negative"), target.read("neutral")])
    np.testing.assert_array_equal(hot, [[1, 0, 1], [0, 1, 0]])
    columns = target.columns(np.array([[1.0, -1.0, 0.5], [-1.0, -1.0, -1.0]], np.float32))
    assert columns["predictions"] == ["negative,positive", ""]
    np.testing.assert_allclose(columns["probabilities"][0], 1 / (1 + np.exp([-1.0, 1.0, -0.5])), rtol=1e-6)


def test_original_cut_surplus_labels_they_are_a_bad_row():
    target = MultiLabel(LabelMap(NAMES), max_num_labels=2, threshold=0.5)
    with pytest.raises(ValueError, match="too many labels: 3"):
        target.read("negative,neutral,positive")
    with pytest.raises(ValueError, match="label given twice"):
        target.read("negative,negative")


def test_original_regression_predicted_a_constant_it_is_the_value():
    columns = Score().columns(np.array([[0.25], [-3.0]], np.float32))
    assert columns["predictions"] == [0.25, -3.0] and "probabilities" not in columns


@pytest.mark.parametrize("cell", ["many", "", "nan", "inf"])
def test_regression_refuses_what_is_not_a_number(cell):
    with pytest.raises(ValueError, match="number|empty label"):
        Score().read(cell)


# Label lists -------------------------------------------------------------------------------------------------


def test_label_file_may_hold_commas_and_auto_sorts(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("a, or b\nc\n", encoding="utf-8")
    assert LabelMap.parse(str(path), Counter).names == ["a, or b", "c"]
    assert LabelMap.parse("auto", lambda: Counter(b=2, a=1)).names == ["a", "b"]


@pytest.mark.parametrize("spec", ["a,a", "a,,b", "missing/file"])
def test_bad_label_lists_are_refused(spec):
    with pytest.raises(ConfigError):
        LabelMap.parse(spec, Counter)


def test_label_map_survives_its_file(tmp_path):
    LabelMap(["z", "a"]).save(tmp_path)
    assert LabelMap.load(tmp_path).names == ["z", "a"]
    assert LabelMap.load(tmp_path / "elsewhere") is None


# Encoding ----------------------------------------------------------------------------------------------------


def test_unknown_labels_are_bad_rows_and_everything_is_counted(tiny_model, tmp_path):
    app = make_app(tiny_model)
    encoded, count, bad = encode(app, tmp_path, ["the cat\tpositive", "no\thappy", "\tneutral"])
    assert (count.read, count.accepted, count.rejected) == (3, 2, 1) and bad.reasons == {"unknown label": 1}
    assert encoded.columns["label_id"].tolist() == [2, 1]
    assert encoded.lengths.tolist()[1] == 2  # empty text is [CLS] [SEP]


def test_pairs_have_two_segments(tiny_model, tmp_path):
    app = make_app(tiny_model, data={"second_sequence": "other"})
    encoded, _, _ = encode(app, tmp_path, ["the\tthe the\tneutral"], "text:str:1,other:str:1,label:str:1")
    assert encoded.columns["segment_ids"][0].tolist() == [0, 0, 0, 1, 1, 1]


def test_no_truncate_rejects_long_rows(tiny_model, tmp_path):
    app = make_app(tiny_model, data={"no_truncate": True, "sequence_length": 5})
    encoded, count, bad = encode(app, tmp_path, ["the the the the\tneutral", "the\tneutral"])
    assert len(encoded) == 1 and bad.reasons == {"too long": 1} and count.rejected == 1


def test_truncation_and_unknown_tokens_are_counted(tiny_model, tmp_path):
    app = make_app(tiny_model, data={"sequence_length": 5})
    encode(app, tmp_path, ["the the the the\tneutral", "\U00010348\tneutral"])
    assert app.text_counts["truncated"] == 1 and app.text_counts["unknown"] == 1 and app.text_counts["rows"] == 2


# Losses ------------------------------------------------------------------------------------------------------


def test_balanced_class_weights_against_numpy(tiny_model, tmp_path):
    import tensorflow as tf

    app = make_app(tiny_model, train={"class_weights": "balanced"})
    encoded, _, _ = encode(app, tmp_path, ["a\tnegative", "b\tnegative", "c\tnegative", "d\tpositive"])
    app.on_train_table(encoded)
    labels, logits = np.array([0, 0, 0, 2]), np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    batch = {"label_id": tf.constant(labels, tf.int32), "example_weight": tf.ones(4)}
    total, weight = app.losses(batch, {"logits": tf.constant(logits)}, EVALUATION)["loss"]
    loss = total / weight
    weights = (4 / (3 * np.maximum(np.bincount(labels, minlength=3), 1)))[labels]
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -(weights * log_softmax[np.arange(4), labels]).sum() / weights.sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("spec", ["1,2", "1,x,3", "-1,1,1", "0,0,0"])
def test_bad_class_weights_are_refused(tiny_model, tmp_path, spec):
    app = make_app(tiny_model, train={"class_weights": spec})
    with pytest.raises(ConfigError, match="class_weights"):
        app.on_train_table(encode(app, tmp_path, ["a\tnegative"])[0])


def test_settings_that_do_not_fit_are_refused(tiny_model):
    with pytest.raises(ConfigError, match="num_labels"):
        make_app(tiny_model, num_labels=2)
    with pytest.raises(ConfigError, match="multi_label needs the label names"):
        make_app(tiny_model, labels=None, multi_label=True)
    with pytest.raises(ConfigError, match="sequenceLength exceeds"):
        make_app(tiny_model, data={"sequence_length": 100_000})
    with pytest.raises(ValueError, match="class_weights"):
        BertClassifyConfig.model_validate({"model": {"multi_label": True}, "train": {"class_weights": "balanced"}})


def test_layer_groups_hold_every_trainable_variable_once(tiny_model):
    app = make_app(tiny_model)
    model = app.build_model()
    grouped = [id(variable) for group in app.layer_groups() for variable in group]
    assert sorted(grouped) == sorted(id(variable) for variable in model.trainable_variables)
